"""Writes the tables of docs/what-a-check-can-detect.md: the rules of an entry's check, and how far figures may move.

The table of lies is written by `tests/leaderboards/doctored.py`, which tries them.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace

from leaderboards.checks.rerun import COMPARED_FIGURES
from leaderboards.checks.rules import ENTRY_RULES, EntryRule
from tools.readme import put

DETECTION_PAGE = Path(__file__).resolve().parents[1] / "docs" / "what-a-check-can-detect.md"


def rule_table() -> str:
    """Every rule as a row of Markdown, in the order in which it is asked."""
    lines = ["| Promise | Broken by | Needs |", "|:--|:--|:--|"]
    lines += [f"| {_promise(rule)} | {_faults(rule)} | {_needs(rule)} |" for rule in ENTRY_RULES]
    return "\n".join(lines)


def figure_table() -> str:
    """Every figure that is compared after a re-run, as a row of Markdown with its tolerance."""
    lines = ["| Figure | May move by |", "|:--|:--|"]
    lines += [f"| {one.text.format(one.owner)} | {one.tolerance:g}{one.unit} |" for one in COMPARED_FIGURES]
    return "\n".join(lines)


def _promise(rule: EntryRule) -> str:
    return rule.promise.format(submission=SimpleNamespace(base="COMMIT", figure_count="K"))


def _faults(rule: EntryRule) -> str:
    """The first sentence of the docstring of its check, without its stop."""
    return (inspect.getdoc(rule.check) or "").split("\n\n")[0].replace("\n", " ").removesuffix(".")


def _needs(rule: EntryRule) -> str:
    return "; ".join(need.words for need in rule.needs)


if __name__ == "__main__":
    put("rules", rule_table(), DETECTION_PAGE)
    put("figures", figure_table(), DETECTION_PAGE)
