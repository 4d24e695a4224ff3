"""Checking an entry by its artefacts alone: nothing of it is imported or run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.errors import ConfigurationError
from leaderboards.checks.cells import cell_faults, consistency_faults, metric_faults, trial_faults
from leaderboards.checks.expected import Expected, Planner, added_attacks, expected, plain
from leaderboards.checks.floors import floor_faults, reference_faults, undefended
from leaderboards.checks.jobs import job_faults
from leaderboards.entries.board import Board
from leaderboards.entries.entry import Entry
from leaderboards.entries.published import Published
from leaderboards.entries.schema import CellFile

MOST_ATTACKS = 20
"""Attacks of one entry beyond the board's."""
PLACE = "it is of this board, and stands alone"
LIMITS = "it is within the board's limits"
METHODS = "its methods can be made with their parameters"
CONFIGURATION = "its configuration is the board's"
TRUTH = "its truth is the board's images"
CELLS = "all cells of the board are there once, with its settings"
TRIALS = "seeds dealt the images to their trials"
METRICS = "every metric is that of the reconstructions"
CONSISTENCY = "objectives and updates agree with each other"
REFERENCE = "objectives and weights are of the kind that the undefended entry has"
FLOORS = "floors are as high as the undefended entry's"
JOBS = "trainings and certificates are the board's, and possible"


@dataclass
class Report:
    """What a check found: rules that hold, rules that nothing could be held to, and faults, each with its rule."""

    held: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    plan: Expected | None = None

    @property
    def ok(self) -> bool:
        return not self.faults

    def ask(self, rule: str, faults: Iterable[str]) -> bool:
        """Enter the faults that a rule finds, or that it holds; returns whether it does.

        What cannot be looked at, such as a picture of another size, is a fault too.
        """
        found: list[str] = []
        try:
            found.extend(faults)
        except ConfigurationError as error:
            found.append(str(error))
        self.faults += [(rule, fault) for fault in found]
        if not found:
            self.held.append(rule)
        return not found


def check(
    entry: Entry, board: Published, folder: str, plugins: Sequence[Path] = (), planner: Planner = expected
) -> Report:
    """Hold an entry that was read, from a folder of this name, to the rules of its board and to its own pictures.

    What depends on a defense that is neither built in nor in `plugins` is held to what the other cells say of it.
    """
    report = Report()
    if not report.ask(PLACE, _place(entry, board, folder)) or not report.ask(LIMITS, _limits(entry, board.board)):
        return report
    _load_images(board.board)  # Where they are missing that is no fault of the entry.
    try:
        plan = report.plan = planner(board.board.name, entry, plugins)
    except ConfigurationError as error:
        report.faults.append((METHODS, str(error)))
        return report
    report.ask(CONFIGURATION, _configuration(entry, plan))
    # The others need images and cells that are in order.
    if not report.ask(TRUTH, _truth(entry, plan)) or not report.ask(CELLS, cell_faults(entry, plan)):
        return report
    report.ask(TRIALS, trial_faults(entry, plan))
    report.ask(METRICS, metric_faults(entry, plan))
    report.ask(CONSISTENCY, consistency_faults(entry))
    if "none" in entry.defenses or undefended(board) is not None:
        report.ask(REFERENCE, reference_faults(entry, board))
        report.ask(FLOORS, floor_faults(entry, board))
    else:
        report.open += [REFERENCE, FLOORS]
    report.ask(JOBS, job_faults(entry, plan))
    return report


def _place(entry: Entry, board: Published, folder: str) -> Iterator[str]:
    manifest, place = entry.manifest, entry.files.path.resolve()
    if manifest.board_sha256 != board.board.digest:
        yield f"it was made for another file of {manifest.board}: run the board of this Leakboard again, and pack that"
    if folder != entry.name:
        yield f"its folder is named {folder}, its manifest says {entry.name}; give both one name"
    for other in board.entries:
        if other.name != entry.name:
            for shared in sorted(set(other.defenses) & set(entry.defenses)):
                yield f"{shared} is in the entry {other.name} already; rename the defense or its file"
        elif other.digest != entry.digest and other.files.path.resolve() != place:
            yield f"another entry {entry.name} is published; it stays as it is: give yours another name"


def _configuration(entry: Entry, plan: Expected) -> Iterator[str]:
    wanted, given = plan.config.resolved(), entry.manifest.config
    for section in ("board", "utility", "certificate"):
        if plain(wanted.get(section)) != plain(given.get(section)):
            yield f"[{section}] is not the board's; run the board as it is"
    grid = given.get("grid")
    for key, value in wanted["grid"].items():
        stated = grid.get(key) if isinstance(grid, dict) else None
        same = _as_set(stated) == _as_set(value) if key == "attacks" else plain(stated) == plain(value)
        if key != "defenses" and not same:
            yield f"grid.{key} is {str(stated)[:80]}, the board's is {str(value)[:80]}; run the board as it is"
    precision = given.get("engine", {}).get("precision") if isinstance(given.get("engine"), dict) else None
    if precision != "float32":
        yield f"engine.precision is {str(precision)[:20]}; entries are made in float32"
    versions = entry.manifest.environment.packages
    for package in ("leakboard", "torch"):
        if not versions.get(package):
            yield f"environment.packages does not say which {package} made it"


def _as_set(calls: object) -> object:
    """Attacks that joined the board may stand in any order."""
    return sorted(map(str, calls)) if isinstance(calls, list | tuple) else calls


def _limits(entry: Entry, board: Board) -> Iterator[str]:
    limits, required, images = board.rules.limits, board.rules.required, board.grid["grid"]["images"]
    if len(entry.defenses) > limits.defenses:
        yield f"{len(entry.defenses)} defenses, at most {limits.defenses}; make several entries"
    for own in (cell.identity for cell in _firsts(entry)):
        if own.images_per_update > limits.images_per_update or images % own.images_per_update:
            most = f"at most {limits.images_per_update}, and a divisor of {images}"
            yield f"{own.defense}: {own.images_per_update} images of an update, {most}"
        if own.local_steps > limits.local_steps:
            yield f"{own.defense}: {own.local_steps} local steps, at most {limits.local_steps}"
    own_sizes = {(cell.identity.defense, cell.identity.images_per_update) for cell in entry.cells}
    if len(own_sizes) > len(entry.defenses):
        yield "the cells of a defense disagree about the images of an update"
    more = added_attacks(entry, required)
    if len(more) > MOST_ATTACKS:
        yield f"{len(more)} attacks beyond the board's, at most {MOST_ATTACKS}"
    for label, name in ((label, own.attack_name) for label, own in more.items()):
        if name in required:  # A rule that asks for a name asks for all its variants, of everybody.
            yield f"{label} would be required of every entry, as the board asks for {name}: leave it out"


def _truth(entry: Entry, plan: Expected) -> Iterator[str]:
    if not np.array_equal(entry.truth(), plan.truth):
        yield f"its private images are not the first {len(plan.truth)} of {plan.dataset.title}"


def _firsts(entry: Entry) -> list[CellFile]:
    return [next(c for c in entry.cells if c.identity.defense == defense) for defense in entry.defenses]


def _load_images(board: Board) -> None:
    """Raise ConfigurationError where this machine has not the images of the board."""
    from bench.data.load import load_dataset

    asked = board.grid["grid"]["dataset"]
    load_dataset(**(asked if isinstance(asked, dict) else {"name": asked}))
