"""Rules that compare an entry with the undefended one: both have the same floors, weights and kinds of objectives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.trial.same_class import LABELS_OF_CONTROLS
from leaderboards.checks.cells import place_of
from leaderboards.checks.expected import key_of
from leaderboards.checks.submission import Submission
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellFile

MEAN, BY_IMAGE, MATCHED = 0.02, 0.02, 0.05
"""SSIM by which a floor may differ from the undefended entry's: its mean, the mean distance image by image, and the
mean where the reconstructions of a client are matched to several images."""
LEVELS = 1
"""Grey levels by which a rounded pixel of a constant floor may differ on another machine."""
WEIGHTS = 0.02
"""Accuracy by which weights of one recipe may differ on another machine."""
CONSTANT = ("grey_image", "dataset_mean")
_OBJECTIVES = ("objective_start", "objective_found", "objective_truth")


def reference_faults(submission: Submission) -> Iterator[str]:
    """Objectives that are hidden, and weights of another accuracy than the undefended entry's.

    `underpowered` is seen by objectives alone.
    """
    for cell, other in _pairs(submission):
        assert cell.columns is not None, "pairs have columns"
        assert other.columns is not None, "pairs have columns"
        for name in _OBJECTIVES:
            mine, its = getattr(cell.columns, name), getattr(other.columns, name)
            if (mine is None) != (its is None):
                there = "has none of it" if its is None else "has it"
                yield f"{place_of(cell)}: {name} is {'null' if mine is None else 'there'}, the undefended entry {there}"
            elif mine is not None and None in mine and None not in its:
                yield f"{place_of(cell)}: {name} of image {mine.index(None)} is null"
        mine, its = cell.weights_accuracy, other.weights_accuracy
        if (mine is None) != (its is None) or (mine is not None and its is not None and abs(mine - its) > WEIGHTS):
            yield f"{place_of(cell)}: weights_accuracy is {mine}, that of the undefended entry {its}"


def floor_faults(submission: Submission) -> Iterator[str]:
    """Floors that are not the undefended entry's, though no floor looks at an update.

    Those of one image a client are the same for every defense, others nearly.
    """
    entry, reference = submission.entry, submission.undefended
    if reference is None:
        return
    if entry.defenses != ["none"] and "none" in entry.defenses:
        yield f"the undefended client is the board's entry {reference.name}; leave it out"
    for cell, other in _pairs(submission):
        name = cell.identity.attack_name
        # Those that are made from an attack follow the update.
        if not cell.identity.control or name in LABELS_OF_CONTROLS:
            continue
        if name in CONSTANT or name == "class_mean":
            yield from _tiles(entry, reference, cell, other)
        else:
            yield from _similarity(cell, other)


def _tiles(entry: Entry, reference: Entry, cell: CellFile, other: CellFile) -> Iterator[str]:
    """A floor that shows the same to everybody, or to everybody with the same labels, pixel by pixel."""
    mine, its = entry.images(cell), reference.images(other)
    assert mine is not None, "pairs have sheets"
    assert its is not None, "pairs have sheets"
    assert cell.columns is not None, "pairs have columns"
    trials = np.array(cell.columns.trial)
    for image, tile in enumerate(mine.astype(int)):
        same = [image] if cell.identity.attack_name in CONSTANT else np.flatnonzero(trials == trials[image])
        if not (np.abs(its[same].astype(int) - tile).reshape(len(same), -1).max(axis=1) <= LEVELS).any():
            yield f"{place_of(cell)}: image {image} is not what this floor shows of the undefended client"
            return


def _similarity(cell: CellFile, other: CellFile) -> Iterator[str]:
    assert cell.columns is not None, "pairs have columns"
    assert other.columns is not None, "pairs have columns"
    metric, scale = ("ssim", 1.0) if other.columns.ssim is not None else ("psnr_db", 30.0)
    mine, its = (np.array(getattr(c.columns, metric), dtype=np.float64) / scale for c in (cell, other))
    gaps, several = mine - its, cell.identity.images_per_update > 1
    gap, apart = float(gaps.mean()), float(np.abs(gaps).mean())
    unit = "SSIM" if metric == "ssim" else f"PSNR / {scale:g} dB"
    if gap < -MEAN or gap > (MATCHED if several else MEAN):
        yield f"{place_of(cell)}: {unit} {gap:+.3f} from the floor of the undefended client"
    elif not several and apart > BY_IMAGE:
        yield f"{place_of(cell)}: image by image {unit} {apart:.3f} from the floor of the undefended client"


def _pairs(submission: Submission) -> Iterator[tuple[CellFile, CellFile]]:
    """The finished cells of an entry, each with the undefended one of the same attack."""
    undefended = submission.undefended
    reference = {} if undefended is None else {key_of(c.identity.model_dump()): c for c in undefended.cells}
    for cell in submission.entry.cells:
        other = reference.get(key_of(cell.identity.model_dump()))
        if other is not None and cell.columns is not None and other.columns is not None:
            yield cell, other
