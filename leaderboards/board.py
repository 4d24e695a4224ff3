"""A board: its file and its rules."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.board_settings import Board as Rules
from bench.errors import ConfigurationError, suggest
from bench.grid_sources import boards
from leaderboards.verdicts import Rule


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
    table = tomllib.loads(known[name])
    return Board(
        name, known[name], Rules.model_validate(table["board"]), {k: v for k, v in table.items() if k != "board"}
    )


def all_boards() -> Iterator[Board]:
    """Every board, by name."""
    return (board(name) for name in boards())
