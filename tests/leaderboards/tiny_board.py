"""Boards that run in seconds, and honest entries of them: with pictures to score, trainings, and public images.

Elsewhere: set LEAKBOARD_BOARDS to `BOARDS`, then `publish` into a folder of your own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboards.entries.packing import Author, write_entry
from leakboard import run

BOARDS = Path(__file__).parent / "boards"
PLUGIN = Path(__file__).parents[1] / "plugins" / "sign_compression.py"
PICTURES, TRAININGS, PUBLIC = "tiny-pictures-v1", "tiny-trainings-v1", "tiny-public-v1"
REPOSITORY, COMMIT = "https://example.org/someone/signs", "0" * 40
NOISE = "dp_sgd(noise_multiplier=0.5)"


@dataclass(frozen=True)
class Honest:
    """An entry of a board: its name, and the names of its defenses; a plugin's come with its file."""

    name: str
    board: str
    defenses: tuple[str, ...]
    plugin: Path | None = None


ENTRIES = (
    Honest("undefended", PICTURES, ("none",)),
    Honest("noise", PICTURES, ("dp_sgd",)),
    Honest("several", PICTURES, ("gradient_pruning", "larger_batch")),
    Honest("signs", PICTURES, ("sign_compression",), PLUGIN),
    Honest("undefended", TRAININGS, ("none",)),
    Honest("noise", TRAININGS, ("dp_sgd",)),
    Honest("tens", TRAININGS, ("larger_batch",)),
    Honest("undefended", PUBLIC, ("none",)),
    Honest("pairs", PUBLIC, ("gradient_pruning", "larger_batch")),
)
RUNS = {
    PICTURES: ("none", NOISE, "gradient_pruning(ratio=0.9)", "larger_batch(examples=2)", "sign_compression"),
    TRAININGS: ("none", NOISE, "larger_batch(examples=10)"),
    PUBLIC: ("none", "gradient_pruning(ratio=0.9)", "larger_batch(examples=2)"),
}


def publish(folder: Path, boards: Sequence[str] = (PICTURES, TRAININGS, PUBLIC)) -> Path:
    """Run the boards into `folder` and pack their entries; returns the folder of published entries.

    LEAKBOARD_BOARDS must name `BOARDS`.
    """
    published = folder / "published"
    for board in boards:
        done = run(
            f"board:{board}",
            output=folder / board,
            defenses=RUNS[board],
            plugins=[PLUGIN],
            overrides=["engine.execution=eager", "engine.threads=1"],
        )
        assert done.failed == 0, done.counts()
        for entry in ENTRIES:
            if entry.board == board:
                origin = {"repository": REPOSITORY, "commit": COMMIT, "file": entry.plugin} if entry.plugin else {}
                write_entry(done.folder, published / board, entry.name, Author("Tester", **origin), entry.defenses)
    return published
