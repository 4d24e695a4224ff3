"""Tables of what a defense costs beside what it leaks: its price, its proofs, and ranks at accuracy budgets."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

import numpy as np

from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.budgets import Absence, Affordable
from leaderboards.ranking.costs import Price
from leaderboards.ranking.standing import Rank, Standing
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.tables.exports import verdict_words
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


def sees_more_images(prices: list[Price]) -> bool:
    """True if anybody's training sees other numbers of images a round than undefended training."""
    return any(price.images_seen != 1 and not np.isnan(price.images_seen) for price in prices)


def attacks_other_releases(prices: list[Price]) -> bool:
    """True if an epsilon of the whole training is of other numbers of releases than are attacked."""
    return any(own.attacked_releases != own.participations and not np.isnan(own.attacked_releases) for own in prices)


def overview(
    standings: list[Standing],
    columns: Sequence[str],
    gains: dict[str, list[str]],
    reasons: dict[str, int],
    rule: RankingRule,
) -> Table:
    """Leakage, accuracy, proofs and traffic of every defense; `gains` are the cells of the leakage's `columns`.

    Accuracy and epsilon are those that the rule compares.
    """
    lines, prices = [], [standing.price for standing in standings]
    images, releases = rule.weighs_equal_images, rule.states_attacked_releases
    for standing in standings:
        price = standing.price
        certificate = ABSENT + marked(reasons, price.certificate_reason)
        if not np.isnan(price.certificate):
            broken = "BROKEN: " if price.certificate_broken else ""
            certificate = f"{broken}{price.certificate_measured:.3f} / {price.certificate:.3f}"
        accuracy = number(price.reached(images), ".3f")
        costs = [accuracy, _lost(price, images, reasons), _epsilon(price, releases, reasons), certificate]
        costs += [_kibibytes(price), number(price.update_ms, ".3g")]
        lines.append([standing.defense, *gains[standing.defense], *costs])
    equal = " at equal images" * (images and sees_more_images(prices))
    epsilon = attacked_heading(prices) if releases and attacks_other_releases(prices) else "epsilon"
    costs = [f"accuracy{equal}", f"accuracy lost{equal}", epsilon, "picked / proven", "KiB sent", "ms"]
    return Table("Privacy and its price", ["defense", *columns, *costs], lines)


def what_it_costs(standings: list[Standing], reasons: dict[str, int]) -> Table:
    """Accuracy itself, epsilon by another accountant and against another adversary, and how certificates fared.

    Where these differ, accuracy at equal images stands beside that at equal rounds, and epsilon of the releases that
    are attacked beside that of the whole training.
    """
    lines, prices = [], [standing.price for standing in standings]
    more_images, other_releases = sees_more_images(prices), attacks_other_releases(prices)
    for standing in standings:
        price = standing.price
        accuracies = [_accuracy(price, reasons)] + [_at_equal_images(price, reasons)] * more_images
        stated = [_epsilon(price, True, reasons), _epsilon(price, False, reasons)] if other_releases else []
        others = [epsilon_text(own) for own in (price.epsilon_rdp, price.epsilon_prv, price.epsilon_central)]
        lines.append([standing.defense, *accuracies, *stated, *others, _certificate(price, reasons)])
    columns = ["accuracy", *["at equal images"] * more_images]
    columns += [attacked_heading(prices), WHOLE_TRAINING] if other_releases else []
    columns += ["epsilon by RDP", "by PRV", "central, trusted aggregator", "certificate"]
    return Table("What it costs", ["defense", *columns], lines)


WHOLE_TRAINING = "epsilon, whole training"


def attacked_heading(prices: list[Price]) -> str:
    """The heading of the epsilon of the releases that a question attacks."""
    (releases,) = {price.attacked_releases for price in prices if not np.isnan(price.attacked_releases)}
    return f"epsilon, {releases_text(releases)} attacked"


def releases_text(releases: float) -> str:
    """A number of releases in words."""
    return f"{releases:.0f} release{'s' * (releases != 1)}"


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
        why = f"no rank at a budget: {', '.join(verdict_words(own.verdicts))}" if own.verdicts else ""
        return SHORT_ABSENCES[own.absence] + marked(reasons, why)
    if own.strength is None or own.standing is None:
        return ABSENT + marked(reasons, own.unranked)
    rank = rank_text(own.standing.rank) + (marked(reasons, own.unranked) if own.standing.rank is None else "")
    return rank if own.strength.value is None else f"{rank}: {own.strength.value:g}"


def _lost(price: Price, equal_images: bool, reasons: dict[str, int]) -> str:
    if reason := price.loss_reason(equal_images):
        return ABSENT + marked(reasons, _training(price, reason))
    lost = price.loss(equal_images)
    return f"{round(lost.mean, 1) + 0.0:.1f}{_span(lost.low, lost.high, 1)}"


def _at_equal_images(price: Price, reasons: dict[str, int]) -> str:
    if np.isnan(price.accuracy_at_equal_images):
        return ABSENT + marked(reasons, _training(price, price.equal_images_reason or ""))
    ends = price.accuracy_at_equal_images_low, price.accuracy_at_equal_images_high
    return f"{price.accuracy_at_equal_images:.3f}{_span(*ends, 3)}"


def _accuracy(price: Price, reasons: dict[str, int]) -> str:
    if price.accuracy_reason:
        return ABSENT + marked(reasons, _training(price, price.accuracy_reason))
    few = f"accuracy of fewer than {LEAST_SEEDS} seeds: nobody is called affordable by it"
    why = "; ".join(filter(None, (price.conflicts, few if price.accuracy_seeds < LEAST_SEEDS else "")))
    span = _span(price.accuracy_low, price.accuracy_high, 3)
    return f"{price.accuracy:.3f}{span}{', chance' * bool(price.at_chance)}{marked(reasons, why)}"


def _training(price: Price, reason: str) -> str | None:
    return f"training: {reason}" if price.was_trained else None


def _epsilon(price: Price, of_attacked_releases: bool, reasons: dict[str, int]) -> str:
    epsilon = price.stated_epsilon(of_attacked_releases)
    if not np.isnan(epsilon):
        return epsilon_text(epsilon)
    why = price.doubt or (price.attacked_releases_reason if of_attacked_releases else None)
    return ABSENT + marked(reasons, f"no epsilon: {why}" if why else None)


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
