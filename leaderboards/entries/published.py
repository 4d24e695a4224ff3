"""The published entries of a board, and the reviews of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from leaderboards.entries.board import Board, built_in_defenses, load_board, proving_defenses
from leaderboards.entries.entry import Entry, image_rows, job_rows, read_entry
from leaderboards.entries.reviews import Review, read_review
from leaderboards.evidence.code_reviews import CodeReviews
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.untrusted.refusals import Refused, shown

if TYPE_CHECKING:
    from pandas import DataFrame

PUBLISHED = Path("leaderboards") / "published"
"""The folder in which a clone of the project keeps all entries."""


@dataclass(frozen=True)
class Published:
    """A board with its entries and their reviews."""

    board: Board
    entries: tuple[Entry, ...]
    """The entries of the undefended client first, then by name."""
    reviews: dict[str, Review]
    """Name of an entry -> its review, where there is one for this very entry and board."""

    def state(self, entry: str) -> str:
        """`self-reported`, `artefact-checked` or `re-run`."""
        return self.reviews[entry].state if entry in self.reviews else "self-reported"

    @cached_property
    def rule(self) -> RankingRule:
        """The rule that its rankings follow, with what the reviews say of the code of its entries."""
        found = {label: r.of_code for e in self.entries if (r := self.reviews.get(e.name)) for label in e.defenses}
        return replace(self.board.rule, reviews=CodeReviews(built_in_defenses(), proving_defenses(), entries=found))

    @property
    def ranked(self) -> tuple[Entry, ...]:
        """The entries that take part in the ranking."""
        return tuple(entry for entry in self.entries if self.state(entry.name) == "re-run")

    def frames(self, ranked: bool = False) -> tuple[DataFrame, DataFrame]:
        """Rows of images and of jobs, of all entries or of the ranked ones."""
        entries = self.ranked if ranked else self.entries
        return image_rows(entries), job_rows(entries)


def published(name: str, folder: Path = PUBLISHED) -> Published:
    """The entries of a board in `folder`, with their reviews.

    Raises `leaderboards.untrusted.folder.Refused` for an entry that is not whole, and ConfigurationError for an unknown
    board before its name is used as a path.
    """
    found, own = load_board(name), folder / name
    places = sorted(path.parent for path in own.glob("*/entry.json")) if own.is_dir() else []
    entries = [read_entry(place) for place in places]
    for entry in entries:
        if entry.manifest.board != name:
            raise Refused(
                f"{entry.name}: it lies under {name}, but is an entry of {shown(entry.manifest.board)}; move it"
            )
    entries.sort(key=lambda entry: ("none" not in entry.defenses, entry.name))
    # A review is of an entry to this board, to the letter: under other rules nothing was found again.
    current = [entry for entry in entries if entry.manifest.board_sha256 == found.digest]
    reviews = {e.name: review for e in current if (review := read_review(own, e)) is not None}
    return Published(found, tuple(entries), reviews)
