"""One entry checked from its folder to its review, with every rule said as it is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.errors import ConfigurationError
from leaderboards.changes import change_faults
from leaderboards.compared import fault
from leaderboards.entries import Entry, read_entry
from leaderboards.expected import Planner, expected
from leaderboards.publications import PUBLISHED, Published, published
from leaderboards.rank_changes import rank_changes
from leaderboards.refusals import shown
from leaderboards.rerun import Drawn, check_plugin, drawn, rerun
from leaderboards.reviews import Rerun, Review, State, write_review
from leaderboards.submission import Report, check

SHOWN, LONGEST = 5, 400
"""Faults of one rule that are printed, and characters of one."""
AGAIN = "it can be run again"


def check_one(
    folder: Path,
    where: Path | None,
    plugins: Sequence[Path],
    count: int,
    base: str | None,
    reviewer: str | None,
    say: Callable[[str], None],
    planner: Planner = expected,
) -> bool:
    """Check the entry in `folder` against what `where` holds; returns whether all rules hold.

    With `count` so many cells are computed again. `reviewer` writes a review, which ranks an entry that was run again.
    Whatever a stranger wrote is said in ASCII, cut.
    """
    # Before anything is read: what git cannot compare is no fault of the entry.
    changes = None if base is None or not folder.is_dir() else list(change_faults(folder, base))
    say(f"{shown(str(folder), LONGEST)}:")
    try:
        entry = read_entry(folder)
        board = published(entry.manifest.board, where or PUBLISHED)
    except ConfigurationError as error:
        say(f"  REFUSED  {shown(str(error), LONGEST)}")
        return False
    report = check(entry, board, folder.resolve().name, plugins, planner)
    report.ask("it lies under its board", _lies(folder.resolve(), entry, where or PUBLISHED, reviewer))
    if changes is not None:
        report.ask(f"nothing else has changed since {base}", iter(changes))
    reruns: list[Rerun] = []
    if count and report.ok:
        reruns = _run_again(entry, board, report, plugins, count, say)
    _say_rules(report, say)
    if not report.ok:
        if reviewer is not None:
            say(f"  {_take_back(entry, board, where or PUBLISHED, reviewer, reruns)}")
        return False
    # What was compared with no undefended entry ranks nobody.
    state: State = "re-run" if reruns and not report.open else "artefact-checked"
    say(f"  {state}; ranks{'' if state == 're-run' else ' once it is re-run'}:")
    for line in rank_changes(entry, board):
        say(f"    {shown(line, LONGEST)}")
    if reviewer is not None:
        say(f"  {_review(entry, board, where or PUBLISHED, reviewer, state, reruns)}")
    return True


def _say_rules(report: Report, say: Callable[[str], None]) -> None:
    for rule in report.held:
        say(f"  holds    {rule}")
    for rule in report.open:
        say(f"  open     {rule}: there is no undefended entry to compare with; give the --published that has it")
    for rule in dict.fromkeys(rule for rule, _ in report.faults):
        found = [text for broken, text in report.faults if broken == rule]
        say(f"  BROKEN   {rule}:")
        for text in found[:SHOWN]:
            say(f"             {shown(text, LONGEST)}")
        if len(found) > SHOWN:
            say(f"             and {len(found) - SHOWN} more")


def _lies(folder: Path, entry: Entry, where: Path, reviewer: str | None) -> list[str]:
    """A folder among published entries is read with those of the board under which it lies; a review lies beside it."""
    parent = folder.parent
    if reviewer is not None and parent != where.resolve() / entry.manifest.board:
        return [f"a review is written beside a published entry: move it to {where / entry.manifest.board} first"]
    if parent.parent == where.resolve() and parent.name != entry.manifest.board:
        return [f"it lies under {parent.name}, but is an entry of {entry.manifest.board}; move it"]
    return []


def _run_again(
    entry: Entry, board: Published, report: Report, plugins: Sequence[Path], count: int, say: Callable[[str], None]
) -> list[Rerun]:
    """What was drawn and computed again; whatever keeps that from being done is entered as a fault."""
    assert report.plan is not None, "a report without a fault has a plan"
    try:
        check_plugin(entry, plugins)
        if unknown := sorted(set(entry.defenses) - report.plan.known):
            raise ConfigurationError(f"{unknown[0]} is neither built in nor in a file given with --plugin")
        chosen = drawn(entry, board.board.rules.required, count)
        _say_drawn(chosen, say)
        reruns = rerun(report.plan, chosen, entry, plugins, lambda text: say(f"  {shown(text, LONGEST)}"))
    except ConfigurationError as error:
        report.faults.append((AGAIN, str(error)))
        return []
    report.ask(f"{len(reruns)} figures are found again", filter(None, map(fault, reruns)))
    return reruns


def _say_drawn(chosen: Drawn, say: Callable[[str], None]) -> None:
    for cell in chosen.cells:
        own = cell.identity
        say(f"  computing again: {shown(f'{own.attack} / {own.defense}, {own.weights} weights', LONGEST)}")


def _review(entry: Entry, board: Published, where: Path, reviewer: str, state: State, reruns: list[Rerun]) -> str:
    """Write the review; an artefact check takes no re-run back. Returns what was done."""
    before = board.reviews.get(entry.name)
    if before is not None and before.state == "re-run" and state != "re-run":
        return f"{entry.name} keeps the review of its re-run"
    return f"wrote {_written(entry, board, where, reviewer, state, reruns)}"


def _take_back(entry: Entry, board: Published, where: Path, reviewer: str, reruns: list[Rerun]) -> str:
    """An entry that breaks a rule, or is not found again, loses the state that an earlier review gave it."""
    if entry.name not in board.reviews or board.reviews[entry.name].entry_sha256 != entry.digest:
        return "no review is written"
    return f"self-reported again: {_written(entry, board, where, reviewer, 'self-reported', reruns)}"


def _written(entry: Entry, board: Published, where: Path, reviewer: str, state: State, reruns: list[Rerun]) -> Path:
    from bench.provenance import commit

    review = Review(entry_sha256=entry.digest, state=state, checked_by=reviewer, commit=commit(), reruns=reruns)
    return write_review(where / board.board.name, entry.name, review)
