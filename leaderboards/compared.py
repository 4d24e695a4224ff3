"""Figures of a cell or job that was computed again, beside those that were submitted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import ConfigurationError
from bench.statistics import underpowered
from leaderboards.entry_schema import CellFile, JobRow
from leaderboards.refusals import shown
from leaderboards.reviews import Rerun

if TYPE_CHECKING:
    from pandas import DataFrame

DECIBELS, SSIM, BY_IMAGE, SHARE, NORM, OBJECTIVE, POINTS, BYTES = 0.5, 0.02, 0.05, 5.0, 10.0, 5.0, 1.5, 5.0
"""How far figures may move on another machine: a mean PSNR; a mean SSIM; SSIM image by image; shares of images, labels
and trials in points; the norm of the update in % of it; objectives in % of where the attack starts; an accuracy in
points; the bytes of an update in % of them."""
UNDERPOWERED = 20.0
"""Points by which the share of images may move whose attack ends above the objective at the truth."""


def compared(cell: CellFile, rows: DataFrame) -> Iterator[Rerun]:
    """A finished cell beside its `rows`, sorted by image: what it leaks, what was sent, how far the attack came.

    Raises ConfigurationError where one of both has no figure.
    """
    columns = cell.columns
    assert columns is not None, "only finished cells are computed again"
    what = shown(f"{cell.identity.attack} / {cell.identity.defense}, {cell.identity.weights} weights", 300)
    what += ", defense known" * cell.identity.defense_known
    place = what, cell.identity.cell
    mine = {name: _values(values) for name, values in columns.model_dump().items() if values is not None}
    its = {name: rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in mine if name in rows}
    blank = np.full(len(rows), np.nan)
    pair = lambda name: (mine.get(name, blank), its.get(name, rows[name].to_numpy(np.float64)))  # noqa: E731
    if cell.identity.recovers_labels:
        yield from _means("labels found in % by {}", place, pair("label_accuracy"), SHARE, 100)
    else:
        yield from _means("mean PSNR in dB of {}", place, pair("psnr_db"), DECIBELS)
        yield from _means("mean SSIM of {}", place, pair("ssim"), SSIM)
        apart = np.abs(np.subtract(*pair("ssim")))
        yield from _means("distance of SSIM by image of {}", place, (0 * apart, apart), BY_IMAGE)
        yield from _means("images identified in % by {}", place, pair("identified"), SHARE, 100)
    if cell.identity.control:
        return
    norm, again = pair("update_norm")
    yield from _means("norm of the update in % for {}", place, (norm, again), NORM, _percent(norm))
    start, start_again = pair("objective_start")
    for name in ("found", "truth"):
        objective, objective_again = pair(f"objective_{name}")
        relative = objective.mean() / abs(start.mean()), objective_again.mean() / abs(start_again.mean())
        yield from _means(f"objective {name} in % of the start of {{}}", place, relative, OBJECTIVE, 100)
    found, truth = pair("objective_found"), pair("objective_truth")
    shares = [underpowered(*both) for both in zip(found, truth, strict=True)]
    yield from _means("images underpowered in % of {}", place, shares, UNDERPOWERED, 100)


def compared_job(job: JobRow, row: dict[str, Any]) -> Iterator[Rerun]:
    """A training or certificate beside the `row` of its figures."""
    what = f"{shown(job.defense, 300)}, seed {job.seed}", None
    own = {name: np.nan if value is None else value for name, value in job.figures.items()}
    if job.kind == "training":
        yield from _means("accuracy in % of {}", what, (own.get("accuracy"), row["accuracy"]), POINTS, 100)
        sent = own.get("bytes_sent", np.nan)
        yield from _means("bytes of an update in % of {}", what, (sent, row["bytes_sent"]), BYTES, _percent(sent))
    else:
        rates = own.get("successes", np.nan) / own.get("trials", np.nan), row["successes"] / row["trials"]
        yield from _means("private images identified in % of {}", what, rates, SHARE, 100)


def fault(one: Rerun) -> str | None:
    """What is wrong where a figure was not found again; None where it was."""
    if abs(one.submitted - one.found) <= one.tolerance:
        return None
    return f"{one.what}: submitted {one.submitted:.4g}, found {one.found:.4g}, at most {one.tolerance:g} apart"


def _means(
    text: str, place: tuple[str, str | None], both: Any, tolerance: float, scale: float = 1.0
) -> Iterator[Rerun]:
    """The means of a figure as submitted and as found; none where neither has it."""
    what, cell = text.format(place[0]), place[1]
    mine, its = (float(np.mean(values)) * scale for values in both)
    if math.isnan(mine) and math.isnan(its):
        return
    if not (math.isfinite(mine) and math.isfinite(its)):
        raise ConfigurationError(f"{what}: submitted {mine:.4g}, found {its:.4g}")
    yield Rerun(what=what, cell=cell, submitted=round(mine, 4), found=round(its, 4), tolerance=tolerance)


def _percent(submitted: Any) -> float:
    mean = float(np.mean(submitted))
    return 100 / mean if mean else 100.0


def _values(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=np.float64)
