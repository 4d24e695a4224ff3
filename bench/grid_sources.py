"""The grids that have a name: presets and boards."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from bench.attack_presets import FILE
from bench.errors import ConfigurationError

BOARD = "board"
"""`board:NAME` is the grid of a board."""
BOARDS = "LEAKBOARD_BOARDS"
"""The environment variable that names a folder of more boards."""


def presets() -> dict[str, str]:
    """Name -> TOML text of the grids that come with Leakboard."""
    folder = files("bench") / "presets"
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".toml") and file.name != FILE
    }


def boards() -> dict[str, str]:
    """Name -> TOML text of every board, a grid without defenses and a table `board`: ours, then those of BOARDS."""
    ours = Path(__file__).resolve().parent.parent / "leaderboards" / "boards"
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ours.glob("*.toml"))}
    own = os.environ.get(BOARDS)
    if own and not Path(own).is_dir():
        raise ConfigurationError(f"{BOARDS} = {own} is no folder; set it to a folder of boards, or unset it")
    for path in sorted(Path(own).glob("*.toml")) if own else ():
        if path.stem in found:
            raise ConfigurationError(f"{path}: there is a board {path.stem} already; rename the file")
        try:
            found[path.stem] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read as text: {error}") from error
    return found
