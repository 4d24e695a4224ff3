"""A board: its file and its rules."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import ConfigurationError, suggest
from bench.grid.reading import GridSource, GridText, list_mistakes, presets
from bench.grid.sections import BoardRules, GridSection, Readings, as_list
from bench.registry.registry import Registry
from leaderboards.evidence.code_reviews import CodeReviews, Reading
from leaderboards.ranking.verdicts import RankingRule

PREFIX = "board:"
"""`board:NAME` is the grid of a board."""
BOARDS = "LEAKBOARD_BOARDS"
"""The environment variable that names a folder of more boards."""
NO_PUBLIC_IMAGES = (
    "The attacks of this board hold no public images, such as others of the same dataset. "
    "An attacker who holds some recovers more than these ranks say."
)
"""The notice of boards from before attacks could hold public images."""


@dataclass(frozen=True)
class Board:
    """A fixed grid without defenses, and the rules by which its entries are ranked."""

    name: str
    text: str
    """Content of its TOML file."""
    rules: BoardRules
    """The table `board` of the file."""
    grid: dict[str, Any]
    """All other tables of the file, unresolved."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file: an entry is made for one board, to the letter."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def notice(self) -> str:
        """A sentence or two for whoever reads its ranks; "" where there is nothing to say."""
        public = as_list(self.grid.get("grid", {}).get("threat", {}).get("public", False))
        return NO_PUBLIC_IMAGES if self.rules.rules == 1 and not any(public) else ""

    @property
    def rule(self) -> RankingRule:
        """The rule that its rankings follow."""
        own = self.rules
        limits = {"margin": own.margin, "minimum_images": own.minimum_images, "alpha": own.alpha}
        return RankingRule(own.required, **limits, rules=own.rules, notice=self.notice)


def boards() -> dict[str, str]:
    """Name -> TOML text of every board, a grid without defenses and a table `board`: ours, then those of BOARDS."""
    ours = files("leaderboards") / "boards"
    names = sorted(file.name for file in ours.iterdir() if file.name.endswith(".toml"))
    found = {name.removesuffix(".toml"): (ours / name).read_text(encoding="utf-8") for name in names}
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


def grid_source(spec: str | Path) -> GridSource:
    """The grid of `board:NAME` as its text; any other name or path as it is. Raises ConfigurationError.

    >>> grid_source("board:fashion-mnist-v1").name
    'fashion-mnist-v1'
    """
    if isinstance(spec, str) and spec.startswith(PREFIX) and spec != PREFIX:
        name = spec.removeprefix(PREFIX)
        known = boards()
        if name not in known:
            raise ConfigurationError(f"unknown board {name!r}; {suggest(name, known)}")
        return GridText(name, known[name], f"{PREFIX}{name}", fixed=True)
    if isinstance(spec, str) and spec not in presets() and not Path(spec).exists() and spec in boards():
        raise ConfigurationError(f"{spec!r} is a board: write {PREFIX}{spec}")
    return spec


def load_board(name: str) -> Board:
    """The board of this name; raises ConfigurationError for another."""
    known = boards()
    if name not in known:
        raise ConfigurationError(f"unknown board {name!r}; {suggest(name, known)}")
    try:
        table = tomllib.loads(known[name])
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"board {name} is not valid TOML: {error}") from error
    grid = _without_rules(table)
    if not isinstance(table.get("board"), dict) or not {"dataset", "images"} <= grid.get("grid", {}).keys():
        raise ConfigurationError(f"board {name} needs a table [board], and a [grid] with dataset and images")
    return Board(name, known[name], _rules(name, table["board"]), grid)


def built_in_defenses() -> frozenset[str]:
    """The names of the defenses whose code is this package's own."""
    return frozenset(own.name for own in Registry().descriptions("defense") if own.origin == "built-in")


def proving_defenses() -> frozenset[str]:
    """The names of the built-in defenses that state a proof."""
    return frozenset(own.name for own in Registry().descriptions("defense") if own.proves)


class _Statements(GridSection):
    """The part of a grid file that says who has read which plugin."""

    reviews: Readings = ()


def rule_of_run(folder: Path) -> RankingRule:
    """The ranking rule of a run, by its board where it is of one, and the statements of its grid file about plugins."""
    try:
        table = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        table = {}
    try:
        # Names are not looked up: when the run was made they were known, and its plugins may be gone.
        stated = _Statements.model_validate({"reviews": table.get("reviews", ())})
    except ValidationError as error:
        raise ConfigurationError(list_mistakes(error, _Statements, str(folder / "run.toml"))) from error
    readings = {own.defense: Reading(own.read_by, own.read) for own in stated.reviews}
    reviews = CodeReviews(built_in_defenses(), proving_defenses(), {} if "board" in table else readings)
    if "board" not in table:
        return RankingRule(reviews=reviews)
    rule = Board(folder.name, "", _rules(str(folder), table["board"]), _without_rules(table)).rule
    return replace(rule, reviews=reviews)


def _without_rules(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "board"}


def _rules(name: str, table: dict[str, Any]) -> BoardRules:
    try:
        return BoardRules.model_validate(table)
    except ValidationError as error:
        raise ConfigurationError(list_mistakes(error, BoardRules, f"board {name}")) from error


def all_boards() -> Iterator[Board]:
    """Every board, by name."""
    return (load_board(name) for name in boards())
