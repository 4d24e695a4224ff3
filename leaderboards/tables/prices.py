"""Tables of what a defense costs beside what it leaks: its price, its proofs, and ranks at accuracy budgets."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np

from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.budgets import Absence, Affordable
from leaderboards.ranking.costs import Price
from leaderboards.ranking.standing import Rank, Standing
from leaderboards.tables.formats import Table
from leaderboards.tables.notes import marked
from leaderboards.tables.scores import ABSENT, number

SHORT_ABSENCES = {
    Absence.TOO_COSTLY: "too costly",
    Absence.FEW_SEEDS: "few seeds",
    Absence.NOT_MEASURED: "not measured",
    Absence.INCOMPLETE: "incomplete",
    Absence.NO_RANK: "no rank",
    Absence.BROKEN_CERTIFICATE: "broken",
}


def is_priced(standings: list[Standing]) -> bool:
    """True if the run has trained or certified anybody, be it in vain."""
    prices = [standing.price for standing in standings]
    return any(p.was_trained or p.certificate_reason or not np.isnan(p.certificate) for p in prices)


def overview(
    standings: list[Standing], columns: Sequence[str], gains: dict[str, list[str]], reasons: dict[str, int]
) -> Table:
    """Leakage, accuracy, proofs and traffic of every defense; `gains` are the cells of the leakage's `columns`."""
    lines = []
    for standing in standings:
        price = standing.price
        certificate = ABSENT + marked(reasons, price.certificate_reason)
        if not np.isnan(price.certificate):
            broken = "BROKEN: " if price.certificate_broken else ""
            certificate = f"{broken}{price.certificate_measured:.3f} / {price.certificate:.3f}"
        accuracy = ABSENT if np.isnan(price.accuracy) else f"{price.accuracy:.3f}"
        costs = [accuracy, _lost(price, reasons), _epsilon(price, reasons), certificate]
        costs += [_kibibytes(price), number(price.update_ms, ".3g")]
        lines.append([standing.defense, *gains[standing.defense], *costs])
    costs = ["accuracy", "accuracy lost", "epsilon", "picked / proven", "KiB sent", "ms"]
    return Table("Privacy and its price", ["defense", *columns, *costs], lines)


def what_it_costs(standings: list[Standing], reasons: dict[str, int]) -> Table:
    """Accuracy itself, epsilon by another accountant and against another adversary, and how certificates fared."""
    lines = []
    for standing in standings:
        price = standing.price
        others = [epsilon_text(own) for own in (price.epsilon_rdp, price.epsilon_prv, price.epsilon_central)]
        lines.append([standing.defense, _accuracy(price, reasons), *others, _certificate(price, reasons)])
    columns = ["accuracy", "epsilon by RDP", "by PRV", "central, trusted aggregator", "certificate"]
    return Table("What it costs", ["defense", *columns], lines)


def at_budgets(affordable: list[Affordable], reasons: dict[str, int]) -> list[Table]:
    """One row per family, one column per budget: rank and representative, or why there is none.

    No table where nobody is ranked at any budget for one and the same reason.
    """
    if all(own.unranked and own.strength is None for own in affordable):
        return []
    families: dict[str, list[Affordable]] = {}
    for own in affordable:
        families.setdefault(own.family, []).append(own)
    budgets = list(dict.fromkeys(own.budget for own in affordable))
    lines = [[_family(title, own), *(_place(one, reasons) for one in own)] for title, own in families.items()]
    columns = [f"{budget:g} point{'s' * (budget != 1)}" for budget in budgets]
    return [
        Table("Who leaks least at accuracy budgets: rank, and the strength that has it", ["family", *columns], lines)
    ]


def rank_text(rank: Rank | None) -> str:
    """A rank, in brackets every rank that is left open."""
    if rank is None:
        return ABSENT
    is_open = rank.lowest != rank.highest
    return f"{rank.lowest}" + (f" ({rank.lowest} to {rank.highest})" if is_open else "")


def bound_sign(standing: Standing) -> str:
    """The sign before an SSIM gain: "≥ " if it is a lower bound, else ""."""
    return "≥ " if standing.is_lower_bound else ""


def epsilon_text(epsilon: float) -> str:
    """Three figures, rounded up: an upper bound stays one."""
    if np.isnan(epsilon) or not epsilon:
        return number(epsilon, "g")
    digit = 10.0 ** (floor(log10(epsilon)) - 2)
    rounded = ceil(round(epsilon / digit, 9)) * digit
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def _family(title: str, own: list[Affordable]) -> str:
    parameters = [one.strength.parameter for one in own if one.strength is not None and one.strength.parameter]
    return f"{title}: {parameters[0]}" if parameters else title


def _place(own: Affordable, reasons: dict[str, int]) -> str:
    if own.absence is not None:
        return SHORT_ABSENCES[own.absence]
    if own.strength is None or own.standing is None:
        return ABSENT + marked(reasons, own.unranked)
    rank = rank_text(own.standing.rank) + (marked(reasons, own.unranked) if own.standing.rank is None else "")
    return rank if own.strength.value is None else f"{rank}: {own.strength.value:g}"


def _lost(price: Price, reasons: dict[str, int]) -> str:
    if price.accuracy_lost_reason:
        return ABSENT + marked(reasons, _training(price, price.accuracy_lost_reason))
    return f"{round(price.accuracy_lost, 1) + 0.0:.1f}{_span(price.accuracy_lost_low, price.accuracy_lost_high, 1)}"


def _accuracy(price: Price, reasons: dict[str, int]) -> str:
    if price.accuracy_reason:
        return ABSENT + marked(reasons, _training(price, price.accuracy_reason))
    few = f"accuracy of fewer than {LEAST_SEEDS} seeds: nobody is called affordable by it"
    why = "; ".join(filter(None, (price.conflicts, few if price.accuracy_seeds < LEAST_SEEDS else "")))
    span = _span(price.accuracy_low, price.accuracy_high, 3)
    return f"{price.accuracy:.3f}{span}{', chance' * bool(price.at_chance)}{marked(reasons, why)}"


def _training(price: Price, reason: str) -> str | None:
    return f"training: {reason}" if price.was_trained else None


def _epsilon(price: Price, reasons: dict[str, int]) -> str:
    if not np.isnan(price.epsilon):
        return epsilon_text(price.epsilon)
    return ABSENT + marked(reasons, f"no epsilon: {price.doubt}" if price.doubt else None)


def _certificate(price: Price, reasons: dict[str, int]) -> str:
    if np.isnan(price.certificate):
        return ("broken" if price.certificate_broken else ABSENT) + marked(reasons, price.certificate_reason)
    measured = f"{price.certificate_measured:.2f} of {price.certificate_trials:.0f} trials"
    if price.certificate_broken:
        return f"BROKEN: {measured}, bound {price.certificate:.2f}"
    return f"≤ {price.certificate:.2f} (measured {measured})"


def _kibibytes(price: Price) -> str:
    size = price.bytes_sent / 1024
    return ABSENT if np.isnan(size) else f"{size:.1f}" if size < 100 else f"{size:,.0f}"


def _span(low: float, high: float, digits: int) -> str:
    # Adding 0 makes a zero of what rounds to -0.
    return "" if np.isnan(low) else f" [{round(low, digits) + 0.0:.{digits}f}, {round(high, digits) + 0.0:.{digits}f}]"
