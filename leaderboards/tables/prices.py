"""Tables of what a defense costs beside what it leaks: its price, its proofs, and ranks at accuracy budgets."""

from __future__ import annotations

from math import ceil, floor, log10

import numpy as np
import pandas as pd

from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.budgets import FEW_SEEDS, TOO_COSTLY
from leaderboards.ranking.costs import BROKEN, NOT_MEASURED
from leaderboards.ranking.summary import Row
from leaderboards.tables.formats import Table
from leaderboards.tables.notes import marked
from leaderboards.tables.scores import ABSENT, number

SHORT = {TOO_COSTLY: TOO_COSTLY, FEW_SEEDS: "few seeds", NOT_MEASURED: "not measured", "incomplete": "incomplete"}
SHORT[BROKEN] = "broken"


def is_priced(rows: list[Row]) -> bool:
    """Whether the run has trained or certified anybody, be it in vain."""
    return any(
        row["accuracy_reason"] != NOT_MEASURED or row["certificate_reason"] or not np.isnan(row["certificate"])
        for row in rows
    )


def overview(rows: list[Row], gains: dict[str, list[str]], reasons: dict[str, int]) -> Table:
    """Leakage, accuracy, proofs and traffic of every defense; `gains` are the leakage's cells."""
    lines = []
    for row in rows:
        certificate = ABSENT + marked(reasons, row["certificate_reason"])
        if not np.isnan(row["certificate"]):
            broken = "BROKEN: " if row["certificate_broken"] else ""
            certificate = f"{broken}{row['certificate_measured']:.3f} / {row['certificate']:.3f}"
        accuracy = ABSENT if np.isnan(row["accuracy"]) else f"{row['accuracy']:.3f}"
        costs = [accuracy, _lost(row, reasons), _epsilon(row, reasons), certificate]
        costs += [_kibibytes(row), number(row["update_ms"], ".3g")]
        lines.append([row["defense"], *gains[row["defense"]], *costs])
    columns = ["defense", "SSIM gain", "95% interval", "accuracy", "accuracy lost", "epsilon", "picked / proven"]
    return Table("Privacy and its price", [*columns, "KiB sent", "ms"], lines)


def what_it_costs(rows: list[Row], reasons: dict[str, int]) -> Table:
    """Accuracy itself, epsilon by another accountant and against another adversary, and how certificates fared."""
    lines = []
    for row in rows:
        others = [epsilon_text(row[name]) for name in ("epsilon_rdp", "epsilon_prv", "epsilon_central")]
        lines.append([row["defense"], _accuracy(row, reasons), *others, _certificate(row, reasons)])
    columns = ["accuracy", "epsilon by RDP", "by PRV", "central, trusted aggregator", "certificate"]
    return Table("What it costs", ["defense", *columns], lines)


def at_budgets(rows: list[Row], reasons: dict[str, int]) -> list[Table]:
    """One row per family, one column per budget: rank and representative, or why there is none.

    No table where nobody is ranked at any budget for one and the same reason.
    """
    if not any(row["defense"] for row in rows):
        whys = {row["why"] for row in rows}
        if len(whys) < 2 and not whys & SHORT.keys():
            return []
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    lines = [[_family(title, own), *(_standing(row, reasons) for row in own)] for title, own in families.items()]
    columns = [f"{budget:g} point{'s' * (budget != 1)}" for budget in budgets]
    return [
        Table("Who leaks least at accuracy budgets: rank, and the strength that has it", ["family", *columns], lines)
    ]


def rank_text(row: Row) -> str:
    """A rank, in brackets every rank that is left open."""
    if pd.isna(row["rank"]):
        return ABSENT
    is_open = row["rank_low"] != row["rank_high"]
    return f"{row['rank']}" + (f" ({row['rank_low']} to {row['rank_high']})" if is_open else "")


def bound_sign(row: Row) -> str:
    """What stands before an SSIM gain that is a lower bound."""
    return "≥ " if row["underpowered"] > 0 or np.isnan(row["ssim_gain"]) else ""


def epsilon_text(epsilon: float) -> str:
    """Three figures, rounded up: an upper bound stays one."""
    if np.isnan(epsilon) or not epsilon:
        return number(epsilon, "g")
    digit = 10.0 ** (floor(log10(epsilon)) - 2)
    rounded = ceil(round(epsilon / digit, 9)) * digit
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _family(title: str, own: list[Row]) -> str:
    parameters = [row["strength"].partition("=")[0] for row in own if row["strength"]]
    return f"{title}: {parameters[0]}" if parameters else title


def _standing(row: Row, reasons: dict[str, int]) -> str:
    if not row["defense"]:
        return SHORT.get(row["why"]) or ABSENT + marked(reasons, row["why"])
    strength = row["strength"].partition("=")[2]
    rank = rank_text(row) + (marked(reasons, row["why"]) if pd.isna(row["rank"]) else "")
    return f"{rank}: {strength}" if strength else rank


def _lost(row: Row, reasons: dict[str, int]) -> str:
    if row["accuracy_lost_reason"]:
        return ABSENT + marked(reasons, _training(row["accuracy_lost_reason"]))
    return f"{round(row['accuracy_lost'], 1) + 0.0:.1f}{_span(row['accuracy_lost_low'], row['accuracy_lost_high'], 1)}"


def _accuracy(row: Row, reasons: dict[str, int]) -> str:
    if row["accuracy_reason"]:
        return ABSENT + marked(reasons, _training(row["accuracy_reason"]))
    few = f"accuracy of fewer than {LEAST_SEEDS} seeds: nobody is called affordable by it"
    why = "; ".join(filter(None, (row["conflicts"], few if row["accuracy_seeds"] < LEAST_SEEDS else "")))
    span = _span(row["accuracy_low"], row["accuracy_high"], 3)
    return f"{row['accuracy']:.3f}{span}{', chance' * bool(row['at_chance'])}{marked(reasons, why)}"


def _training(reason: str) -> str | None:
    return None if reason == NOT_MEASURED else f"training: {reason}"


def _epsilon(row: Row, reasons: dict[str, int]) -> str:
    if not np.isnan(row["epsilon"]):
        return epsilon_text(row["epsilon"])
    why = row["no_epsilon"]
    return ABSENT + marked(reasons, None if why is None or why.startswith("heuristic") else f"no epsilon: {why}")


def _certificate(row: Row, reasons: dict[str, int]) -> str:
    if np.isnan(row["certificate"]):
        return ("broken" if row["certificate_broken"] else ABSENT) + marked(reasons, row["certificate_reason"])
    measured = f"{row['certificate_measured']:.2f} of {row['certificate_trials']:.0f} trials"
    if row["certificate_broken"]:
        return f"BROKEN: {measured}, bound {row['certificate']:.2f}"
    return f"≤ {row['certificate']:.2f} (measured {measured})"


def _kibibytes(row: Row) -> str:
    size = row["bytes_sent"] / 1024
    return ABSENT if np.isnan(size) else f"{size:.1f}" if size < 100 else f"{size:,.0f}"


def _span(low: float, high: float, digits: int) -> str:
    # Adding 0 makes a zero of what rounds to -0.
    return "" if np.isnan(low) else f" [{round(low, digits) + 0.0:.{digits}f}, {round(high, digits) + 0.0:.{digits}f}]"
