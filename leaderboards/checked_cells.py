"""The cells of an entry, held to the board's plan, to each other and to their own pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from leaderboards.entries import Entry
from leaderboards.entry_schema import CellFile
from leaderboards.expected import Expected, key_of, plain
from leaderboards.publications import Published
from leaderboards.recomputed import Known, differences, trials_of

FLOOR_TOLERANCE = 0.02
"""SSIM by which the mean of a floor may differ from the undefended entry's: it looks at no update."""
_OF_ALL = ("images_per_update", "local_steps", "defense_name", "audited")
_TABLES = ("attack_parameters", "defense_parameters")


def cell_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """Cells that are missing, doubled, not asked for, or not as the board's plan has them."""
    for defense in entry.defenses:
        wanted = plan.cells(defense)
        own = [cell for cell in entry.cells if cell.identity.defense == defense]
        found = {key_of(cell.identity.model_dump()): cell for cell in own}
        if len(found) < len(own):
            yield f"{defense}: a cell is there twice"
        for key in wanted.keys() - found.keys():
            yield f"{defense}: {key[2]} on {key[1]} weights is missing; run the board to its end"
        for key in found.keys() - wanted.keys():
            yield f"{defense}: the board does not ask for {key[2]} on {key[1]} weights with these settings"
        for key in found.keys() & wanted.keys():
            yield from _identity(found[key], wanted[key], plan)
        if len({tuple(getattr(c.identity, name) for name in _OF_ALL) for c in own}) > 1:
            yield f"{defense}: its cells disagree about its images, steps or parameters"


def _identity(cell: CellFile, wanted: dict[str, Any], plan: Expected) -> Iterator[str]:
    own, place = cell.identity.model_dump(), f"{cell.identity.attack} / {cell.identity.defense}"
    for name, value in own.items():
        asked = wanted.get(name, value)
        if name in _TABLES:
            asked, value = plain(json.loads(asked) if isinstance(asked, str) else asked), plain(value)
        if name != "attack_order" and value != asked:
            yield f"{place}: {name} is {str(value)[:120]!r}, the board's plan has {str(asked)[:120]!r}"
    if plan.cell_id(cell.identity) != cell.identity.cell:
        yield f"{place}: {cell.identity.cell} is not the id of these choices"
    if (cell.of is not None) != (cell.identity.attack_name == "wrong_image"):
        yield f"{place}: only wrong_image borrows its reconstructions"
    if cell.columns is not None and len(cell.columns.image) != plan.plan.images:
        yield f"{place}: {len(cell.columns.image)} images, the board has {plan.plan.images}"
    if cell.status not in ("ok", "skipped") and not cell.reason:
        yield f"{place}: it is {cell.status} without a reason"


def trial_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """Images that the seed deals to other trials, and labels that are not the dataset's."""
    labels = plan.dataset.labels[: plan.plan.images].tolist()
    for cell in entry.cells:
        if cell.columns is None:
            continue
        place = f"{cell.identity.attack} / {cell.identity.defense}"
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
        place = f"{cell.identity.attack} / {cell.identity.defense}"
        lender = by_id.get(cell.of) if cell.of else None
        if cell.of and (lender is None or lender.sheet is None or not _lends(lender, cell)):
            yield f"{place}: it borrows from {cell.of}, which is not the cell that it says"
            continue
        if cell.identification_pool != len(plan.dataset.pool()):
            yield f"{place}: identification_pool is {cell.identification_pool}, not {len(plan.dataset.pool())}"
        yield from (f"{place}: {text}" for text in differences(plan, entry, cell, lender, known))


def _lends(lender: CellFile, cell: CellFile) -> bool:
    own, other = cell.identity, lender.identity
    same = ("defense", "model", "weights", "seed", "labels", "schedule_known", "defense_known", "batch_norm")
    return own.attack_parameters.get("of") == other.attack and all(getattr(own, k) == getattr(other, k) for k in same)


def consistency_faults(entry: Entry) -> Iterator[str]:
    """All attacks of a defense see one update; an attack ends no higher than it began."""
    seen: dict[tuple[object, ...], CellFile] = {}
    for cell in entry.cells:
        if cell.columns is None:
            continue
        own, columns, place = cell.identity, cell.columns, f"{cell.identity.attack} / {cell.identity.defense}"
        first = seen.setdefault((own.defense, own.model, own.weights, own.seed), cell)
        assert first.columns is not None, "it was entered with columns"
        if cell.updates != first.updates or columns.update_norm != first.columns.update_norm:
            yield f"{place}: it attacked another update than {first.identity.attack} did"
        if columns.objective_start is not None and columns.objective_found is not None:
            pairs = zip(columns.objective_start, columns.objective_found, strict=True)
            if any(a is not None and b is not None and b > a + 1e-6 * abs(a) for a, b in pairs):
                yield f"{place}: an objective ends above where it began; attacks keep their best"


def floor_faults(entry: Entry, board: Published) -> Iterator[str]:
    """Floors look at no update: those of one image a client are the same for every defense, others at least as high."""
    undefended = next((other for other in board.entries if "none" in other.defenses), None)
    if undefended is None:
        return
    if entry.defenses != ["none"] and "none" in entry.defenses:
        yield f"the undefended client is the board's entry {undefended.name}; leave it out"
    reference = {key_of(c.identity.model_dump()): c for c in undefended.cells if c.identity.control}
    for cell in entry.cells:
        other = reference.get(key_of(cell.identity.model_dump()))
        if other is None or cell.of or cell.columns is None or other.columns is None:
            continue
        mine, its = cell.columns.ssim, other.columns.ssim
        if mine is None or its is None:
            continue
        gap = float(np.mean(np.array(mine, float)) - np.mean(np.array(its, float)))
        several = cell.identity.images_per_update > 1
        if gap < -FLOOR_TOLERANCE or (gap > FLOOR_TOLERANCE and not several) or gap > 10 * FLOOR_TOLERANCE:
            place = f"{cell.identity.attack} / {cell.identity.defense}"
            yield f"{place}: SSIM {gap:+.3f} from the floor of the undefended client"
