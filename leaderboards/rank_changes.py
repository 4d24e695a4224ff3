"""What an entry would change in the ranks of its board, were it run again and found true."""

from __future__ import annotations

import pandas as pd

from leaderboards.entries import Entry, image_rows, job_rows
from leaderboards.evidence import QUESTION
from leaderboards.price_tables import rank_text
from leaderboards.publications import Published
from leaderboards.ranking import ranking
from leaderboards.summary import records


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
    rows: pd.DataFrame = ranking(image_rows(entries), board.board.rule, job_rows(entries))
    named = ("model", "weights", "labels", "defense")
    assert set(named[:-1]) <= set(QUESTION), "the columns of a question"
    return {
        tuple(row[name] for name in named): (rank_text(row), row["unranked"] or row["incomplete"] or "")
        for row in records(rows)
    }
