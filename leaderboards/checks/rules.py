"""The table of rules that an entry is held to, and the check that asks them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from bench.errors import ConfigurationError
from leaderboards.checks.board import (
    configuration_faults,
    folder_faults,
    limit_faults,
    place_faults,
    truth_faults,
)
from leaderboards.checks.cells import cell_faults, consistency_faults, metric_faults, trial_faults
from leaderboards.checks.floors import floor_faults, reference_faults
from leaderboards.checks.jobs import job_faults
from leaderboards.checks.rerun import check_plugin, fault
from leaderboards.checks.submission import Submission
from leaderboards.entries.board import Board


@dataclass(frozen=True)
class Need:
    """Something without which a rule cannot be asked."""

    words: str
    """A noun, for documents."""
    at_hand: Callable[[Submission, Report], bool]
    """Tells whether it is there, by the submission and by what the earlier rules found."""
    reason: str = ""
    """Says why a rule without it stays open; empty where a broken rule says it, or nobody asked for it."""


@dataclass(frozen=True)
class EntryRule:
    """Something that an entry promises, and how it is held to it.

    `check` finds the faults of a submission; the first sentence of its docstring lists them for documents. What it
    cannot look at, such as a picture of another size, is a ConfigurationError and a fault as well.
    """

    name: str
    promise: str
    """A sentence about the entry, printed; `{submission}` is filled in when the rule was asked."""
    check: Callable[[Submission], Iterable[str]]
    needs: tuple[Need, ...]
    silent: bool = False
    """Prints nothing where it holds: it makes what later rules need, and they say the rest."""


@dataclass(frozen=True)
class RuleAnswer:
    """The answer of one rule: `faults` break it, a `reason` leaves it open, and without both it holds."""

    rule: EntryRule
    promise: str
    faults: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """The answers of all rules that could be asked, in the order of the table."""

    answers: tuple[RuleAnswer, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.broken

    @property
    def broken(self) -> list[RuleAnswer]:
        return [one for one in self.answers if one.faults]

    @property
    def open(self) -> list[RuleAnswer]:
        return [one for one in self.answers if one.reason]

    @property
    def held(self) -> list[RuleAnswer]:
        return [one for one in self.answers if not one.faults and not one.reason]

    def holds(self, name: str) -> bool:
        """True if the rule of this name was asked and holds."""
        return any(one.rule.name == name for one in self.held)


def check_rules(submission: Submission) -> Report:
    """Hold a submission to every rule whose needs are at hand.

    Raises ConfigurationError where this machine has not the images of the board: that is no fault of the entry.
    """
    report = Report()
    for rule in ENTRY_RULES:
        if (answer := _ask(rule, submission, report)) is not None:
            report = replace(report, answers=(*report.answers, answer))
    return report


def _ask(rule: EntryRule, submission: Submission, report: Report) -> RuleAnswer | None:
    """The answer of one rule; None where something is missing for which there is no reason to give."""
    missing = next((need for need in rule.needs if not need.at_hand(submission, report)), None)
    if missing is not None and not missing.reason:
        return None
    faults: list[str] = []
    if missing is None:
        try:
            faults.extend(rule.check(submission))
        except ConfigurationError as error:
            faults.append(str(error))
    promise, reason = rule.promise.format(submission=submission), missing.reason if missing is not None else ""
    return RuleAnswer(rule, promise, tuple(faults), reason)


def method_faults(submission: Submission) -> Iterable[str]:
    """Methods that do not take their parameters, or that ask for more work than they say."""
    _ = submission.plan
    return ()


def change_faults(submission: Submission) -> Iterable[str]:
    """Files that changed since the commit and are not new files of the entry."""
    return submission.changes


def code_faults(submission: Submission) -> Iterator[str]:
    """Code of a defense that is not at hand, or not as it was submitted."""
    check_plugin(submission.entry, submission.registry)
    if unknown := sorted(set(submission.entry.defenses) - submission.plan.known):
        yield f"{unknown[0]} is neither built in nor in a file given with --plugin"


def rerun_faults(submission: Submission) -> Iterable[str]:
    """Attacks, trainings and certificates that fail, or have no figure, when they are computed again."""
    _ = submission.reruns, submission.conformance, submission.spot_checks
    return ()


def figure_faults(submission: Submission) -> Iterable[str]:
    """Figures that are further from the submitted ones than another machine explains."""
    return filter(None, map(fault, submission.reruns))


def _after(name: str) -> Callable[[Submission, Report], bool]:
    """A test that is True if the rule of this name holds."""
    return lambda submission, report: report.holds(name)


def _has_images(board: Board) -> bool:
    """True; raises ConfigurationError where this machine has not the images of the board."""
    from bench.data.load import load_dataset

    asked = board.grid["grid"]["dataset"]
    load_dataset(**(asked if isinstance(asked, dict) else {"name": asked}))
    return True


ENTRY = Need("the entry and what is published", lambda submission, report: True)
BOARD_FILE = Need("the board's file", _after("place"))
IMAGES = Need(
    "the board's images", lambda submission, report: report.holds("limits") and _has_images(submission.board.board)
)
PLAN = Need("the board's plan for its methods", _after("methods"))
TRUTH = Need("the private images", _after("truth"))
CELLS = Need("cells that are the plan's", _after("cells"))
UNDEFENDED_ENTRY = Need(
    "the undefended entry",
    lambda submission, report: "none" in submission.entry.defenses or submission.undefended is not None,
    reason="there is no undefended entry to compare with; give the --published that has it",
)
BASE = Need("a commit, by `--base`", lambda submission, report: submission.base is not None)
RERUN = Need("`--rerun`, and no broken rule", lambda submission, report: submission.rerun_count > 0 and report.ok)
CODE = Need("the defense's code", _after("code"))
RERUN_FIGURES = Need("figures computed again", _after("rerun"))

# The order is that of the lines printed. A rule may use what the rules that its needs come after have looked at:
# cells are compared with a plan that exists, metrics with cells that are complete.
ENTRY_RULES = (
    EntryRule("place", "it is of this board, and stands alone", place_faults, (ENTRY,)),
    EntryRule("limits", "it is within the board's limits", limit_faults, (BOARD_FILE,)),
    EntryRule("methods", "its methods can be made with their parameters", method_faults, (IMAGES,), silent=True),
    EntryRule("configuration", "its configuration is the board's", configuration_faults, (PLAN,)),
    EntryRule("truth", "its truth is the board's images", truth_faults, (PLAN,)),
    EntryRule("cells", "all cells of the board are there once, with its settings", cell_faults, (PLAN, TRUTH)),
    EntryRule("trials", "seeds dealt the images to their trials", trial_faults, (CELLS,)),
    EntryRule("metrics", "every metric is that of the reconstructions", metric_faults, (CELLS,)),
    EntryRule("consistency", "objectives and updates agree with each other", consistency_faults, (CELLS,)),
    EntryRule(
        "reference",
        "objectives and weights are of the kind that the undefended entry has",
        reference_faults,
        (CELLS, UNDEFENDED_ENTRY),
    ),
    EntryRule("floors", "floors are as high as the undefended entry's", floor_faults, (CELLS, UNDEFENDED_ENTRY)),
    EntryRule("jobs", "trainings and certificates are the board's, and possible", job_faults, (CELLS,)),
    EntryRule("folder", "it lies under its board", folder_faults, (ENTRY,)),
    EntryRule("changes", "nothing else has changed since {submission.base}", change_faults, (BASE,)),
    EntryRule("code", "it can be run again", code_faults, (RERUN,), silent=True),
    EntryRule("rerun", "it can be run again", rerun_faults, (CODE,), silent=True),
    EntryRule("figures", "{submission.figure_count} figures are found again", figure_faults, (RERUN_FIGURES,)),
)
