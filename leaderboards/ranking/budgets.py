"""Rankings of the defenses that cost no more than a budget of accuracy: one strength stands for each family."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.ranking.accuracy import LostAccuracy
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.families import families
from leaderboards.ranking.ranking import problems, ranking, rule_set_of
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict, missing, sound

BUDGETS = (1.0, 3.0, 5.0, 10.0)
"""Percentage points of test accuracy that a defense may cost."""
SELECTION = 0.2
"""The part of the images on which strengths are chosen; they are not scored."""


class Absence(Enum):
    """A reason for which no strength of a family stands for it at a budget."""

    TOO_COSTLY = auto()
    """No strength is within the budget, or has an accuracy above chance."""
    FEW_SEEDS = auto()
    """Too few seeds for any accuracy to be called affordable."""
    NOT_MEASURED = auto()
    """No accuracy was measured."""
    INCOMPLETE = auto()
    """A strength within the budget has no whole evidence: it might have stood for the family."""
    NO_RANK = auto()
    """No strength within the budget holds a rank on all images, or the chosen one none on the scored: a verdict says
    why."""
    BROKEN_CERTIFICATE = auto()
    """The certificate of a strength is broken: all run the same code."""


@dataclass(frozen=True)
class FamilyStrength:
    """A defense as one of a family."""

    defense: str
    """The defense's label."""
    parameter: str = ""
    """The parameter by which the family's defenses differ."""
    value: float | None = None
    """None of a defense that is a family alone."""


@dataclass(frozen=True)
class Affordable:
    """A family at a budget, with the strength that stands for it, or the reason for which none does."""

    question: Question
    budget: float
    """Percentage points of test accuracy."""
    family: str
    """The family's title."""
    strength: FamilyStrength | None
    """The strength that stands for the family; None where there is an `absence`."""
    standing: Standing | None
    """The standing of that strength among those of the other families."""
    absence: Absence | None
    unranked: str
    """The reason for which nobody is ranked on this question; "" where somebody is."""
    verdicts: frozenset[Verdict] = frozenset()
    """The verdicts that withhold the rank where the absence is `NO_RANK`; empty elsewhere."""


def ranking_at_budgets(
    questions: Sequence[Question], rule: RankingRule, costs: RunCosts, budgets: tuple[float, ...] = BUDGETS
) -> list[Affordable]:
    """Every family of strengths at every budget, question by question.

    A family is represented by its least leaking strength whose upper limit of lost accuracy is within the budget,
    chosen on images and, of several, seeds that are not scored (`split`); gain and rank of its standing are those of
    the scored. A strength whose verdicts take its rank stands for nobody: its gain is unknown. An update of zeros or
    noise loses more than any budget or has an accuracy of chance, and is ranked at none.
    """
    found: list[Affordable] = []
    rules = rule_set_of(rule)
    for whole in questions:
        reasons = problems(whole, rule, costs)
        try:
            chosen_on, scored = split(whole)
        except ValueError as error:
            reasons.append(str(error))
        if reasons:
            unranked = "; ".join(reasons)
            found += [
                Affordable(whole, budget, title, None, None, None, unranked)
                for budget in budgets
                for title, _ in _families(whole.defenses)
            ]
            continue
        leaks = {
            e.row["defense"]: np.nan
            if missing(whole, e, rule) or costs.untested(e.row)
            else rules.leakage(sound(chosen_on, own)).gain.mean
            for e, own in zip(whole.defenses, chosen_on.defenses, strict=True)
        }
        lost = {label: _cost(whole, label, costs, rule) for label in leaks}
        broken = {e.row["defense"] for e in whole.defenses if costs.broken(e.row)}
        barred = {
            e.row["defense"]: limits
            for e in whole.defenses
            if (limits := rules.verdicts(whole, e, rule, costs.of(e.row)) & rules.unranked)
        }
        # The numbers of images and seeds have been judged for all of them.
        alike = replace(rule, minimum_images=1, minimum_seeds=1)
        known: dict[tuple[str, ...], dict[str, Standing]] = {}
        for budget in budgets:
            chosen = [
                (title, _chosen(own, leaks, lost, broken, barred, budget), _withheld(own, lost, barred, budget))
                for title, own in _families(whole.defenses)
            ]
            names = ("none", *(own.defense for _, own, _ in chosen if isinstance(own, FamilyStrength)))
            if names not in known:
                ranked = ranking([scored.among(names)], alike, costs)
                known[names] = {standing.defense: standing for standing in ranked}
            for title, own, withheld in chosen:
                if isinstance(own, Absence):
                    verdicts = withheld if own is Absence.NO_RANK else frozenset[Verdict]()
                    found.append(Affordable(whole, budget, title, None, None, own, "", verdicts))
                    continue
                standing = known[names][own.defense]
                # No other strength takes its place: it would have been chosen on the images that are scored.
                if limits := standing.verdicts & rules.unranked:
                    found.append(Affordable(whole, budget, title, None, None, Absence.NO_RANK, "", limits))
                else:
                    found.append(Affordable(whole, budget, title, own, standing, None, standing.unranked))
    return found


def split(question: Question, share: float = SELECTION) -> tuple[Question, Question]:
    """The question to choose strengths on, and the one to score: of other images and, of several, other seeds.

    To choose on are the first images, at least `share` of them, under the first seed; rows without images are in both.
    No client's batch is cut, of any defense and seed. Raises ValueError where that cannot be.
    """
    first, last = _batches(question)
    records = [record for evidence in question.defenses for record in evidence.records]
    numbers = np.unique(np.concatenate([record.images[~np.isnan(record.images)] for record in records]))
    several = len(question.seeds) > 1
    is_first = lambda record: (record.seeds == question.seeds[0]) | (not several)  # noqa: E731
    is_other = lambda record: (record.seeds != question.seeds[0]) | (not several)  # noqa: E731
    for cut in numbers[max(1, int(np.ceil(share * len(numbers)))) :]:
        if not ((first < cut) & (last >= cut)).any():
            # A comparison with NaN is false: what has no image is on both sides.
            return (
                question.part(lambda record, cut=cut: is_first(record) & ~(record.images >= cut)),
                question.part(lambda record, cut=cut: is_other(record) & ~(record.images < cut)),
            )
    raise ValueError(
        f"{len(numbers)} images cannot be divided into some to choose strengths on and some to score: every cut "
        "divides a client's batch; attack more images"
    )


def _batches(question: Question) -> tuple[np.ndarray, np.ndarray]:
    """The number of the first and of the last image of every client's batch, of all defenses and seeds."""
    firsts, lasts = [], []
    for evidence in question.defenses:
        joined = [np.stack([r.images, r.seeds, r.trials]) for r in evidence.records]
        images, *clients = (own := np.concatenate(joined, axis=1))[:, ~np.isnan(own[0])]
        named, batch = np.unique(np.stack(clients), axis=1, return_inverse=True)
        first, last = np.full(named.shape[1], np.inf), np.full(named.shape[1], -np.inf)
        np.minimum.at(first, batch.ravel(), images)
        np.maximum.at(last, batch.ravel(), images)
        firsts.append(first)
        lasts.append(last)
    return np.concatenate(firsts), np.concatenate(lasts)


def _families(defenses: tuple[Evidence, ...]) -> list[tuple[str, list[FamilyStrength]]]:
    """Title of every family, and its strengths; who has but one is a family alone."""
    several, single = families([evidence.row for evidence in defenses])
    titled = [
        (f.title, [FamilyStrength(own[0]["defense"], f.parameter, value) for value, own in f.strengths.items()])
        for f in several
    ]
    undefended = [e.row["defense"] for e in defenses if e.row["defense_name"] == "none"]
    return [
        *((label, [FamilyStrength(label)]) for label in undefended),
        *titled,
        *((label, [FamilyStrength(label)]) for label in single),
    ]


def _cost(question: Question, defense: str, costs: RunCosts, rule: RankingRule) -> LostAccuracy | None:
    undefended = question.undefended
    if undefended is not None and defense == undefended.row["defense"]:
        return LostAccuracy(0.0, 0.0)
    return costs.lost(question.row["dataset"], question.row["model"], defense, rule.weighs_equal_images)


def _chosen(
    strengths: Sequence[FamilyStrength],
    leaks: Mapping[str, float],
    lost: Mapping[str, LostAccuracy | None],
    broken: set[str],
    barred: Collection[str],
    budget: float,
) -> FamilyStrength | Absence:
    """The strength that stands for its family, or why there is none."""
    if any(own.defense in broken for own in strengths):
        return Absence.BROKEN_CERTIFICATE
    measured = {own: cost for own in strengths if (cost := lost[own.defense]) is not None}
    within = _within(strengths, lost, budget)
    if not within:
        return _unaffordable(measured.values())
    if any(np.isnan(leaks[own.defense]) for own in within):
        return Absence.INCOMPLETE
    able = [own for own in within if own.defense not in barred]
    # Of those that leak alike, as little as nothing, the one that costs least.
    return min(able, key=lambda own: (leaks[own.defense], measured[own].mean), default=Absence.NO_RANK)


def _within(
    strengths: Sequence[FamilyStrength], lost: Mapping[str, LostAccuracy | None], budget: float
) -> list[FamilyStrength]:
    """The strengths that are known to cost no more than the budget, and to have an accuracy above chance."""
    costs = {own: cost for own in strengths if (cost := lost[own.defense]) is not None}
    # 86.0% less 85.0% is a little more than one point in binary.
    return [own for own, cost in costs.items() if cost.high <= budget + 1e-9 and not cost.at_chance]


def _withheld(
    strengths: Sequence[FamilyStrength],
    lost: Mapping[str, LostAccuracy | None],
    barred: Mapping[str, frozenset[Verdict]],
    budget: float,
) -> frozenset[Verdict]:
    """The verdicts that take the ranks of the strengths within the budget."""
    return frozenset(verdict for own in _within(strengths, lost, budget) for verdict in barred.get(own.defense, ()))


def _unaffordable(measured: Collection[LostAccuracy]) -> Absence:
    """The reason for which no strength of a family is known to be within a budget."""
    if not measured:
        return Absence.NOT_MEASURED
    few = any(np.isnan(cost.high) and not cost.at_chance for cost in measured)
    return Absence.FEW_SEEDS if few else Absence.TOO_COSTLY
