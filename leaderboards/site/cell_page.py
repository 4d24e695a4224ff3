"""The page of a cell: one attack on one strength, every image and every figure."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np

from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellFile, Columns
from leaderboards.site.pictures import Picture, Pictures
from leaderboards.site.text import DASH, PERCENT, span
from leaderboards.statistics.intervals import Summary, summarise_metric
from leaderboards.statistics.summary import SUMMARY_METRICS, Row

if TYPE_CHECKING:
    from pandas import DataFrame

METRIC_NAMES = {
    "psnr_db": ("PSNR [dB]", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "mse": ("MSE", ".4f"),
    "lpips": ("LPIPS", ".3f"),
    "identified": ("identified", PERCENT),
    "recovered": ("recovered", PERCENT),
    "label_accuracy": ("labels found", PERCENT),
    "feature_error": ("feature error", ".3g"),
    "underpowered": ("underpowered", PERCENT),
}
PER_IMAGE = {
    "true_label": ("label", "d"),
    "found_label": ("found", "d"),
    "psnr_db": ("PSNR", ".2f"),
    "ssim": ("SSIM", "z.3f"),
    "mse": ("MSE", ".4f"),
    "identified": ("identified", "g"),
    "objective_found": ("objective found", ".4g"),
    "objective_truth": ("at the truth", ".4g"),
}


@dataclass(frozen=True)
class MetricLine:
    """A metric's mean, standard deviation over images, interval and n, or why it is null."""

    name: str
    mean: str
    sd: str
    interval: str
    n: str
    why: str


@dataclass(frozen=True)
class CellView:
    """Everything on a cell's page that is not in its file."""

    metrics: list[MetricLine]
    sheet: Picture | None
    truth: Picture | None
    columns: list[str]
    images: list[list[str]]
    ssim: str
    across: int


def cell_view(entry: Entry, cell: CellFile, rows: DataFrame, summary: Row | None, pictures: Pictures) -> CellView:
    """`rows` are the cell's own of `image_rows`; `summary` that of `summarise` if it covers this cell alone."""
    if cell.columns is None:
        return CellView([], None, None, [], [], DASH, 0)
    found = {name: _known(summary, name) if summary else summarise_metric(rows, name) for name in SUMMARY_METRICS}
    count = len(cell.columns.image)
    shown = {name: how for name, how in PER_IMAGE.items() if getattr(cell.columns, name) is not None}
    if cell.answers > 1:  # Of several labels none is the image's.
        del shown["found_label"]
    ssim = found["ssim"].mean
    return CellView(
        [_line(name, found[name], cell.nulls.get(name, "")) for name in METRIC_NAMES],
        None if cell.sheet is None else pictures.sheet(entry, cell.sheet, cell.answers * count),
        pictures.sheet(entry, entry.manifest.truth, len(pictures.truth(entry))),
        [title for title, _ in shown.values()],
        _per_image(cell.columns, shown),
        DASH if np.isnan(ssim) else f"{ssim:.2f}",
        isqrt(count - 1) + 1,
    )


def _known(row: Row, name: str) -> Summary:
    mean, sd, low, high = (row[f"{name}_{part}"] for part in ("mean", "sd", "low", "high"))
    return Summary(mean, sd, row[f"{name}_n"], row["units"], low, high)


def _line(name: str, found: Summary, why: str) -> MetricLine:
    title, how = METRIC_NAMES[name]
    if np.isnan(found.mean):
        return MetricLine(title, DASH, "", "", "", why or "not measured")
    sd = "" if np.isnan(found.sd) else format(found.sd, how)
    return MetricLine(title, format(found.mean, f"z{how}"), sd, span(found.low, found.high, how), str(int(found.n)), "")


def _per_image(columns: Columns, shown: dict[str, tuple[str, str]]) -> list[list[str]]:
    values = [(getattr(columns, name), how) for name, (_, how) in shown.items()]
    texts = [[DASH if value is None else format(value, how) for value in own] for own, how in values]
    return [list(row) for row in zip(*texts, strict=True)]
