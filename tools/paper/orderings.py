"""Orderings of two groups of results, decided by paired differences over independent units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from leaderboards.statistics.comparison import common_units, unit_means
from leaderboards.statistics.intervals import interval

Answer = Literal["holds", "does not hold", "not decided", "not run"]
LEVEL = 0.05
"""Significance level of every decision, two-sided."""
LEAST_PAIRED_UNITS = 6
"""Fewer decide nothing: of five differences of one sign the exact test says p = 2 / 2^5 = .06, above LEVEL."""
LEAST_RESAMPLED = 20
"""Units from which the bootstrap decides. Of normal units without a difference it calls six different in 14% of
samples, and eight in 10%."""


@dataclass(frozen=True)
class Cells:
    """A choice of rows of a run."""

    label: str
    """The rows in words."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """A column, or a parameter as `attack.x` or `defense.x` -> the value that it has in these rows."""
    strongest: str | None = None
    """A metric: only the attack with its highest mean is taken, as among controls."""

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that are meant, perhaps none."""
        kept = frame
        for key, value in self.where.items():
            column, _, parameter = key.partition(".")
            found = kept[column] if not parameter else kept[f"{column}_parameters"].map(_reader(parameter))
            kept = kept[found == value]
        if self.strongest is not None and not kept.empty:
            means = kept[kept["status"] == "ok"].groupby("attack", sort=False)[self.strongest].mean()
            kept = kept[kept["attack"] == means.idxmax()] if len(means) else kept
        return kept


@dataclass(frozen=True)
class Ordering:
    """The claim that `more` is above `less` in `metric`."""

    more: Cells
    less: Cells
    metric: str = "psnr_db"

    def is_that_of(self, other: Ordering) -> bool:
        """True if both compare the same rows in the same metric, whatever their labels say."""
        meant = [(o.more.where, o.more.strongest, o.less.where, o.less.strongest, o.metric) for o in (self, other)]
        return meant[0] == meant[1]


@dataclass(frozen=True)
class Judgement:
    """The answer to an ordering, with the figures that decided it; those of the other test are NaN or 0."""

    answer: Answer
    reason: str = ""
    """The cause of an answer that the figures alone do not give."""
    difference: float = np.nan
    """Mean of the paired differences, in the metric's unit."""
    units: int = 0
    """Independent units that were compared."""
    low: float = np.nan
    """Lower end of the 95% interval of the difference."""
    high: float = np.nan
    p: float = np.nan
    """p of the sign test."""
    above: int = 0
    """Units whose difference is above 0, in the sign test."""
    below: int = 0


def judge(ordering: Ordering, frame: pd.DataFrame) -> Judgement:
    """Decide two-sided at 5% by the difference of the same images, seeds averaged first.

    The units are the finest groups of images that cut no client's batch of either side. Nothing is decided by fewer
    than `LEAST_PAIRED_UNITS`, by a side with a failed cell, or by two attacks whose PSNR is under that of the strongest
    control: between two failures decibels measure noise. That the claim does not hold is not said of an attack that
    missed its own objective on most images: it is no evidence of what the attack could do.
    """
    sides = [ordering.more.of(frame), ordering.less.of(frame)]
    for cells, rows in zip((ordering.more, ordering.less), sides, strict=True):
        if rows.empty:
            return Judgement("not run", f"there is no result of {cells.label}")
        failed = rows[rows["status"] != "ok"]
        if not failed.empty:
            return Judgement("not decided", f"{cells.label} is {failed['status'].iloc[0]}: {failed['reason'].iloc[0]}")
        if rows[ordering.metric].isna().any():
            return Judgement("not decided", f"{ordering.metric} of {cells.label} is null")
    found = decide(_differences(sides, ordering.metric), signs=ordering.metric == "identified")
    if found.units < LEAST_PAIRED_UNITS:
        return found
    if ordering.metric == "psnr_db" and all(_is_under_floor(c, frame) for c in (ordering.more, ordering.less)):
        return replace(found, answer="not decided", reason="both are under the strongest floor")
    if ordering.metric == "update_norm":  # No attack has a part in it.
        return found
    if found.answer == "does not hold" and _is_underpowered(sides[0]):
        return replace(found, answer="not decided", reason="the first is underpowered")
    if found.answer == "holds" and _is_underpowered(sides[1]):
        return replace(found, reason="though the second is underpowered")
    return found


def _differences(sides: list[pd.DataFrame], metric: str) -> np.ndarray:
    """The first side minus the second in the mean of each independent unit (u,)."""
    more, less = (rows.groupby("image")[metric].mean() for rows in sides)
    difference = (more - less).dropna()
    dealt = [
        own.set_index("image")["trial"].loc[difference.index].to_numpy()
        for rows in sides
        for _, own in rows.groupby("seed")
    ]
    return unit_means(difference.to_numpy(dtype=np.float64), reduce(common_units, dealt[1:], dealt[0]))


def decide(units: np.ndarray, signs: bool) -> Judgement:
    """The exact sign test for shares of images; else Student's t, or from `LEAST_RESAMPLED` units on the bootstrap."""
    # Seeds averaged to the same value may differ in their last digit.
    mean, above, below = float(units.mean()), int((units > 1e-12).sum()), int((units < -1e-12).sum())
    found = Judgement("not decided", difference=mean, units=len(units))
    if len(units) < LEAST_PAIRED_UNITS:
        return replace(found, reason="too few independent units")
    if signs:
        p = float(stats.binomtest(above, above + below).pvalue) if above + below else 1.0
        found = replace(found, p=p, above=above, below=below)
        # Units of several images may be above 0 more often than below, and below it in the mean.
        is_more, is_less = p <= LEVEL and above > below and mean > 0, p <= LEVEL and above < below and mean < 0
    else:
        bounds = interval(units) if len(units) >= LEAST_RESAMPLED else None
        low, high = bounds or _student(units)
        found = replace(found, low=low, high=high)
        is_more, is_less = low > 0, high < 0
    return replace(found, answer="holds" if is_more else "does not hold" if is_less else "not decided")


def _student(units: np.ndarray) -> tuple[float, float]:
    """Student's 95% interval of the mean of units (u,); that of equal units is their value."""
    half = stats.t.ppf(1 - LEVEL / 2, len(units) - 1) * units.std(ddof=1) / np.sqrt(len(units))
    return float(units.mean() - half), float(units.mean() + half)


def _is_underpowered(rows: pd.DataFrame) -> bool:
    """True if the attack ended above its objective at the private image on most images; a control never did."""
    return bool(rows.groupby("image")["underpowered"].mean().mean() > 0.5)


def _is_under_floor(cells: Cells, frame: pd.DataFrame) -> bool:
    """True if the mean PSNR is under that of the strongest control of the same setting; a control never is."""
    if cells.where.get("control"):
        return False
    where = {key: value for key, value in cells.where.items() if not key.startswith("attack")}
    controls = Cells("", {**where, "control": True}, strongest="psnr_db").of(frame)
    return bool(cells.of(frame)["psnr_db"].mean() < controls["psnr_db"].mean())


def _reader(parameter: str) -> Any:
    def read(text: str) -> Any:
        found = json.loads(text)
        parts = found if isinstance(found, list) else [found]
        return next((part[parameter] for part in parts if parameter in part), None)

    return read
