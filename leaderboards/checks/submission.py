"""An entry as it is handed in for a check: with its board, its folder, and what the checker gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.registry.registry import Registry
from leaderboards.checks.expected import Expected, Planner, expected
from leaderboards.checks.rerun import held, rerun, sample_reruns
from leaderboards.checks.spot_check import spot_check
from leaderboards.entries.entry import Entry
from leaderboards.entries.published import PUBLISHED, Published
from leaderboards.entries.reviews import Conformance, Rerun, SpotCheck


@dataclass(frozen=True)
class Submission:
    """An entry that was read, and all that its rules are asked with; the plan and re-runs are made when first used."""

    entry: Entry
    board: Published
    folder: Path
    """The folder of the entry."""
    published: Path = PUBLISHED
    """The folder that holds the boards' folders."""
    registry: Registry = field(default_factory=Registry)
    """The methods at hand; a defense that is not here is held to what its cells say."""
    planner: Planner = expected
    base: str | None = None
    """The commit that `changes` were counted from; None where nobody asked."""
    changes: tuple[str, ...] = ()
    """Files that changed since `base` and are not new files of the entry, in words."""
    rerun_count: int = 0
    """Attacks to compute again; 0 computes nothing again."""
    on_rerun: Callable[[str], None] = lambda title: None
    """Told the title of each cell and job before it is computed again."""
    reviewer: str | None = None
    """The name under which a review is to be written."""
    read: str | None = None
    """The reviewer's sentence about the code of the entry's plugin."""

    @cached_property
    def plan(self) -> Expected:
        """The board's plan for this entry; raises ConfigurationError where its methods cannot be made."""
        return self.planner(self.board.board.name, self.entry, self.registry)

    @cached_property
    def undefended(self) -> Entry | None:
        """The board's entry of the undefended client."""
        return next((other for other in self.board.entries if "none" in other.defenses), None)

    @cached_property
    def reruns(self) -> list[Rerun]:
        """Figures drawn now and computed again; raises ConfigurationError where something fails.

        Runs the code of the defense.
        """
        chosen = sample_reruns(self.entry, self.board.board.rules.required, self.rerun_count)
        for cell in chosen.cells:
            own = cell.identity
            self.on_rerun(f"computing again: {own.attack} / {own.defense}, {own.weights} weights")
        return rerun(self.plan, chosen, self.entry, self.registry, self.on_rerun)

    @cached_property
    def conformance(self) -> tuple[Conformance, ...]:
        """The conformance suite over every method of the entry's plugin; nothing on boards of rules 1.

        Built-in defenses are held to it by the tests of this package.
        """
        return () if self.board.board.rules.rules == 1 else held(self.entry, self.registry, self.on_rerun)

    @cached_property
    def spot_checks(self) -> tuple[SpotCheck, ...]:
        """A defense of the plugin on weights and images drawn now; nothing on boards of rules 1."""
        if self.board.board.rules.rules == 1:
            return ()
        return spot_check(self.plan, self.entry, self.registry, self.board.rule, self.on_rerun)

    @property
    def figure_count(self) -> int:
        return len(self.reruns)
