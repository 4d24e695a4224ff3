"""Who leaks least among those that cost no more than so much accuracy: one strength stands for each defense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from leaderboards.evidence import METRICS, QUESTION, Evidence, Question
from leaderboards.families import families
from leaderboards.questions import questions
from leaderboards.ranking import ranking
from leaderboards.summary import Row, records
from leaderboards.verdicts import Rule, missing, problems

BUDGETS = (1.0, 3.0, 5.0, 10.0)
"""Percentage points of test accuracy that a defense may cost."""
SELECTION = 0.2
"""The part of the images on which strengths are chosen; they are not scored."""


FIGURES = ["ssim_gain", "ssim_gain_low", "ssim_gain_high", "rank", "rank_low", "rank_high", "n"]
Trained = tuple[str, str, str, str]
"""Dataset, model, weights and defense: what a test accuracy belongs to."""


@dataclass(frozen=True)
class LostAccuracy:
    """Test accuracy lost against the undefended client, in percentage points: the mean and its upper 95% limit.

    `at_chance` says that the interval of the accuracy itself reaches that of guessing: such a defense trains nothing.
    """

    mean: float
    high: float
    at_chance: bool = False


def ranking_at_budgets(
    frame: pd.DataFrame,
    lost: Mapping[Trained, LostAccuracy],
    rule: Rule | None = None,
    budgets: tuple[float, ...] = BUDGETS,
) -> pd.DataFrame:
    """One row per question, budget and family of strengths; `frame` as in `bench.store`.

    A family is represented by its least leaking strength whose upper limit of lost accuracy is within the budget,
    chosen on images and, of several, seeds that are not scored (`split`); gain and ranks, as in `ranking`, are those of
    the scored. Without a representative `defense` is null and `why` says "too costly", "accuracy not measured",
    "incomplete" (of any strength within the budget: what failed might have stood for the family) or why nobody is
    ranked. An update of zeros or noise loses more than any budget or has an accuracy of chance, and is ranked at none.
    """
    rule, rows = rule or Rule(), []
    for _, own in frame.groupby(QUESTION, sort=False, dropna=False):
        (whole,) = questions(pd.DataFrame(own))
        about = {name: whole.row[name] for name in QUESTION}
        reasons = problems(whole, rule)
        try:
            chosen_on, scored = split(pd.DataFrame(own))
        except ValueError as error:
            reasons.append(str(error))
        if reasons:
            named = [{"family": title, "why": "; ".join(reasons)} for title, _ in _families(whole.defenses)]
            rows += [about | {"budget": budget} | row for budget in budgets for row in named]
            continue
        (question,) = questions(chosen_on)
        leaks = {
            e.row["defense"]: np.nan if missing(whole, e, rule) else float(own.gain(METRICS[0]).mean())
            for e, own in zip(whole.defenses, question.defenses, strict=True)
        }
        costs = {label: _cost(whole, label, lost) for label in leaks}
        # The number of images has been judged for all of them.
        alike = replace(rule, minimum_images=1)
        for budget in budgets:
            found = [_represented(family, leaks, costs, budget) for family in _families(whole.defenses)]
            names = ["none", *(row["defense"] for row in found if row["defense"])]
            ranked = {row["defense"]: row for row in records(ranking(_of(scored, names), alike))}
            rows += [about | {"budget": budget} | row | _standing(ranked.get(row["defense"])) for row in found]
    frame = pd.DataFrame(rows, columns=[*QUESTION, "budget", "family", "defense", "why", *FIGURES])
    return frame.astype({"rank": "Int64", "rank_low": "Int64", "rank_high": "Int64", "n": "Int64"})


def split(frame: pd.DataFrame, share: float = SELECTION) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to choose strengths on, and those to score: of other images and, of several, other seeds.

    To choose on are the first images, at least `share` of them, under the first seed; rows without images are in both.
    No client's batch is cut, of any defense and seed. Raises ValueError where that cannot be.
    """
    images, seeds = frame["image"].astype("float64"), frame["seed"]
    done = frame.loc[images.notna()]
    batches = done.groupby(["defense", "seed", "trial"])["image"]
    first, last = batches.min().to_numpy(dtype=float), batches.max().to_numpy(dtype=float)
    numbers = np.unique(images.dropna())
    several = bool(np.unique(seeds).size > 1)
    is_first = (seeds == seeds.min()) if several else pd.Series(True, frame.index)
    is_other = ~is_first if several else is_first
    for cut in numbers[max(1, int(np.ceil(share * len(numbers)))) :]:
        if not ((first < cut) & (last >= cut)).any():
            chosen_on, scored = is_first & ~(images >= cut), is_other & ~(images < cut)
            return pd.DataFrame(frame.loc[chosen_on]), pd.DataFrame(frame.loc[scored])
    raise ValueError(
        f"{len(numbers)} images cannot be divided into some to choose strengths on and some to score: every cut "
        "divides a client's batch; attack more images"
    )


def _families(defenses: tuple[Evidence, ...]) -> list[tuple[str, list[str]]]:
    """Title and defenses of every family; a defense of one strength is a family of its own."""
    several, single = families([evidence.row for evidence in defenses])
    titled = [(f.title, [own[0]["defense"] for own in f.strengths.values()]) for f in several]
    undefended = [(e.row["defense"], [e.row["defense"]]) for e in defenses if e.row["defense_name"] == "none"]
    return [*undefended, *titled, *((label, [label]) for label in single)]


def _cost(question: Question, defense: str, lost: Mapping[Trained, LostAccuracy]) -> LostAccuracy | None:
    undefended = question.undefended
    if undefended is not None and defense == undefended.row["defense"]:
        return LostAccuracy(0.0, 0.0)
    return lost.get((question.row["dataset"], question.row["model"], question.row["weights"], defense))


def _represented(
    family: tuple[str, list[str]], leaks: Mapping[str, float], costs: Mapping[str, LostAccuracy | None], budget: float
) -> Row:
    title, strengths = family
    measured = {label: cost for label in strengths if (cost := costs[label]) is not None}
    within = [label for label, cost in measured.items() if cost.high <= budget and not cost.at_chance]
    if within and not any(np.isnan(leaks[label]) for label in within):
        return {"family": title, "defense": min(within, key=leaks.__getitem__)}
    why = "incomplete" if within else "too costly" if measured else "accuracy not measured"
    return {"family": title, "defense": None, "why": why}


def _of(frame: pd.DataFrame, defenses: list[str]) -> pd.DataFrame:
    return pd.DataFrame(frame.loc[frame["defense"].isin(defenses)])


def _standing(row: Row | None) -> Row:
    """What the ranking says of a representative; nothing without one."""
    return {} if row is None else {"why": row["unranked"], **{name: row[name] for name in FIGURES}}
