"""An entry as a whole, held to its board: where it stands, its limits, its configuration, its private images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from leaderboards.checks.expected import added_attacks, as_json
from leaderboards.checks.submission import Submission
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellFile

MOST_ATTACKS = 20
"""Attacks of one entry beyond the board's."""


def place_faults(submission: Submission) -> Iterator[str]:
    """Another file of the board, another name than the folder's, and a name or defense that is taken already."""
    entry, board = submission.entry, submission.board
    manifest, place = entry.manifest, entry.files.path.resolve()
    if manifest.board_sha256 != board.board.digest:
        yield f"it was made for another file of {manifest.board}: run the board of this Leakboard again, and pack that"
    if submission.folder.name != entry.name:
        yield f"its folder is named {submission.folder.name}, its manifest says {entry.name}; give both one name"
    for other in board.entries:
        if other.name != entry.name:
            for shared in sorted(set(other.defenses) & set(entry.defenses)):
                yield f"{shared} is in the entry {other.name} already; rename the defense or its file"
        elif other.digest != entry.digest and other.files.path.resolve() != place:
            yield f"another entry {entry.name} is published; it stays as it is: give yours another name"


def limit_faults(submission: Submission) -> Iterator[str]:
    """More defenses, images of an update, local steps or attacks than allowed, and attacks all others would need."""
    entry, board = submission.entry, submission.board.board
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


def configuration_faults(submission: Submission) -> Iterator[str]:
    """Keys of the grid file that are not the board's, another precision than float32, and versions left out."""
    manifest = submission.entry.manifest
    wanted, given = submission.plan.config.resolved(), manifest.config
    for section in ("board", "utility", "certificate"):
        if as_json(wanted.get(section)) != as_json(given.get(section)):
            yield f"[{section}] is not the board's; run the board as it is"
    grid = given.get("grid")
    # A key that joined after the board is written only where it is not as always.
    for key in dict.fromkeys([*wanted["grid"], *(grid if isinstance(grid, dict) else ())]):
        value, stated = wanted["grid"].get(key), grid.get(key) if isinstance(grid, dict) else None
        same = _as_set(stated) == _as_set(value) if key == "attacks" else as_json(stated) == as_json(value)
        if key != "defenses" and not same:
            yield f"grid.{key} is {str(stated)[:80]}, the board's is {str(value)[:80]}; run the board as it is"
    precision = given.get("engine", {}).get("precision") if isinstance(given.get("engine"), dict) else None
    if precision != "float32":
        yield f"engine.precision is {str(precision)[:20]}; entries are made in float32"
    versions = manifest.environment.packages
    for package in ("leakboard", "torch"):
        if not versions.get(package):
            yield f"environment.packages does not say which {package} made it"


def truth_faults(submission: Submission) -> Iterator[str]:
    """Private images that are not the board's, or in another order."""
    plan = submission.plan
    if not np.array_equal(submission.entry.truth(), plan.truth):
        yield f"its private images are not the first {len(plan.truth)} of {plan.dataset.title}"


def folder_faults(submission: Submission) -> Iterator[str]:
    """A folder under another board's, and a review that is asked of an entry that is not published."""
    board, published, parent = submission.entry.manifest.board, submission.published, submission.folder.parent
    if submission.reviewer is not None and parent != published.resolve() / board:
        yield f"a review is written beside a published entry: move it to {published / board} first"
    # A folder among published entries is read with those of the board under which it lies.
    elif parent.parent == published.resolve() and parent.name != board:
        yield f"it lies under {parent.name}, but is an entry of {board}; move it"


def _as_set(calls: object) -> object:
    """Attacks that joined the board may stand in any order."""
    return sorted(map(str, calls)) if isinstance(calls, list | tuple) else calls


def _firsts(entry: Entry) -> list[CellFile]:
    return [next(c for c in entry.cells if c.identity.defense == defense) for defense in entry.defenses]
