"""Who leaks least among those that cost no more than so much accuracy: one strength stands for each defense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboards.evidence import METRICS, QUESTION, Evidence, questions
from leaderboards.families import families
from leaderboards.ranking import ranking
from leaderboards.summary import Row, records
from leaderboards.verdicts import Rule, missing

BUDGETS = (1.0, 3.0, 5.0, 10.0)
"""Percentage points of test accuracy that a defense may cost."""
SELECTION = 0.2
"""The part of the images on which strengths are chosen; they are not scored."""


@dataclass(frozen=True)
class LostAccuracy:
    """Test accuracy lost against the undefended client, in percentage points: the mean and its upper 95% limit."""

    mean: float
    high: float


def ranking_at_budgets(
    frame: pd.DataFrame,
    lost: Mapping[str, LostAccuracy],
    rule: Rule | None = None,
    budgets: tuple[float, ...] = BUDGETS,
) -> pd.DataFrame:
    """One row per question, budget and family of strengths; `frame` as in `bench.store`, `lost` by defense.

    A family is represented by its least leaking strength whose upper limit of lost accuracy is within the budget,
    chosen on the first images alone (`split`); gain and ranks, as in `ranking`, are those of the other images. Without
    a representative `defense` is null and `why` says "too costly", "accuracy not measured" or "incomplete". An update
    of zeros or noise loses more than any budget, and is ranked at none.
    """
    rule, rows = rule or Rule(), []
    for _, own in frame.groupby(QUESTION, sort=False, dropna=False):
        chosen_on, scored = split(own)
        (question,), (whole,) = questions(chosen_on), questions(own)
        complete = {e.row["defense"] for e in whole.defenses if not missing(whole, e, rule)}
        leaks = {e.row["defense"]: _mean_gain(e) for e in question.defenses if e.row["defense"] in complete}
        for budget in budgets:
            found = [_represented(family, leaks, lost, budget) for family in _families(question.defenses)]
            names = ["none", *(row["defense"] for row in found if row["defense"])]
            ranked = {row["defense"]: row for row in records(ranking(_of(scored, names), rule))}
            about = {name: question.row[name] for name in QUESTION} | {"budget": budget}
            rows += [about | row | _standing(ranked.get(row["defense"])) for row in found]
    return pd.DataFrame(rows).astype({"rank": "Int64", "rank_low": "Int64", "rank_high": "Int64"})


def split(frame: pd.DataFrame, share: float = SELECTION) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the first images, at least `share` of them, and of the others; those without images are in both.

    No client's batch is cut, of any defense and seed. Raises ValueError where that cannot be.
    """
    images = frame["image"].astype("float64")
    done = frame.loc[images.notna()]
    batches = done.groupby(["defense", "seed", "trial"])["image"]
    first, last = batches.min().to_numpy(dtype=float), batches.max().to_numpy(dtype=float)
    numbers = np.unique(images.dropna())
    for cut in numbers[max(1, int(np.ceil(share * len(numbers)))) :]:
        if not ((first < cut) & (last >= cut)).any():
            return pd.DataFrame(frame.loc[~(images >= cut)]), pd.DataFrame(frame.loc[~(images < cut)])
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


def _represented(
    family: tuple[str, list[str]], leaks: Mapping[str, float], lost: Mapping[str, LostAccuracy], budget: float
) -> Row:
    title, strengths = family
    free = {"none": LostAccuracy(0.0, 0.0)}
    measured = {label: {**lost, **free}[label] for label in strengths if label in {**lost, **free}}
    within = [label for label, cost in measured.items() if cost.high <= budget]
    able = [label for label in within if not np.isnan(leaks.get(label, np.nan))]
    if able:
        return {"family": title, "defense": min(able, key=leaks.__getitem__), "why": None}
    why = "incomplete" if within else "too costly" if measured else "accuracy not measured"
    return {"family": title, "defense": None, "why": why}


def _mean_gain(evidence: Evidence) -> float:
    return float(evidence.gain(METRICS[0]).mean()) if len(evidence.gain(METRICS[0])) else np.nan


def _of(frame: pd.DataFrame, defenses: list[str]) -> pd.DataFrame:
    return pd.DataFrame(frame.loc[frame["defense"].isin(defenses)])


def _standing(row: Row | None) -> Row:
    names = ("ssim_gain", "ssim_gain_low", "ssim_gain_high", "rank", "rank_low", "rank_high", "unranked", "n")
    return dict.fromkeys(names) if row is None else {name: row[name] for name in names}
