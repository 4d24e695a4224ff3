"""Entries of boards, read from their folders as strangers' data: complete or refused; one sheet of tiles a cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from attacks.threat import switches
from bench.columns import HELD_OUT_FIGURES, JSON
from bench.store.store import (
    JOB_COUNTS,
    JOB_FIGURES,
    JOB_TEXTS,
    LATER_JOB_FIGURES,
    RESULT_COUNTS,
    RESULT_FIGURES,
    typed,
    underpowered,
)
from leaderboards.entries.schema import MOST_KEYS, CellFile, JobRow, Jobs, Manifest
from leaderboards.untrusted.folder import Folder, Refused, read_folder

if TYPE_CHECKING:
    from pandas import DataFrame


def sheet_shape(count: int, tile: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sheet of so many tiles (h w c): about as many columns as rows; (h w) where c is 1."""
    columns = isqrt(count - 1) + 1
    h, w, c = tile
    return (ceil(count / columns) * h, columns * w, *((c,) if c > 1 else ()))


def sheet_of(images: np.ndarray) -> np.ndarray:
    """The sheet of uint8 images (n h w c); tiles that are left over are black."""
    n, h, w, c = images.shape
    sheet = np.zeros(sheet_shape(n, (h, w, c)), dtype=np.uint8)
    for i, image in enumerate(images):
        rows, columns = _cut(i, n, h, w)
        sheet[rows, columns] = image if c > 1 else image[..., 0]
    return sheet


def tiles_of(sheet: np.ndarray, count: int, tile: tuple[int, ...]) -> np.ndarray:
    """The inverse of `sheet_of`: uint8 (n h w c); raises ValueError where the sheet has another shape."""
    wanted = sheet_shape(count, tile)
    if sheet.shape != wanted:
        raise ValueError(f"a sheet of {count} images {tile} has the shape {wanted}, got {sheet.shape}")
    h, w, c = tile
    cut = [sheet[_cut(i, count, h, w)] for i in range(count)]
    return np.stack(cut).reshape(count, h, w, c)


def _cut(i: int, count: int, h: int, w: int) -> tuple[slice, slice]:
    row, column = divmod(i, isqrt(count - 1) + 1)
    return slice(row * h, (row + 1) * h), slice(column * w, (column + 1) * w)


_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Entry:
    """A submission to a board, read from its folder."""

    manifest: Manifest
    cells: tuple[CellFile, ...]
    """Sorted as in a run."""
    jobs: tuple[JobRow, ...]
    digest: str
    """SHA-256 of the manifest, which names the SHA-256 of every other file."""
    files: Folder

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def defenses(self) -> list[str]:
        """The labels of its defenses."""
        return list(dict.fromkeys(cell.identity.defense for cell in self.cells))

    def truth(self) -> np.ndarray:
        """The private images as the entry has them: uint8 (n h w c)."""
        count = max((len(cell.columns.image) for cell in self.cells if cell.columns), default=1)
        return self._tiles(self.manifest.truth, count)

    def images(self, cell: CellFile) -> np.ndarray | None:
        """The reconstructions of a cell, uint8 (n h w c), in the order of image numbers; None without a sheet.

        Of `same_class` all answers about an image follow one another: (n k h w c) flattened.
        """
        if cell.sheet is None or cell.columns is None:
            return None
        return self._tiles(cell.sheet, cell.answers * len(cell.columns.image))

    def _tiles(self, sheet: str, count: int) -> np.ndarray:
        pixels = self.files.png(sheet, sheet_shape(count, self.manifest.tile))
        return tiles_of(pixels, count, self.manifest.tile)


def read_entry(folder: Path) -> Entry:
    """The entry in a folder; raises `Refused` for whatever is not as `entry_schema` says or not whole."""
    files = read_folder(folder)
    manifest = _parsed(files, "entry.json", Manifest)
    there, listed = {name for name in files.names if name != "entry.json"}, set(manifest.files)
    if there != listed:
        what = [f"{name} is not listed" for name in sorted(there - listed)]
        what += [f"{name} is missing" for name in sorted(listed - there)]
        raise Refused(f"entry.json: its `files` and the folder differ: {'; '.join(what[:3])}; pack the run again")
    for name, digest in manifest.files.items():
        if files.digest(name) != digest:
            raise Refused(f"{name}: its SHA-256 is not the one in entry.json; pack the run again")
    if "jobs.json" not in there:
        raise Refused("jobs.json: it is missing; pack the run again")
    cells = [_cell(files, name) for name in sorted(there) if name.startswith("cells/")]
    used = {"jobs.json", manifest.truth, *(f"cells/{c.identity.cell}.json" for c in cells), *(c.sheet for c in cells)}
    if unused := sorted(there - used):
        raise Refused(f"{unused[0]}: no cell shows it; remove it, or pack the run again")
    if absent := sorted(str(name) for name in used - there if name):
        raise Refused(f"{absent[0]}: it is missing; pack the run again")
    order = sorted(cells, key=_place)
    jobs = _parsed(files, "jobs.json", Jobs).jobs
    return Entry(manifest, tuple(order), tuple(jobs), files.digest("entry.json"), files)


def image_rows(entries: Sequence[Entry]) -> DataFrame:
    """One row per attacked image of all entries, as `bench.store.store` has them, and the column `entry`.

    Defenses are in the order of the entries. Raises `Refused` where two entries have a defense of the same label.
    """
    import pandas as pd

    orders = _orders(entries)
    parts: list[DataFrame] = []
    for entry in entries:
        for cell in entry.cells:
            columns = _columns(cell) or {"image": [None]}
            n = len(columns["image"])
            identity = cell.identity.model_dump()
            for key in JSON:
                identity[key] = json.dumps(identity[key])
            identity |= {"defense_order": orders[cell.identity.defense], "entry": entry.name, "status": cell.status}
            identity |= {"reason": cell.reason, "weights_accuracy": cell.weights_accuracy, "device": cell.device}
            pool = cell.identification_pool
            identity |= {"identification_pool": pool, "identification_chance": 1 / pool if pool else None}
            identity["seconds"] = None if cell.seconds is None else cell.seconds / n
            parts.append(pd.DataFrame(columns | identity))
    frame = typed(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(), RESULT_FIGURES, RESULT_COUNTS)
    return frame.assign(underpowered=underpowered(frame["objective_found"], frame["objective_truth"]))


def job_rows(entries: Sequence[Entry]) -> DataFrame:
    """One row per training and certificate of all entries, as `bench.store.store` has them, and the column `entry`."""
    import pandas as pd

    orders, rows = _orders(entries), []
    for entry in entries:
        for job in entry.jobs:
            row: dict[str, Any] = {**job.model_dump(exclude={"texts", "figures"}), **job.texts, **job.figures}
            row["defense_parameters"] = json.dumps(row["defense_parameters"])
            rows.append(row | {"defense_order": orders.get(job.defense, 0), "entry": entry.name})
    columns = ("kind", "job", "dataset", "model", "defense", "defense_name", "seed", "status", "reason")
    frame = typed(
        pd.DataFrame(rows, columns=None if rows else list(columns)), (*JOB_FIGURES, *LATER_JOB_FIGURES), JOB_COUNTS
    )
    for column in JOB_TEXTS:
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None) if column in frame else None
    return frame


def _orders(entries: Sequence[Entry]) -> dict[str, int]:
    orders: dict[str, int] = {}
    owners: dict[str, str] = {}
    for entry in entries:
        for defense in entry.defenses:
            if defense in owners:
                raise Refused(f"{entry.name}: {defense} is in the entry {owners[defense]} already; rename the defense")
            owners[defense] = entry.name
            orders[defense] = len(orders)
    return orders


def _columns(cell: CellFile) -> dict[str, list[Any]]:
    """The columns of a finished cell, one value per image; figures of a control that is not there are no columns."""
    if cell.columns is None:
        return {}
    n, told = len(cell.columns.image), cell.columns.model_dump()
    told["found_label"] = told["found_label"][:: cell.answers]
    told = {name: values for name, values in told.items() if values is not None or name not in HELD_OUT_FIGURES}
    return {name: [None] * n if values is None else values for name, values in told.items()}


def _cell(files: Folder, name: str) -> CellFile:
    cell = _parsed(files, name, CellFile)
    if name != f"cells/{cell.identity.cell}.json":
        raise Refused(f"{name}: it says that it is cell {cell.identity.cell}; pack the run again")
    if (cell.status == "ok") != (cell.columns is not None):
        raise Refused(f"{name}: status {cell.status} and {'no ' * (cell.columns is None)}columns; pack the run again")
    if cell.columns is not None:
        told = cell.columns.model_dump()
        found, lengths = len(told.pop("found_label")), {len(values) for values in told.values() if values is not None}
        if cell.answers == 1:
            lengths.add(found)
        if len(lengths) > 1:
            raise Refused(f"{name}: its columns are {sorted(lengths)} long; every image has one value in each")
        if found != cell.answers * len(cell.columns.image):
            shown = f"{cell.answers} reconstructions of each image"
            raise Refused(f"{name}: found_label is {found} long, and it shows {shown}; pack the run again")
        if not cell.columns.image:
            raise Refused(f"{name}: it shows no image; pack the run again")
        if cell.columns.image != list(range(len(cell.columns.image))):
            raise Refused(f"{name}: its images are not 0, 1, 2, ...: one is missing, doubled or out of order")
        if (cell.sheet is None) == (cell.of is None):
            raise Refused(f"{name}: it needs a sheet, or the cell that it borrows from, and not both")
    return cell


def _place(cell: CellFile) -> tuple[Any, ...]:
    """Untrained weights come first, then what an attack is granted least, as in a run."""
    own = cell.identity
    told = ((switch, getattr(own, switch.name)) for switch in switches())
    granted = [value != switch.default if switch.subject else value for switch, value in told]
    return own.defense, own.model, own.weights != "untrained", own.weights, granted, own.seed, own.attack_order


def _parsed(files: Folder, name: str, model: type[_Model]) -> _Model:
    if name not in files.names:
        raise Refused(f"{name}: it is missing; pack the run again")
    value = files.json(name)
    _check_keys(name, value)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:200]
        got = repr(first["input"])[:80]
        raise Refused(f"{name}: {place}: {first['msg']}, got {got}; pack the run again") from None


def _check_keys(name: str, value: dict[str, Any]) -> None:
    """Refuse an object of very many keys: each that is unknown would be a mistake of its own."""
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if len(item) > MOST_KEYS:
                raise Refused(f"{name}: an object has {len(item)} keys, at most {MOST_KEYS}; pack the run again")
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(inner for inner in item if isinstance(inner, dict | list))
