"""A packed entry opened, changed, and closed again with every hash right, so that only the lie is left."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.registry.registry import Registry
from bench.registry.specs import MethodSpec
from leaderboards.checks.cells import _scores
from leaderboards.checks.expected import Choices, Expected, choices, planned
from leaderboards.entries.entry import Entry, read_entry
from leaderboards.entries.packing import Files

Cell = dict[str, Any]
_PLANS: dict[Choices, Expected] = {}


def plan_once(board: str, entry: Entry, registry: Registry) -> Expected:
    """The plan of an entry, made once for all entries that ask for the same."""
    asked = choices(board, entry, registry)
    if asked not in _PLANS:
        _PLANS[asked] = planned(asked, registry)
    return _PLANS[asked]


class Doctor:
    """The entry in `folder`, in memory; `close` writes it back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        read = lambda name: json.loads((folder / name).read_text())
        self.manifest: dict[str, Any] = read("entry.json")
        self.jobs: list[dict[str, Any]] = read("jobs.json")["jobs"]
        self.cells: list[Cell] = [json.loads(path.read_text()) for path in sorted(folder.glob("cells/*.json"))]
        self._sheets = {f"sheets/{path.name}": path.read_bytes() for path in folder.glob("sheets/*.png")}
        self.more: dict[str, bytes] = {}

    def cell(self, attack: str, knows: bool = False, defense: str = "", of: str = "") -> Cell:
        """The first cell of an attack of this name, on a defense whose label begins so."""
        return next(self.all(attack, defense, of, knows))

    def all(self, attack: str = "", defense: str = "", of: str = "", knows: bool | None = None) -> Iterator[Cell]:
        for cell in self.cells:
            own = cell["identity"]
            named = own["attack_name"].startswith(attack) and own["defense"].startswith(defense)
            if named and knows in (None, own["defense_known"]) and of in own["attack"]:
                yield cell

    def job(self, kind: str, seed: int | None = None) -> dict[str, Any]:
        return next(job for job in self.jobs if job["kind"] == kind and seed in (None, job["seed"]))

    def images(self, cell: Cell) -> np.ndarray:
        """The reconstructions of a cell, uint8 (n h w c), as they are in the folder; of `same_class` all answers."""
        entry = read_entry(self.folder)
        return entry.images(next(own for own in entry.cells if own.identity.cell == cell["identity"]["cell"])).copy()

    def truth(self) -> np.ndarray:
        return read_entry(self.folder).truth().copy()

    def sheet(self, images: np.ndarray) -> str:
        files = Files()
        name = files.add_sheet(np.ascontiguousarray(images))
        self._sheets |= files.files
        return name

    def show(self, cell: Cell, images: np.ndarray) -> None:
        """Let a cell, and the control that borrows from it, show these images, all metrics honestly theirs."""
        cell["sheet"] = self.sheet(images)
        borrowers = [own for own in self.cells if own["of"] == cell["identity"]["cell"]]
        self.score(cell, *borrowers)

    def score(self, *cells: Cell) -> None:
        """Compute the metrics of these cells anew, as an honest entrant does."""
        self.close()
        entry = read_entry(self.folder)
        plan = plan_once(self.manifest["board"], entry, Registry())
        by_id = {own.identity.cell: own for own in entry.cells}
        for cell in cells:
            own = by_id[cell["identity"]["cell"]]
            found = _scores(plan, entry, by_id[own.of] if own.of else own, own.columns, own.of is not None)
            for metric, values in found.items():
                if cell["columns"].get(metric) is not None:
                    cell["columns"][metric] = [float(f"{value:.7g}") for value in values]

    def renamed(self, cell: Cell, **changes: Any) -> None:
        """Change a cell's identity, and give it an id that no other has."""
        cell["identity"] |= changes
        cell["identity"]["cell"] = hashlib.sha256(json.dumps(cell["identity"]).encode()).hexdigest()[:16]

    def close(self) -> None:
        files = Files()
        for cell in self.cells:
            files.add_json(f"cells/{cell['identity']['cell']}.json", cell)
        files.add_json("jobs.json", {"jobs": self.jobs})
        used = {self.manifest["truth"], *(cell["sheet"] for cell in self.cells)}
        files.files |= {name: content for name, content in self._sheets.items() if name in used} | self.more
        self.manifest["files"] = files.digests
        files.add_json("entry.json", self.manifest)
        shutil.rmtree(self.folder)
        for name, content in files.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def doctored(honest: Path, target: Path, change: Callable[[Doctor], None]) -> Path:
    """A changed copy of an honest entry as `target`, or where the change has moved it; returns its folder."""
    shutil.copytree(honest, target)
    doctor = Doctor(target)
    change(doctor)
    with suppress(FileNotFoundError):
        doctor.close()
    return doctor.folder


def label_of(name: str, **parameters: Any) -> str:
    return MethodSpec.of(name, parameters).label
