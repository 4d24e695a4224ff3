"""Reviewers' findings about the code of defenses that are not built in: what no attack alone can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from leaderboards.statistics.summary import Row


@dataclass(frozen=True)
class Reading:
    """A statement of somebody who has read the code of a defense."""

    read_by: str
    """The reader's name."""
    read: str
    """One sentence: what the code does."""


@dataclass(frozen=True)
class CodeReview:
    """Everything that the review of a board's entry says of the code of its defenses."""

    reading: Reading | None = None
    """None where nobody has read it."""
    conforms: bool = False
    """True if the conformance suite passed when the entry was run again."""
    outdone: bool = False
    """True if a spot check gained more than the entry does, by more than intervals and luck explain."""


@dataclass(frozen=True)
class CodeReviews:
    """The reviews of all defenses of a run or a board.

    What is built in was read, and is held by the tests of this package: of it nothing is asked.
    """

    built_in: frozenset[str] | None = None
    """The names of built-in defenses; None: no code is asked about."""
    proving: frozenset[str] = frozenset()
    """The names of those that state a proof."""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """By the name of a method: the statements in the grid file of a run of one's own."""
    entries: Mapping[str, CodeReview] | None = None
    """By the label of a defense: the reviews of a board's entries; None of a run of one's own."""

    def foreign(self, row: Row) -> list[str]:
        """The names of the parts of a defense that are not built in."""
        if self.built_in is None:
            return []
        return [name for name in row["defense_name"].split(" | ") if name not in self.built_in]

    def is_unread(self, row: Row, *, proven: bool) -> bool:
        """True if the defense has a part that nobody says to have read.

        A proof stands in for a reader where it is stated by what is built in: a plugin's own is its author's word.
        `proven` is true where the run states one that is not broken.
        """
        if proven and not self.proving.isdisjoint(row["defense_name"].split(" | ")):
            return False
        if self.entries is not None:
            return bool(self.foreign(row)) and self._of(row).reading is None
        return any(name not in self.readings for name in self.foreign(row))

    def is_unheld(self, row: Row) -> bool:
        """True if no re-run has held the defense of a board's entry to the conformance suite, or it broke a rule."""
        return self.entries is not None and bool(self.foreign(row)) and not self._of(row).conforms

    def is_outdone(self, row: Row) -> bool:
        """True if the defense gave more away in a spot check than in its entry."""
        return bool(self.foreign(row)) and self._of(row).outdone

    def _of(self, row: Row) -> CodeReview:
        return (self.entries or {}).get(row["defense"], CodeReview())
