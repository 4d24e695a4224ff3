"""One entry checked from its folder to its review, with every rule said as it is decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from leaderboards.changes import change_faults
from leaderboards.entries import Entry, read_entry
from leaderboards.publications import PUBLISHED, Published, published
from leaderboards.rank_changes import rank_changes
from leaderboards.rerun import check_plugin, drawn, fault, rerun
from leaderboards.reviews import Rerun, Review, State, write_review
from leaderboards.submission import Report, check
from leaderboards.untrusted import Refused

SHOWN = 5
"""Faults of one rule that are printed."""


def check_one(
    folder: Path,
    where: Path | None,
    plugins: Sequence[Path],
    count: int,
    base: str | None,
    reviewer: str | None,
    say: Callable[[str], None],
) -> bool:
    """Check the entry in `folder` against what `where` holds; returns whether all rules hold.

    With `count` so many cells are computed again. `reviewer` writes a review, which ranks an entry that was run again.
    """
    say(f"{folder}:")
    try:
        entry = read_entry(folder)
    except Refused as error:
        say(f"  REFUSED  {error}")
        return False
    board = published(entry.manifest.board, where or PUBLISHED)
    report = check(entry, board, folder.resolve().name, plugins)
    if base is not None:
        report.ask(f"nothing else has changed since {base}", change_faults(folder, base))
    reruns: list[Rerun] = []
    if count and report.ok:
        reruns = _run_again(entry, report, plugins, count, say)
    for rule in report.held:
        say(f"  holds    {rule}")
    for rule in dict.fromkeys(rule for rule, _ in report.faults):
        found = [text for broken, text in report.faults if broken == rule]
        say(f"  BROKEN   {rule}:")
        for text in found[:SHOWN]:
            say(f"             {text}")
        if len(found) > SHOWN:
            say(f"             and {len(found) - SHOWN} more")
    if not report.ok:
        return False
    state: State = "re-run" if reruns else "artefact-checked"
    say(f"  {state}; ranks once it is re-run:")
    for line in rank_changes(entry, board):
        say(f"    {line}")
    if reviewer is not None:
        say(f"  {_review(entry, board, where or PUBLISHED, reviewer, state, reruns)}")
    return True


def _run_again(
    entry: Entry, report: Report, plugins: Sequence[Path], count: int, say: Callable[[str], None]
) -> list[Rerun]:
    assert report.plan is not None, "a report without a fault has a plan"
    check_plugin(entry, plugins)
    if not report.plan.known:
        report.faults.append(("it can be run again", "its defense is not built in, and names no plugin"))
        return []
    cells = drawn(entry, count)
    for cell in cells:
        say(f"  running again: {cell.identity.attack} / {cell.identity.defense}, {cell.identity.weights} weights")
    reruns = rerun(report.plan, cells, entry, plugins, lambda text: say(f"  {text}"))
    report.ask(f"{len(reruns)} figures are found again", (text for one in reruns if (text := fault(one)) is not None))
    return reruns


def _review(entry: Entry, board: Published, where: Path, reviewer: str, state: State, reruns: list[Rerun]) -> str:
    """Write the review; an artefact check takes no re-run back. Returns what was done."""
    from bench.provenance import commit

    before = board.reviews.get(entry.name)
    if before is not None and before.state == "re-run" and state != "re-run":
        return f"{entry.name} keeps the review of its re-run"
    review = Review(entry_sha256=entry.digest, state=state, checked_by=reviewer, commit=commit(), reruns=reruns)
    return f"wrote {write_review(where / board.board.name, entry.name, review)}"
