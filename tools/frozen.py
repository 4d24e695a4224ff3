"""Writes tests/leaderboards/frozen.json: the ids and ranks that frozen boards had when they were frozen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from bench.columns import QUESTION, as_published
from bench.registry.registry import Registry
from bench.registry.specs import chain_label
from leaderboards.checks.expected import Choices, chain_of, planned
from leaderboards.entries.published import PUBLISHED, Published, published
from leaderboards.evidence.question import questions
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.statistics.summary import records
from leaderboards.tables.exports import standings_frame

TABLE = Path(__file__).resolve().parents[1] / "tests" / "leaderboards" / "frozen.json"
FIGURES = ("rank", "rank_low", "rank_high", "ssim_gain", "ssim_at_least", "of_undefended", "chance", "underpowered")


def ids(found: Published) -> dict[str, list[str]]:
    """Defense -> the ids that this code gives to the cells that the board asks of it, in order, and to the jobs.

    The defenses are built in: a plan of all of them together is that of every entry.
    """
    chains = dict.fromkeys(chain_of(cell.identity) for entry in found.entries for cell in entry.cells)
    calls = {" | ".join(part.call for part in chain) for chain in chains}
    plan = planned(Choices(found.board.name, tuple(sorted(calls)), (), frozenset()), Registry()).plan
    by_defense: dict[str, list[str]] = {}
    for one in (*plan.cells, *plan.jobs):
        by_defense.setdefault(chain_label(one.defense), []).append(one.id)
    return {label: sorted(own) for label, own in sorted(by_defense.items())}


def ranks(found: Published) -> list[dict[str, Any]]:
    """One row per question and defense of what takes part in the ranking; figures have seven digits."""
    images, jobs = found.frames(ranked=True)
    rows = records(standings_frame(ranking(questions(images), found.rule, costs_of(jobs))))
    keys = (*QUESTION, "defense", "verdicts", "unranked", "incomplete", "strongest")
    return [as_published({key: row[key] for key in keys}) | {key: _number(row[key]) for key in FIGURES} for row in rows]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.7g}")


def write_frozen(boards: list[str]) -> None:
    """Write the table anew for these boards: only when one is frozen that was not."""
    table = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    for name in boards:
        found = published(name, PUBLISHED)
        table[name] = {"ids": ids(found), "ranks": ranks(found)}
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_frozen(sys.argv[1:])
