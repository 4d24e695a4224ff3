"""Whether one group of results is above another, by paired differences over independent clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from bench.statistics import LEAST_UNITS, interval

Answer = Literal["holds", "does not hold", "not decided", "not run"]


@dataclass(frozen=True)
class Cells:
    """Rows of a run: `label` in words, and `where` from a column, `attack.x` or `defense.x` to its value.

    `strongest` names a metric: of the attacks among them the one with the highest mean is taken, as for controls.
    """

    label: str
    where: Mapping[str, Any] = field(default_factory=dict)
    strongest: str | None = None

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


@dataclass(frozen=True)
class Verdict:
    """Whether an ordering holds: the mean paired difference, its 95% interval, and the number of units."""

    answer: Answer
    reason: str = ""
    difference: float = np.nan
    low: float = np.nan
    high: float = np.nan
    units: int = 0


def judge(ordering: Ordering, frame: pd.DataFrame) -> Verdict:
    """Decide by the 95% bootstrap interval of the mean difference: above 0, below 0, or over it.

    Images are paired; seeds are averaged first. Where an update holds several images the units are the clients of the
    larger batch. Nothing is decided by fewer than five units, by a side with a failed cell, or by two attacks whose
    PSNR is under that of the strongest control: between two failures decibels measure noise.
    """
    sides = [ordering.more.of(frame), ordering.less.of(frame)]
    for cells, rows in zip((ordering.more, ordering.less), sides, strict=True):
        if rows.empty:
            return Verdict("not run", f"there is no result of {cells.label}")
        failed = rows[rows["status"] != "ok"]
        if not failed.empty:
            return Verdict("not decided", f"{cells.label} is {failed['status'].iloc[0]}: {failed['reason'].iloc[0]}")
        if rows[ordering.metric].isna().any():
            return Verdict("not decided", f"{ordering.metric} of {cells.label} is null")
    more, less = (rows.groupby("image")[ordering.metric].mean() for rows in sides)
    difference = (more - less).dropna()
    larger = max(sides, key=lambda rows: rows["images_per_update"].iloc[0])
    if larger["images_per_update"].iloc[0] > 1:
        first = larger[larger["seed"] == larger["seed"].min()].set_index("image")["trial"]
        difference = difference.groupby(first).mean()
    mean, units = float(difference.mean()), len(difference)
    bounds = interval(difference.to_numpy(dtype=np.float64))
    if ordering.metric == "psnr_db" and all(_is_under_floor(c, frame) for c in (ordering.more, ordering.less)):
        return Verdict(
            "not decided", "both are under the strongest floor", mean, *(bounds or (np.nan,) * 2), units=units
        )
    if bounds is None:
        return Verdict("not decided", f"fewer than {LEAST_UNITS} independent clients", mean, units=units)
    low, high = bounds
    answer: Answer = "holds" if low > 0 else "does not hold" if high < 0 else "not decided"
    return Verdict(answer, "" if answer != "not decided" else "the interval holds 0", mean, low, high, units)


def _is_under_floor(cells: Cells, frame: pd.DataFrame) -> bool:
    """Whether the mean PSNR is under that of the strongest control of the same setting; a control never is."""
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
