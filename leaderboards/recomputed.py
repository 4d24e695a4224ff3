"""Every metric computed again from an entry's own reconstructions and the board's own images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from leaderboards.entries import Entry
from leaderboards.entry_schema import CellFile, Columns
from leaderboards.expected import Expected

METRICS = ("mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered")
RELATIVE, ABSOLUTE = 2e-6, 2e-6
"""An entry keeps seven digits."""
Known = dict[tuple[object, ...], dict[str, np.ndarray]]


def trials_of(expected: Expected, cell: CellFile) -> list[int]:
    """The trial that each image belongs to, as the board's seed deals them."""
    found = [0] * expected.plan.images
    for block, ids in expected.blocks(cell.identity):
        first = block.start // cell.identity.images_per_update
        for trial, images in enumerate(ids.tolist()):
            for image in images:
                found[image] = first + trial
    return found


def differences(
    expected: Expected, entry: Entry, cell: CellFile, lender: CellFile | None, known: Known
) -> Iterator[str]:
    """Where a cell's metrics are not those of its reconstructions, in words.

    `lender` is whom `wrong_image` borrows; `known` keeps the metrics of pictures that several cells show.
    """
    columns = cell.columns
    assert columns is not None, "only finished cells have metrics"
    source, shown_on = lender or cell, lender is not None
    key = source.sheet, shown_on, cell.identity.images_per_update, cell.identity.seed, tuple(columns.found_label)
    if key not in known:
        known[key] = _scores(expected, entry, source, columns, shown_on)
    for metric, values in known[key].items():
        if metric == "lpips" and (np.isnan(values).all() or columns.lpips is None):
            continue  # Its weights are not on this machine, or were not on the other.
        given = cell.identity.labels == "known" and not cell.identity.recovers_labels
        if metric == "label_accuracy" and given:
            values = np.full(len(values), np.nan)
        stated = getattr(columns, metric)
        claimed = np.full(len(values), np.nan) if stated is None else np.array(stated, dtype=np.float64)
        wrong = ~np.isclose(claimed, values, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
        if wrong.any():
            i = int(wrong.argmax())
            yield (
                f"{metric} of image {i} is {claimed[i]:.7g}, but its reconstruction has {values[i]:.7g} "
                f"({int(wrong.sum())} of {len(wrong)} images differ)"
            )


def _scores(
    expected: Expected, entry: Entry, source: CellFile, columns: Columns, shown_on: bool
) -> dict[str, np.ndarray]:
    """The metrics of a cell by image number (n,), scored block by block as a run does.

    `shown_on` shows every trial's reconstructions to the next client of its block.
    """
    import torch

    from bench.metrics import score

    tiles = entry.images(source)
    assert tiles is not None, "a lender has a sheet"
    images, dataset = torch.from_numpy(tiles).permute(0, 3, 1, 2), expected.dataset
    labels = torch.tensor(columns.found_label)
    pool = dataset.pool()
    place = {image: i for i, image in enumerate(pool)}
    candidates = dataset.pixels(pool)
    found = {metric: np.full(len(images), np.nan) for metric in METRICS}
    before = torch.zeros(0, dtype=torch.long)
    for _, ids in expected.blocks(source.identity):
        own = torch.tensor([[place.get(image, -1) for image in trial] for trial in ids.tolist()])
        truth = torch.stack([dataset.pixels(trial) for trial in ids.tolist()])
        # A client that is alone in its block is shown what was found for the one before it.
        others = ids.roll(1, 0) if len(ids) > 1 or not len(before) else before[-1:]
        before, shown = ids, images[others if shown_on else ids]
        scores = score(shown, truth, labels[ids], dataset.labels[ids], candidates, own)
        for metric in METRICS:
            found[metric][ids.numpy()] = scores[metric]  # type: ignore[literal-required]
    return found
