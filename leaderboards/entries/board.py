"""A board: its file and its rules."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import ConfigurationError, suggest
from bench.grid.reading import boards, explain
from bench.grid.sections import Board as Rules
from leaderboards.ranking.verdicts import Rule


@dataclass(frozen=True)
class Board:
    """A board of this name: `text` is its file, `grid` what its file says beside the rules, unresolved."""

    name: str
    text: str
    rules: Rules
    grid: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the file: an entry is made for one board, to the letter."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def rule(self) -> Rule:
        """What its rankings ask for."""
        rules = self.rules
        return Rule(rules.required, rules.margin, rules.minimum_images, alpha=rules.alpha)


def board(name: str) -> Board:
    """The board of this name; raises ConfigurationError for another."""
    known = boards()
    if name not in known:
        raise ConfigurationError(f"unknown board {name!r}; {suggest(name, known)}")
    try:
        table = tomllib.loads(known[name])
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"board {name} is not valid TOML: {error}") from error
    grid = {key: value for key, value in table.items() if key != "board"}
    if not isinstance(table.get("board"), dict) or not {"dataset", "images"} <= grid.get("grid", {}).keys():
        raise ConfigurationError(f"board {name} needs a table [board], and a [grid] with dataset and images")
    return Board(name, known[name], _rules(name, table["board"]), grid)


def rule_of_run(folder: Path) -> Rule | None:
    """What the board asks whose run is in this folder; None of a run of no board."""
    try:
        table = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Board(folder.name, "", _rules(str(folder), table["board"]), {}).rule if "board" in table else None


def _rules(name: str, table: dict[str, Any]) -> Rules:
    try:
        return Rules.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(explain(error, Rules, f"board {name}")) from error


def all_boards() -> Iterator[Board]:
    """Every board, by name."""
    return (board(name) for name in boards())
