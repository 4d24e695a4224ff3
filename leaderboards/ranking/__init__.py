"""From rows to ranks: statistics, evidence, verdicts, costs; numbers only."""
