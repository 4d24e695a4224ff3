"""The cells of an entry, held to the board's plan and to each other, and scored again from their own pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench.columns import HELD_OUT_FIGURES, JSON, OF_ONE_GRID, column_names
from bench.trial import wrong_image
from bench.trial.same_class import SAME_CLASS
from leaderboards.checks.expected import KEY, Expected, Key, as_json, key_of
from leaderboards.checks.submission import Submission
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import LENT, CellFile, Columns

SCORED_METRICS = ("mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered")
"""Columns of an entry that are computed again from its reconstructions."""
RELATIVE, ABSOLUTE = 2e-6, 2e-6
"""Tolerances of a metric, four times what rounding to an entry's seven digits moves it by."""
ScoredSheets = dict[tuple[object, ...], dict[str, np.ndarray]]


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
    expected: Expected, entry: Entry, cell: CellFile, lender: CellFile | None, known: ScoredSheets
) -> Iterator[str]:
    """The metrics of a cell that are not those of its reconstructions, in words.

    `lender` is the cell that `wrong_image` borrows from; `known` keeps the metrics of pictures that several cells show.
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
                f"{metric} of image {i} is {claimed[i]:.7g}, but {_shown(source)} {values[i]:.7g} "
                f"({int(wrong.sum())} of {len(wrong)} images differ)"
            )


def _shown(source: CellFile) -> str:
    return "its reconstruction has" if source.answers == 1 else f"the {source.answers} answers about it have"


def _scores(
    expected: Expected, entry: Entry, source: CellFile, columns: Columns, shown_on: bool
) -> dict[str, np.ndarray]:
    """The metrics of a cell by image number (n,), scored block by block as a run does.

    `shown_on` shows every trial's reconstructions to the next client of its block.
    """
    import torch

    from bench.trial.metrics import score
    from bench.trial.trial import against_their_own

    tiles = entry.images(source)
    assert tiles is not None, "a lender has a sheet"
    dataset, held_out = expected.dataset, source.identity.attack_name == SAME_CLASS
    # (n k c h w): one reconstruction of an image, or one for each held-out client.
    images = torch.from_numpy(tiles).permute(0, 3, 1, 2).unflatten(0, (-1, source.answers))
    labels = torch.tensor(columns.found_label).unflatten(0, (-1, source.answers))
    pool = dataset.pool()
    place = {image: i for i, image in enumerate(pool)}
    candidates = dataset.pixels(pool)
    metrics = (*SCORED_METRICS, *(HELD_OUT_FIGURES if held_out else ()))
    found = {metric: np.full(len(images), np.nan) for metric in metrics}
    before = torch.zeros(0, dtype=torch.long)
    for block, ids in expected.blocks(source.identity):
        own = torch.tensor([[place.get(image, -1) for image in trial] for trial in ids.tolist()])
        truth = torch.stack([dataset.pixels(trial) for trial in ids.tolist()])
        # A client that is alone in its block is shown what was found for the one before it.
        others = ids.roll(1, 0) if len(ids) > 1 or not len(before) else before[-1:]
        before, shown = ids, images[others if shown_on else ids]
        scores = [
            score(shown[:, :, i], truth, labels[ids][:, :, i], dataset.labels[ids], candidates, own)
            for i in range(source.answers)
        ]
        for metric in SCORED_METRICS:
            found[metric][ids.numpy()] = np.mean([each[metric] for each in scores], axis=0)
        if held_out:
            figures = against_their_own(expected.held_out(block), shown.movedim(2, 1))
            for metric, values in figures.items():
                found[metric][ids.flatten().numpy()] = values.numpy()
    return found


WORSE = 0.05
"""Share by which the mean objective may end above its start: the start itself is no iterate to choose."""
NEARER = 0.02
"""SSIM by which answers to held-out clients may be nearer to the attacked images than to their own, beyond luck: three
standard errors. An attack that sees nothing of its client is as near to one as to the other."""
_OF_ALL = [*(name for name in column_names("defense", "schedule") if name not in OF_ONE_GRID), "audited"]


def cell_faults(submission: Submission) -> Iterator[str]:
    """Cells that are missing, doubled, not asked for, or not as the board's plan has them."""
    entry, plan = submission.entry, submission.plan
    for defense in entry.defenses:
        wanted = plan.cells(defense)
        own = [cell for cell in entry.cells if cell.identity.defense == defense]
        found = {key_of(cell.identity.model_dump()): cell for cell in own}
        if len(found) < len(own):
            yield f"{defense}: a cell is there twice"
        for key in sorted(wanted.keys() - found.keys()):
            yield f"{defense}: {_called(key)} is missing; run the board to its end"
        for key in sorted(found.keys() - wanted.keys()):
            yield f"{defense}: the board does not ask for {_called(key)} with these settings"
        for key in sorted(found.keys() & wanted.keys()):
            yield from _identity(found[key], wanted[key], plan)
        if len({json.dumps([getattr(c.identity, name) for name in _OF_ALL], sort_keys=True) for c in own}) > 1:
            yield f"{defense}: its cells disagree about its images, steps or parameters"


def _called(key: Key) -> str:
    named = dict(zip(KEY, key, strict=True))
    return f"{named['attack']} on {named['weights']} weights"


def _identity(cell: CellFile, wanted: dict[str, Any], plan: Expected) -> Iterator[str]:
    own, place = cell.identity.model_dump(), place_of(cell)
    for name, value in own.items():
        asked = wanted.get(name, value)
        if name in JSON:
            asked, value = as_json(json.loads(asked) if isinstance(asked, str) else asked), as_json(value)
        # By text: to Python, 1 == 1.0 == True.
        if name != "attack_order" and json.dumps(value, sort_keys=True) != json.dumps(asked, sort_keys=True):
            yield f"{place}: {name} is {str(value)[:120]!r}, the board's plan has {str(asked)[:120]!r}"
    if plan.cell_id(cell.identity) != cell.identity.cell:
        yield f"{place}: {cell.identity.cell} is not the id of these choices"
    if not _names(cell):
        yield f"{place}: its label does not name {cell.identity.defense_name}"
    if (cell.of is not None) != (cell.identity.attack_name == wrong_image.NAME) and cell.columns is not None:
        yield f"{place}: only wrong_image borrows its reconstructions"
    if cell.columns is not None and len(cell.columns.image) != plan.plan.images:
        yield f"{place}: {len(cell.columns.image)} images, the board has {plan.plan.images}"
    if cell.status not in ("ok", "skipped") and not cell.reason:
        yield f"{place}: it is {cell.status} without a reason"
    skipped, skips = cell.status == "skipped", wanted["skip"] is not None
    if skips != skipped and cell.identity.attack_name != wrong_image.NAME:
        yield f"{place}: it is {cell.status}, the board's plan {'skips' if skips else 'does not skip'} it"


def _names(cell: CellFile) -> bool:
    """True if the defense's label shows the names of its parts; an unknown defense may show any parameters."""
    names, parts = cell.identity.defense_name.split(" | "), cell.identity.defense.split(" | ")
    return len(names) == len(parts) and all(p == n or p.startswith(n + "(") for n, p in zip(names, parts, strict=True))


def trial_faults(submission: Submission) -> Iterator[str]:
    """Images that the seed deals to other trials, and labels that are not the dataset's."""
    entry, plan = submission.entry, submission.plan
    labels = plan.dataset.labels[: plan.plan.images].tolist()
    for cell in entry.cells:
        if cell.columns is None:
            continue
        place = place_of(cell)
        if cell.columns.trial != trials_of(plan, cell):
            yield f"{place}: seed {cell.identity.seed} deals the images to other trials"
        if cell.columns.true_label != labels:
            yield f"{place}: true_label is not the dataset's"
        if len(cell.updates) != len(plan.blocks(cell.identity)):
            yield f"{place}: {len(cell.updates)} hashes of updates for {len(plan.blocks(cell.identity))} blocks"


def metric_faults(submission: Submission) -> Iterator[str]:
    """Metrics that are not those of the reconstructions."""
    entry, plan = submission.entry, submission.plan
    by_id, known = {cell.identity.cell: cell for cell in entry.cells}, ScoredSheets()
    for cell in entry.cells:
        if cell.columns is None:
            continue
        place = place_of(cell)
        lender = by_id.get(cell.of) if cell.of else None
        if cell.of and (lender is None or lender.sheet is None or not _lends(lender, cell)):
            yield f"{place}: it borrows from {cell.of}, which is not the cell that it says"
            continue
        if cell.identification_pool != len(plan.dataset.pool()):
            yield f"{place}: identification_pool is {cell.identification_pool}, not {len(plan.dataset.pool())}"
        yield from (f"{place}: {text}" for text in differences(plan, entry, cell, lender, known))


def _lends(lender: CellFile, cell: CellFile) -> bool:
    own, other = cell.identity, lender.identity
    return own.attack_parameters.get("of") == other.attack and all(getattr(own, k) == getattr(other, k) for k in LENT)


def consistency_faults(submission: Submission) -> Iterator[str]:
    """Attacks of one defense that saw other updates or weights, objectives that end above their start, and answers to
    held-out clients that are nearer to the attacked images than to their own.
    """
    seen: dict[tuple[object, ...], CellFile] = {}
    accuracies: dict[tuple[object, ...], float | None] = {}
    for cell in submission.entry.cells:
        if cell.columns is None:
            continue
        own, columns, place = cell.identity, cell.columns, place_of(cell)
        weights = own.model, own.weights, own.seed
        if accuracies.setdefault(weights, cell.weights_accuracy) != cell.weights_accuracy:
            yield f"{place}: its {own.weights} weights have another accuracy than in other cells"
        first = seen.setdefault((own.defense, own.releases, *weights), cell)
        assert first.columns is not None, "it was entered with columns"
        if cell.updates != first.updates or columns.update_norm != first.columns.update_norm:
            yield f"{place}: it attacked another update than {first.identity.attack} did"
        start, end = _mean(columns.objective_start), _mean(columns.objective_found)
        if end > start + WORSE * abs(start):
            yield f"{place}: its objective ends at {end:.4g} on average, and began at {start:.4g}"
        gap, error = _nearer(columns)
        if gap > NEARER + 3 * error:
            yield f"{place}: its answers to held-out clients are {gap:.3f} SSIM nearer to the attacked images"


def _nearer(columns: Columns) -> tuple[float, float]:
    """Mean and standard error of SSIM to the attacked images above that to the own ones; NaN where not measured."""
    if columns.ssim is None or columns.held_out_ssim is None:
        return float("nan"), float("nan")
    gaps = np.array(columns.ssim, dtype=np.float64) - np.array(columns.held_out_ssim, dtype=np.float64)
    return float(gaps.mean()), float(gaps.std(ddof=1) / len(gaps) ** 0.5) if len(gaps) > 1 else float("nan")


def _mean(values: Sequence[float | None] | None) -> float:
    return float(np.array(values, dtype=np.float64).mean()) if values else float("nan")


def place_of(cell: CellFile) -> str:
    """The cell's name in messages: its attack and its defense."""
    return f"{cell.identity.attack} / {cell.identity.defense}"
