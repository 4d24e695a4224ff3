"""Checking an entry by its artefacts alone: nothing of it is imported or run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.errors import ConfigurationError
from leaderboards.board import Board
from leaderboards.checked_cells import cell_faults, consistency_faults, floor_faults, metric_faults, trial_faults
from leaderboards.checked_jobs import job_faults
from leaderboards.entries import Entry
from leaderboards.entry_schema import CellFile
from leaderboards.expected import Expected, expected, plain
from leaderboards.publications import Published


@dataclass
class Report:
    """What a check found: rules that hold, with what was looked at, and faults, each with its rule."""

    held: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    plan: Expected | None = None

    @property
    def ok(self) -> bool:
        return not self.faults

    def ask(self, rule: str, faults: Iterator[str]) -> bool:
        """Enter the faults that a rule finds, or that it holds; returns whether it does."""
        found = list(faults)
        self.faults += [(rule, fault) for fault in found]
        if not found:
            self.held.append(rule)
        return not found


def check(entry: Entry, board: Published, folder: str, plugins: Sequence[Path] = ()) -> Report:
    """Hold an entry that was read, from a folder of this name, to the rules of its board and to its own pictures.

    What depends on a defense that is neither built in nor in `plugins` is held to what the other cells say of it.
    """
    report = Report()
    if not report.ask("it is of this board, and stands alone", _place(entry, board, folder)):
        return report
    try:
        plan = report.plan = expected(board.board.name, entry, plugins)
    except ConfigurationError as error:
        report.faults.append(("its methods can be made with their parameters", str(error)))
        return report
    report.ask("its configuration is the board's", _configuration(entry, plan))
    report.ask("it is within the board's limits", _limits(entry, board.board))
    report.ask("its truth is the board's images", _truth(entry, plan))
    if not report.ask("all cells of the board are there once, with its settings", cell_faults(entry, plan)):
        return report
    report.ask("seeds dealt the images to their trials", trial_faults(entry, plan))
    report.ask("every metric is that of the reconstructions", metric_faults(entry, plan))
    report.ask("objectives and updates agree with each other", consistency_faults(entry))
    report.ask("floors are as high as the undefended entry's", floor_faults(entry, board))
    report.ask("trainings and certificates are the board's, and possible", job_faults(entry, plan))
    return report


def _place(entry: Entry, board: Published, folder: str) -> Iterator[str]:
    manifest = entry.manifest
    if manifest.board_sha256 != board.board.digest:
        yield f"it was made for another file of {manifest.board}: run the board of this Leakboard again, and pack that"
    if folder != entry.name:
        yield f"its folder is named {folder}, its manifest says {entry.name}; give both one name"
    for other in board.entries:
        if other.name != entry.name:
            for shared in sorted(set(other.defenses) & set(entry.defenses)):
                yield f"{shared} is in the entry {other.name} already; rename the defense or its file"


def _configuration(entry: Entry, plan: Expected) -> Iterator[str]:
    wanted, given = plan.config.resolved(), entry.manifest.config
    for section in ("board", "utility", "certificate"):
        if plain(wanted.get(section)) != plain(given.get(section)):
            yield f"[{section}] is not the board's; run the board as it is"
    grid = given.get("grid")
    for key, value in wanted["grid"].items():
        stated = grid.get(key) if isinstance(grid, dict) else None
        if key != "defenses" and plain(stated) != plain(value):
            yield f"grid.{key} is {str(stated)[:80]}, the board's is {str(value)[:80]}; run the board as it is"
    precision = given.get("engine", {}).get("precision") if isinstance(given.get("engine"), dict) else None
    if precision != "float32":
        yield f"engine.precision is {str(precision)[:20]}; entries are made in float32"
    versions = entry.manifest.environment.packages
    for package in ("leakboard", "torch"):
        if not versions.get(package):
            yield f"environment.packages does not say which {package} made it"


def _limits(entry: Entry, board: Board) -> Iterator[str]:
    limits = board.rules.limits
    if len(entry.defenses) > limits.defenses:
        yield f"{len(entry.defenses)} defenses, at most {limits.defenses}; make several entries"
    for cell in _firsts(entry):
        own = cell.identity
        if own.images_per_update > limits.images_per_update:
            yield f"{own.defense}: {own.images_per_update} images of an update, at most {limits.images_per_update}"
        if own.local_steps > limits.local_steps:
            yield f"{own.defense}: {own.local_steps} local steps, at most {limits.local_steps}"


def _truth(entry: Entry, plan: Expected) -> Iterator[str]:
    if not np.array_equal(entry.truth(), plan.truth):
        yield f"its private images are not the first {len(plan.truth)} of {plan.dataset.title}"


def _firsts(entry: Entry) -> list[CellFile]:
    return [next(c for c in entry.cells if c.identity.defense == defense) for defense in entry.defenses]
