"""One entry checked from its folder to its review: its rules, the files it changes, and the ranks it would change."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from attacks.threat import switches
from bench.columns import QUESTION
from bench.errors import ConfigurationError
from bench.registry.registry import Registry
from leaderboards.checks.expected import Planner, expected
from leaderboards.checks.rules import Report, check_rules
from leaderboards.checks.submission import Submission
from leaderboards.entries.entry import Entry, image_rows, job_rows, read_entry
from leaderboards.entries.published import PUBLISHED, Published, published
from leaderboards.entries.reviews import EntryState, Review, SpotCheck, write_review
from leaderboards.evidence.code_reviews import CodeReview, Reading
from leaderboards.evidence.question import questions
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking, rule_set_of
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.tables.exports import verdict_words
from leaderboards.tables.prices import rank_text
from leaderboards.untrusted.refusals import shown


def changed_files(entry: Path, base: str) -> Iterator[str]:
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


def rank_changes(entry: Entry, board: Published, code: CodeReview | None = None) -> list[str]:
    """One line per defense that comes in, or whose rank moves; says so where nobody is ranked.

    `code` is what the entry's review is to say of its code; None where it says what it did before.
    """
    others = [other for other in board.ranked if other.name != entry.name]
    if not any("none" in other.defenses for other in [*others, entry]):
        return ["nobody is ranked until the board's undefended entry, of the defense none, is there and re-run"]
    rule, known = board.rule, dict(board.rule.reviews.entries or {})
    before = _ranks(others, rule)
    if code is not None:
        known |= dict.fromkeys(entry.defenses, code)
    after = _ranks([*others, entry], replace(rule, reviews=replace(rule.reviews, entries=known)))
    lines = []
    for key, (rank, why) in after.items():
        question, defense = _question_text(dict(zip(QUESTION, key, strict=False))), key[-1]
        old, _ = before.get(key, ("new", ""))
        if old != rank or old == "new":
            lines.append(f"{question}: {defense}: {old} -> {rank}{f' ({why})' if why else ''}")
    return lines or ["no rank moves"]


def _ranks(entries: list[Entry], rule: RankingRule) -> dict[tuple[object, ...], tuple[str, str]]:
    if not entries:
        return {}
    standings = ranking(questions(image_rows(entries)), rule, costs_of(job_rows(entries)))
    return {
        (*(own.question.row[name] for name in QUESTION), own.defense): (
            rank_text(own.rank),
            own.unranked or own.incomplete or ", ".join(verdict_words(own.verdicts & rule_set_of(rule).unranked)),
        )
        for own in standings
    }


def _question_text(question: dict[str, object]) -> str:
    """The model, weights and labels of a question, and what else of the threat model is not as usual."""
    said = ("model", "weights", "labels")
    unusual = (s.name for s in switches() if s.name not in said and question.get(s.name, s.default) != s.default)
    return ", ".join([*(str(question[name]) for name in said), *(f"{name} = {question[name]}" for name in unusual)])


SHOWN_FAULTS, LONGEST_LINE = 5, 400
"""Faults of one rule that are printed, and characters of one line."""


def check_one(
    folder: Path,
    where: Path | None,
    registry: Registry,
    count: int,
    base: str | None,
    reviewer: str | None,
    say: Callable[[str], None],
    planner: Planner = expected,
    read: str | None = None,
) -> bool:
    """Check the entry in `folder` against what `where` holds; returns whether all rules hold.

    With `count` so many cells are computed again. `reviewer` writes a review, which ranks an entry that was run again;
    `read` is the reviewer's sentence about its code.
    Whatever a stranger wrote is said in ASCII, cut.
    """
    # Before anything is read: what git cannot compare is no fault of the entry.
    changes = () if base is None or not folder.is_dir() else tuple(changed_files(folder, base))
    say(f"{shown(str(folder), LONGEST_LINE)}:")
    try:
        entry = read_entry(folder)
        board = published(entry.manifest.board, where or PUBLISHED)
    except ConfigurationError as error:
        say(f"  REFUSED  {shown(str(error), LONGEST_LINE)}")
        return False
    submission = Submission(
        entry,
        board,
        folder.resolve(),
        published=where or PUBLISHED,
        registry=registry,
        planner=planner,
        base=base,
        changes=changes,
        rerun_count=count,
        on_rerun=lambda title: say(f"  {shown(title, LONGEST_LINE)}"),
        reviewer=reviewer,
        read=read,
    )
    report = check_rules(submission)
    _say_rules(report, say)
    has_run = report.holds("rerun")
    for spot in submission.spot_checks if has_run else ():
        told = f"spot check of {spot.defense}: gain {spot.gain:.3f}, at least {spot.low:.3f}, {spot.weights}; "
        told += f"the entry shows {spot.entry_gain:.3f}, at most {spot.entry_high:.3f}"
        told += "; there are too few others: the board's own images are among the attacked" if spot.own_images else ""
        say(f"  {'OUTDONE ' if spot.outdone else 'holds   '} {shown(told, LONGEST_LINE)}")
    if not report.ok:
        if reviewer is not None:
            say(f"  {_take_back(submission, reviewer, has_run)}")
        return False
    # An entry that was compared with no undefended one ranks nobody.
    state: EntryState = "re-run" if has_run and submission.reruns and not report.open else "artefact-checked"
    say(f"  {state}; ranks{'' if state == 're-run' else ' once it is re-run'}:")
    review = _made(submission, reviewer or "nobody", state, has_run)
    for line in rank_changes(entry, board, review.of_code if state == "re-run" else None):
        say(f"    {shown(line, LONGEST_LINE)}")
    if reviewer is not None:
        say(f"  {_review(submission, review)}")
    return True


def _say_rules(report: Report, say: Callable[[str], None]) -> None:
    for one in report.held:
        if not one.rule.silent:
            say(f"  holds    {one.promise}")
    for one in report.open:
        say(f"  open     {one.promise}: {one.reason}")
    for one in report.broken:
        say(f"  BROKEN   {one.promise}:")
        for text in one.faults[:SHOWN_FAULTS]:
            say(f"             {shown(text, LONGEST_LINE)}")
        if len(one.faults) > SHOWN_FAULTS:
            say(f"             and {len(one.faults) - SHOWN_FAULTS} more")


def _review(submission: Submission, review: Review) -> str:
    """Write the review, but let an artefact check take no re-run back; returns what was done, in words."""
    name = submission.entry.name
    before = submission.board.reviews.get(name)
    if before is not None and before.state == "re-run" and review.state != "re-run":
        return f"{name} keeps the review of its re-run"
    return f"wrote {_written(submission, review)}{_kept_text(submission)}"


def _take_back(submission: Submission, reviewer: str, has_run: bool) -> str:
    """Take back the state that an earlier review gave an entry that breaks a rule; returns what was done, in words."""
    entry, reviews = submission.entry, submission.board.reviews
    if entry.name not in reviews or reviews[entry.name].entry_sha256 != entry.digest:
        return "no review is written"
    review = _made(submission, reviewer, "self-reported", has_run)
    return f"self-reported again: {_written(submission, review)}{_kept_text(submission)}"


def _made(submission: Submission, reviewer: str, state: EntryState, has_run: bool) -> Review:
    """The review of what was found; what is computed again is there where that `has_run`.

    While the entry stays as it is, so does what an earlier review says that no re-run finds again: who has read the
    code, unless somebody has now, and the spot checks. A defense that was outdone once could else be drawn anew.
    """
    from bench.provenance import commit

    reading, spot_checks = _kept(submission)
    if submission.read:
        reading = Reading(reviewer, submission.read)
    return Review(
        entry_sha256=submission.entry.digest,
        state=state,
        checked_by=reviewer,
        commit=commit(),
        reruns=submission.reruns if has_run else [],
        read_by=reading and reading.read_by,
        read=reading and reading.read,
        conformance=submission.conformance if has_run else (),
        spot_checks=(*spot_checks, *(submission.spot_checks if has_run else ())),
    )


def _kept(submission: Submission) -> tuple[Reading | None, tuple[SpotCheck, ...]]:
    """The reading and the spot checks of an earlier review of this very entry, which the next one keeps."""
    before = submission.board.reviews.get(submission.entry.name)
    if before is None or before.entry_sha256 != submission.entry.digest:
        return None, ()
    return before.of_code.reading, before.spot_checks


def _kept_text(submission: Submission) -> str:
    """Words about everything that a review keeps of the one before; "" where that is nothing."""
    reading, spot_checks = _kept(submission)
    said = [f"that {reading.read_by} has read the code"] if reading and not submission.read else []
    if spot_checks:
        outdone = sum(own.outdone for own in spot_checks)
        said.append(f"{len(spot_checks)} earlier spot check{'s' * (len(spot_checks) > 1)}, {outdone} outdone")
    return f", which keeps {' and '.join(said)}" if said else ""


def _written(submission: Submission, review: Review) -> Path:
    return write_review(submission.published / submission.board.board.name, submission.entry.name, review)
