"""Who leaks least among those that cost no more than so much accuracy: one strength stands for each defense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bench.columns import QUESTION
from leaderboards.ranking.accuracy import LostAccuracy
from leaderboards.ranking.costs import BROKEN, NOT_MEASURED, Costs
from leaderboards.ranking.evidence import METRICS, Evidence, Question
from leaderboards.ranking.families import families
from leaderboards.ranking.ranking import RANKS, ranking
from leaderboards.ranking.summary import Row, records
from leaderboards.ranking.verdicts import Rule, missing, problems

BUDGETS = (1.0, 3.0, 5.0, 10.0)
"""Percentage points of test accuracy that a defense may cost."""
SELECTION = 0.2
"""The part of the images on which strengths are chosen; they are not scored."""


FIGURES = ["ssim_gain", "ssim_gain_low", "ssim_gain_high", "rank", "rank_low", "rank_high", "n"]
TOO_COSTLY, FEW_SEEDS = "too costly", "accuracy of fewer than 3 seeds"


def ranking_at_budgets(
    questions: Sequence[Question], rule: Rule, costs: Costs, budgets: tuple[float, ...] = BUDGETS
) -> pd.DataFrame:
    """One row per question, budget and family of strengths.

    A family is represented by its least leaking strength whose upper limit of lost accuracy is within the budget,
    chosen on images and, of several, seeds that are not scored (`split`); `strength` is its parameter, and gain and
    ranks, as in `ranking`, are those of the scored. Without a representative `defense` is null and `why` says "too
    costly", "accuracy not measured", "accuracy of fewer than 3 seeds", "incomplete" (of any strength within the budget:
    what failed might have stood for the family), "broken certificate" (of any strength: all run the same code) or why
    nobody is ranked. An update of zeros or noise loses more than any budget or has an accuracy of chance, and is ranked
    at none.
    """
    rows: list[Row] = []
    for whole in questions:
        about = {name: whole.row[name] for name in QUESTION}
        reasons = problems(whole, rule, costs)
        try:
            chosen_on, scored = split(whole)
        except ValueError as error:
            reasons.append(str(error))
        if reasons:
            named = [{"family": title, "why": "; ".join(reasons)} for title, _ in _families(whole.defenses)]
            rows += [about | {"budget": budget} | row for budget in budgets for row in named]
            continue
        leaks = {
            e.row["defense"]: np.nan
            if missing(whole, e, rule) or costs.untested(e.row)
            else float(own.gain(METRICS[0]).mean())
            for e, own in zip(whole.defenses, chosen_on.defenses, strict=True)
        }
        lost = {label: _cost(whole, label, costs) for label in leaks}
        broken = {e.row["defense"] for e in whole.defenses if costs.broken(e.row)}
        # The number of images has been judged for all of them.
        alike = replace(rule, minimum_images=1)
        known: dict[tuple[str, ...], dict[str, Row]] = {}
        for budget in budgets:
            found = [_represented(family, leaks, lost, broken, budget) for family in _families(whole.defenses)]
            names = ("none", *(row["defense"] for row in found if row["defense"]))
            if names not in known:
                known[names] = {row["defense"]: row for row in records(ranking([scored.among(names)], alike, Costs()))}
            rows += [about | {"budget": budget} | row | _standing(known[names].get(row["defense"])) for row in found]
    texts, numbers = ["defense", "strength", "why"], ["rank", "rank_low", "rank_high", "n"]
    found = pd.DataFrame(rows, columns=[*QUESTION, "budget", "family", *texts, *FIGURES])
    # Columns of text without a value for some rows would turn null into a number.
    words = {name: found[name].astype(object).where(found[name].notna(), None) for name in texts}
    return found.astype(dict.fromkeys(numbers, "Int64")).assign(**words)


def with_budgets(rows: pd.DataFrame, affordable: pd.DataFrame, budgets: tuple[float, ...] = BUDGETS) -> pd.DataFrame:
    """The rows of a `ranking`, each with its ranks at budgets: `rank_at_3`, and lowest and highest, at 3 points.

    They are null for a defense that another strength stands for, or that no budget affords.
    """
    for budget in budgets:
        own = affordable.loc[affordable["budget"] == budget, [*QUESTION, "defense", *RANKS]]
        renamed = own.rename(columns={name: name.replace("rank", f"rank_at_{budget:g}") for name in RANKS})
        rows = rows.merge(renamed[renamed["defense"].notna()], how="left", on=[*QUESTION, "defense"])
    return rows


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


def _families(defenses: tuple[Evidence, ...]) -> list[tuple[str, dict[str, str]]]:
    """Title of every family, and its defenses with their strengths in words; who has but one is a family alone."""
    several, single = families([evidence.row for evidence in defenses])
    titled = [
        (f.title, {own[0]["defense"]: f"{f.parameter}={strength:g}" for strength, own in f.strengths.items()})
        for f in several
    ]
    undefended = [e.row["defense"] for e in defenses if e.row["defense_name"] == "none"]
    return [*((label, {label: ""}) for label in undefended), *titled, *((label, {label: ""}) for label in single)]


def _cost(question: Question, defense: str, costs: Costs) -> LostAccuracy | None:
    undefended = question.undefended
    if undefended is not None and defense == undefended.row["defense"]:
        return LostAccuracy(0.0, 0.0)
    return costs.lost(question.row["dataset"], question.row["model"], defense)


def _represented(
    family: tuple[str, dict[str, str]],
    leaks: Mapping[str, float],
    lost: Mapping[str, LostAccuracy | None],
    broken: set[str],
    budget: float,
) -> Row:
    title, strengths = family
    if broken.intersection(strengths):
        return {"family": title, "defense": None, "why": BROKEN}
    measured = {label: cost for label in strengths if (cost := lost[label]) is not None}
    # 86.0% less 85.0% is a little more than one point in binary.
    within = [label for label, cost in measured.items() if cost.high <= budget + 1e-9 and not cost.at_chance]
    if within and not any(np.isnan(leaks[label]) for label in within):
        # Of those that leak alike, as little as nothing, the one that costs least.
        chosen = min(within, key=lambda label: (leaks[label], measured[label].mean))
        return {"family": title, "defense": chosen, "strength": strengths[chosen]}
    return {"family": title, "defense": None, "why": "incomplete" if within else _unaffordable(measured)}


def _unaffordable(measured: Mapping[str, LostAccuracy]) -> str:
    """Why no strength of a family is known to be within a budget."""
    if not measured:
        return NOT_MEASURED
    few = any(np.isnan(cost.high) and not cost.at_chance for cost in measured.values())
    return FEW_SEEDS if few else TOO_COSTLY


def _standing(row: Row | None) -> Row:
    """What the ranking says of a representative; nothing without one."""
    return {} if row is None else {"why": row["unranked"], **{name: row[name] for name in FIGURES}}
