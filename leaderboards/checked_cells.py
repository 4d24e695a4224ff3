"""The cells of an entry, held to the board's plan, to each other and to their own pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from leaderboards.entries import Entry
from leaderboards.entry_schema import LENT, CellFile
from leaderboards.expected import Expected, key_of, plain
from leaderboards.recomputed import Known, differences, trials_of

WORSE = 0.05
"""Share by which the mean objective may end above its start: the start itself is no iterate to choose."""
_OF_ALL = ("images_per_update", "local_steps", "defense_name", "defense_parameters", "audited")
_TABLES = ("attack_parameters", "defense_parameters")


def cell_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """Cells that are missing, doubled, not asked for, or not as the board's plan has them."""
    for defense in entry.defenses:
        wanted = plan.cells(defense)
        own = [cell for cell in entry.cells if cell.identity.defense == defense]
        found = {key_of(cell.identity.model_dump()): cell for cell in own}
        if len(found) < len(own):
            yield f"{defense}: a cell is there twice"
        for key in sorted(wanted.keys() - found.keys()):
            yield f"{defense}: {key[2]} on {key[1]} weights is missing; run the board to its end"
        for key in sorted(found.keys() - wanted.keys()):
            yield f"{defense}: the board does not ask for {key[2]} on {key[1]} weights with these settings"
        for key in sorted(found.keys() & wanted.keys()):
            yield from _identity(found[key], wanted[key], plan)
        if len({json.dumps([getattr(c.identity, name) for name in _OF_ALL], sort_keys=True) for c in own}) > 1:
            yield f"{defense}: its cells disagree about its images, steps or parameters"


def _identity(cell: CellFile, wanted: dict[str, Any], plan: Expected) -> Iterator[str]:
    own, place = cell.identity.model_dump(), place_of(cell)
    for name, value in own.items():
        asked = wanted.get(name, value)
        if name in _TABLES:
            asked, value = plain(json.loads(asked) if isinstance(asked, str) else asked), plain(value)
        # By text: to Python, 1 == 1.0 == True.
        if name != "attack_order" and json.dumps(value, sort_keys=True) != json.dumps(asked, sort_keys=True):
            yield f"{place}: {name} is {str(value)[:120]!r}, the board's plan has {str(asked)[:120]!r}"
    if plan.cell_id(cell.identity) != cell.identity.cell:
        yield f"{place}: {cell.identity.cell} is not the id of these choices"
    if not _names(cell):
        yield f"{place}: its label does not name {cell.identity.defense_name}"
    if (cell.of is not None) != (cell.identity.attack_name == "wrong_image") and cell.columns is not None:
        yield f"{place}: only wrong_image borrows its reconstructions"
    if cell.columns is not None and len(cell.columns.image) != plan.plan.images:
        yield f"{place}: {len(cell.columns.image)} images, the board has {plan.plan.images}"
    if cell.status not in ("ok", "skipped") and not cell.reason:
        yield f"{place}: it is {cell.status} without a reason"
    skipped, skips = cell.status == "skipped", wanted["skip"] is not None
    if skips != skipped and cell.identity.attack_name != "wrong_image":
        yield f"{place}: it is {cell.status}, the board's plan {'skips' if skips else 'does not skip'} it"


def _names(cell: CellFile) -> bool:
    """Whether a label shows the names of its parts: what an unknown defense is called is for its parameters to say."""
    names, parts = cell.identity.defense_name.split(" | "), cell.identity.defense.split(" | ")
    return len(names) == len(parts) and all(p == n or p.startswith(n + "(") for n, p in zip(names, parts, strict=True))


def trial_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """Images that the seed deals to other trials, and labels that are not the dataset's."""
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


def metric_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """Metrics that are not those of the reconstructions."""
    by_id, known = {cell.identity.cell: cell for cell in entry.cells}, Known()
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


def consistency_faults(entry: Entry) -> Iterator[str]:
    """All attacks of a defense see one update; an attack ends no higher than it began, but for its first step."""
    seen: dict[tuple[object, ...], CellFile] = {}
    accuracies: dict[tuple[object, ...], float | None] = {}
    for cell in entry.cells:
        if cell.columns is None:
            continue
        own, columns, place = cell.identity, cell.columns, place_of(cell)
        weights = own.model, own.weights, own.seed
        if accuracies.setdefault(weights, cell.weights_accuracy) != cell.weights_accuracy:
            yield f"{place}: its {own.weights} weights have another accuracy than in other cells"
        first = seen.setdefault((own.defense, *weights), cell)
        assert first.columns is not None, "it was entered with columns"
        if cell.updates != first.updates or columns.update_norm != first.columns.update_norm:
            yield f"{place}: it attacked another update than {first.identity.attack} did"
        start, end = _mean(columns.objective_start), _mean(columns.objective_found)
        if end > start + WORSE * abs(start):
            yield f"{place}: its objective ends at {end:.4g} on average, and began at {start:.4g}"


def _mean(values: Sequence[float | None] | None) -> float:
    return float(np.array(values, dtype=np.float64).mean()) if values else float("nan")


def place_of(cell: CellFile) -> str:
    """What messages call a cell."""
    return f"{cell.identity.attack} / {cell.identity.defense}"
