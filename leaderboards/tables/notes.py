"""Notes of a table: its extent, its threat model, missing scores, and how cost and proof are to be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd

from attacks.threat import Switch, switches
from leaderboards.ranking.accuracy import LEAST_SEEDS
from leaderboards.ranking.budgets import Absence, Affordable
from leaderboards.ranking.costs import Price
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.summary import Row, scored, status_text
from leaderboards.tables.exports import verdict_words

ABSENCES = {
    Absence.TOO_COSTLY: "too costly",
    Absence.FEW_SEEDS: f"accuracy of fewer than {LEAST_SEEDS} seeds",
    Absence.NOT_MEASURED: "accuracy not measured",
    Absence.INCOMPLETE: "incomplete",
    Absence.NO_RANK: "no rank",
    Absence.BROKEN_CERTIFICATE: "broken certificate",
}
NO_RANK = (
    " No rank: a verdict, which a footnote names, takes the rank of every strength within the budget, or of the chosen "
    "one on the scored images."
)
"""The sentence about `Absence.NO_RANK`, behind that about what is too costly."""


class Footnotes:
    """Numbers the distinct reasons why cells have no score."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}

    def mark(self, row: Row) -> str:
        """The text of the failed cell, with its number where there is a reason."""
        if not row["reason"]:
            return status_text(row)
        number = self._numbers.setdefault((row["status"], row["reason"]), len(self._numbers) + 1)
        return f"{status_text(row)} [{number}]"

    def lines(self) -> list[str]:
        """One line per reason; what is longer than a few lines of a terminal is cut."""
        return [
            f"[{number}] {status}: {shorten(reason, 300, placeholder=' ...')}"
            for (status, reason), number in self._numbers.items()
        ]


def marked(reasons: dict[str, int], why: str | None) -> str:
    """The mark behind a figure that is limited by `why`: its number among the reasons; "" without one."""
    return f" [{reasons.setdefault(why, len(reasons) + 1)}]" if why else ""


def extent(rows: list[Row]) -> str:
    """The numbers of images and seeds behind the figures of a setting, in words."""
    counts = sorted({row["n"] for row in rows if row["n"]}) or [0]
    images = f"{counts[0]} image{'s' * (counts[0] != 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"
    seeds = max(row["seeds"] for row in rows)
    return f"{images}, {seeds} seed{'s' * (seeds != 1)}"


def threat(rows: list[Row]) -> str:
    """The server's knowledge, and the SoK's class (USENIX Security 2025) of each defense's protocol."""
    first = rows[0]
    classes: dict[str, list[str]] = {}
    for row in rows:
        classes.setdefault(row["threat_class"], []).append(row["defense_name"])
    usual = max(classes, key=lambda letter: len(classes[letter]))
    others = [f"{c} under {', '.join(dict.fromkeys(names))}" for c, names in classes.items() if c != usual]
    # What was added later is worth a word only where it is not as it always was.
    facts = [s for s in switches() if s.subject and not (s.since and first[s.name] == s.default)]
    told = ", ".join([f"labels {first['labels']}", *(known_text(fact, first[fact.name]) for fact in facts)])
    return f"{told}{secrets_text(first)}; class {', '.join([usual, *others])}"


def known_text(switch: Switch, value: object) -> str:
    """The server's knowledge of one thing, in words."""
    if switch.subject:
        return f"{switch.subject} {'known' if value else 'not known'}"
    if switch.within is not None:
        return f"{value} {switch.name}"
    return f"{switch.name.replace('_', ' ')} {value}"


def secrets_text(row: Mapping[str, Any]) -> str:
    """Words about the secrets beside the labels, where they are not as usual, behind those about other knowledge."""
    # The running statistics are buffers of the model, which every server has: not worth a word.
    norm = {"batch": ", batch statistics known", "unknown": ", batch norm's statistics not used"}
    later = (s for s in switches() if not s.subject and s.since > 1 and row[s.name] != s.default)
    return norm.get(row["batch_norm"], "") + "".join(f", {known_text(switch, row[switch.name])}" for switch in later)


def explanations(rows: list[Row]) -> list[str]:
    """The notes of a setting's tables, for their readers."""
    several = any(row["images_per_update"] > 1 for row in rows)
    units = "images, or over client batches where an update holds several images" if several else "images"
    chances = sorted({row["identification_chance"] for row in rows if not np.isnan(row["identification_chance"])})
    notes = [f"±: standard deviation over images. Intervals: 95% bootstrap of the mean over {units}, from 5 on."]
    if any(row["control"] for row in rows):
        notes.append("Floor: a control that uses no gradient; what it reaches does not come from the update.")
    if chances:
        guessing = " or ".join(f"{chance:.1%}" for chance in chances)
        notes.append(f"Identified @n: the private image is the nearest of n to its reconstruction; chance {guessing}.")
    if any(scored(row) and not np.isnan(row["identified_by_likelihood_mean"]) for row in rows):
        notes.append(
            "By likelihood: of the same n the private image explains the release best, whatever the attack found; "
            "labels rule nobody out."
        )
    if any(scored(row) and not row["control"] and row["underpowered_mean"] > 0 for row in rows):
        notes.append(
            "Underpowered: reconstructions whose objective is worse than at the private image; a better optimiser "
            "might get more, so they bound the leakage from below."
        )
    if rows[0]["defense_known"]:
        notes.append("Attacks that match gradients adapt to the defense (defense_known = true); the others do not.")
    else:
        notes.append(
            "The attacks do not adapt to the defense (defense_known = false): low figures prove no protection."
        )
    if not all(row["audited"] for row in rows):
        notes.append("Unaudited: no attack adapts to this defense; nobody has said how, or its schedule is not known.")
    if any(scored(row) and not row["control"] and np.isnan(row["ssim_mean"]) for row in rows):
        notes.append("-: not measured (SSIM needs images of 11 pixels a side) or not part of the grid.")
    return notes


def question_notes(standings: list[Standing], affordable: list[Affordable], rule: RankingRule) -> list[str]:
    """The notes of one question: its standings, and its families at accuracy budgets."""
    prices = [standing.price for standing in standings]
    trained = [price for price in prices if not price.accuracy_reason]
    notes = [*_accuracy(trained, rule), *_budgets(standings, affordable)] if trained else [_not_measured(prices)]
    proven = [price for price in prices if not np.isnan(price.epsilon)]
    if proven:
        notes += _epsilon(proven)
    if trained and len(proven) < len(prices):
        notes.append("-: a heuristic, of which nothing is proven, has no epsilon; nor has what was not measured.")
    certified = [price for price in prices if not np.isnan(price.certificate)]
    if certified:
        candidates = sorted({price.certificate_candidates for price in certified})
        notes.append(
            f"Picked / proven: told that the private image is one of {_range(candidates)}, no attack whatever can name "
            f"it more often than is proven (chance {1 / candidates[-1]:.3g}); picked: how often one did that is told "
            "so. Luck alone may carry it a little over a bound that holds; what it cannot explain is a broken "
            "certificate, which says that noise or clipping are not what they claim: no epsilon, no rank."
        )
    return notes


def _not_measured(prices: list[Price]) -> str:
    if not any(price.was_trained for price in prices):
        return "What a defense costs in accuracy was not measured, and no rank weighs it."
    return "What a defense costs in accuracy is not known: no training finished."


def _accuracy(prices: list[Price], rule: RankingRule) -> list[str]:
    """The notes about the measurement of accuracy."""
    values = lambda name: [getattr(price, name) for price in prices]  # noqa: E731
    optimizers = " or ".join(dict.fromkeys(price.optimizer for price in prices if price.optimizer))
    rates = _range(values("learning_rate"))
    by = f", optimizer {optimizers}" + (f" (learning rate {rates})" if rates else "") if optimizers else ""
    return [
        f"Accuracy: share of {_range(values('test_images'))} test images that a model gets right after "
        f"{_range(values('rounds'))} rounds of {_range(values('clients'))} of {_range(values('population'))} clients, "
        f"all with the defense{by}; mean and 95% Student-t interval over {_range(values('accuracy_seeds'))} seeds. It "
        "starts untrained, whatever weights were attacked.",
        "Accuracy lost: percentage points against the undefended client, seed by seed.",
        *_equal_images(prices, rule),
        "KiB sent: mean of an update in float32, deflated; ms: the shortest time of making one.",
    ]


def _equal_images(prices: list[Price], rule: RankingRule) -> list[str]:
    """The note about trainings whose rounds see other numbers of images than undefended ones."""
    seen = [price.images_seen for price in prices if price.images_seen != 1 and not np.isnan(price.images_seen)]
    if not seen:
        return []
    judged = "this is the loss that budgets weigh" if rule.weighs_equal_images else "budgets weigh it at equal rounds"
    return [
        f"At equal images: updates here have up to {max(seen):g} times the images of undefended ones, and learn more "
        "in a round; this is the accuracy of the same training when it has seen as many images as undefended training "
        f"sees in all ({judged}). Local epochs over the same images add none."
    ]


def _budgets(standings: list[Standing], affordable: list[Affordable]) -> list[str]:
    notes = ["Ranks by leakage alone weigh no cost: an update of zeros leaks nothing and trains nothing."]
    if any(own.strength is not None for own in affordable):
        return [
            *notes,
            "Accuracy budgets: the strength that leaks least among those whose upper 95% limit of accuracy lost is "
            "within the budget, chosen on images and, of several, seeds that are not scored, stands for its family. "
            "Too costly: no strength is within it, or has an accuracy above chance."
            + NO_RANK
            * any(own.absence is Absence.NO_RANK for own in affordable),
        ]
    whys = {_why(own) for own in affordable} - {standings[0].unranked}
    return [*notes, f"No ranks at accuracy budgets: {whys.pop()}."] if len(whys) == 1 else notes


def _why(own: Affordable) -> str:
    """The reason for which no strength stands for a family, in words."""
    if own.absence is None:
        return own.unranked
    return ", ".join([ABSENCES[own.absence], *verdict_words(own.verdicts)])


def _epsilon(prices: list[Price]) -> list[str]:
    """The notes about epsilon."""
    values = lambda name: [getattr(price, name) for price in prices]  # noqa: E731
    each = lambda name: " or ".join(dict.fromkeys(own for own in values(name) if own))  # noqa: E731
    notes = [
        f"Epsilon: differential privacy of one {each('unit')} ({each('relation')}) at delta {_range(values('delta'))}, "
        f"against the server that gets the client's updates, over {_range(values('rounds'))} rounds, in "
        f"{_range(values('participations'))} of which the client takes part; accountant: {each('accountant')}. The "
        "server knows who takes part, so that nothing is amplified by sampling (q = 1). An upper bound, as RDP's and "
        "PRV's are, and rounded up."
    ]
    attacked, counted = values("attacked_releases"), values("participations")
    if any(mine != its for mine, its in zip(attacked, counted, strict=True)):
        times = f"{_range(attacked)} release{'s' * (_range(attacked) != '1')}"
        notes.append(
            f"Epsilon, {times} attacked: the leakage of this question is that of {times} of a client, and this epsilon "
            f"is of as many; epsilon of the whole training counts {_range(counted)}."
        )
    if not all(np.isnan(price.epsilon_central) for price in prices):
        notes.append(
            "Central, trusted aggregator: epsilon against another adversary, who sees only the mean of a round's "
            "updates, all of honest clients; it says nothing of the server that is attacked here."
        )
    return notes


def _range(values: Iterable[float]) -> str:
    """One number, or the smallest to the largest."""
    known = sorted({float(value) for value in values if not pd.isna(value)})
    if not known:
        return ""
    ends = [f"{value:,.0f}" if value == int(value) else f"{value:g}" for value in (known[0], known[-1])]
    return ends[0] if len(known) == 1 else f"{ends[0]} to {ends[1]}"
