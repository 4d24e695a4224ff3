"""One entry checked from its folder to its review: its rules, the files it changes, and the ranks it would change."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from bench.errors import ConfigurationError
from leaderboards.checks.expected import Planner, expected
from leaderboards.checks.rerun import Drawn, check_plugin, drawn, fault, rerun
from leaderboards.checks.rules import Report, check
from leaderboards.entries.entry import Entry, image_rows, job_rows, read_entry
from leaderboards.entries.published import PUBLISHED, Published, published
from leaderboards.entries.reviews import Rerun, Review, State, write_review
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.evidence import QUESTION, questions
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.summary import records
from leaderboards.tables.prices import rank_text
from leaderboards.untrusted.refusals import shown


def change_faults(entry: Path, base: str) -> Iterator[str]:
    """Files that were changed since the commit `base` and are none of the entry's own, in words.

    `entry` is a folder in the clone. Raises ConfigurationError where git cannot say.
    """
    top = Path(_git(entry, "rev-parse", "--show-toplevel").strip())
    own = entry.resolve().relative_to(top.resolve()).as_posix() + "/"
    listed = _git(entry, "diff", "--name-status", "--no-renames", "-z", f"{base}...HEAD").split("\0")
    for kind, name in zip(listed[::2], listed[1::2], strict=False):
        if not name.startswith(own):
            yield f"{name} was {_WORDS.get(kind, 'changed')}: a submission adds one folder and changes nothing else"
        elif kind != "A":
            yield f"{name} was {_WORDS.get(kind, 'changed')}: a published entry stays as it is; give yours another name"


_WORDS = {"A": "added", "D": "removed", "M": "changed", "T": "changed"}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        raise ConfigurationError(f"git cannot compare with the base: {why}; fetch it, or leave --base out") from error
    return done.stdout


def rank_changes(entry: Entry, board: Published) -> list[str]:
    """One line per defense that comes in, or whose rank moves; says so where nobody is ranked."""
    others = [other for other in board.ranked if other.name != entry.name]
    if not any("none" in other.defenses for other in [*others, entry]):
        return ["nobody is ranked until the board's undefended entry, of the defense none, is there and re-run"]
    before = _ranks(others, board)
    after = _ranks([*others, entry], board)
    lines = []
    for key, (rank, why) in after.items():
        question, defense = ", ".join(map(str, key[:-1])), key[-1]
        old, _ = before.get(key, ("new", ""))
        if old != rank or old == "new":
            lines.append(f"{question}: {defense}: {old} -> {rank}{f' ({why})' if why else ''}")
    return lines or ["no rank moves"]


def _ranks(entries: list[Entry], board: Published) -> dict[tuple[object, ...], tuple[str, str]]:
    if not entries:
        return {}
    rows: pd.DataFrame = ranking(questions(image_rows(entries)), board.board.rule, costs_of(job_rows(entries)))
    named = ("model", "weights", "labels", "defense")
    assert set(named[:-1]) <= set(QUESTION), "the columns of a question"
    return {
        tuple(row[name] for name in named): (rank_text(row), row["unranked"] or row["incomplete"] or "")
        for row in records(rows)
    }


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
