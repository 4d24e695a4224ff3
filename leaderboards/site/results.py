"""Everything that is computed of a board for its pages: ranks of what was run again, figures of all entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.columns import QUESTION, facts_of
from leaderboards.entries.entry import Entry
from leaderboards.entries.published import Published
from leaderboards.entries.schema import CellFile
from leaderboards.evidence.question import Question, questions
from leaderboards.ranking.budgets import Affordable, ranking_at_budgets
from leaderboards.ranking.costs import RunCosts, costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.summary import Row, records, summarise
from leaderboards.untrusted.folder import Refused

if TYPE_CHECKING:
    from pandas import DataFrame

Asked = tuple[str, ...]
"""The values of `QUESTION` that make one question."""
Faced = tuple[str, str, *tuple[bool, ...]]
"""Defense, attack, and whether the attack was granted each of the published facts (`bench.columns.FACTS`)."""


@dataclass(frozen=True)
class Results:
    """The results of a board: of all its entries, and of those that were run again, which alone are ranked."""

    published: Published
    images: DataFrame
    """Rows of the images of all entries."""
    questions: Mapping[Asked, Question]
    """The questions of all entries."""
    standings: Mapping[Asked, list[Standing]]
    """Standings of all entries; those that were run again stand beside the likes of them alone."""
    unranked: Mapping[Asked, str]
    """The reason for which nobody is ranked on a question; "" where somebody is."""
    budgets: Mapping[Asked, list[Affordable]]
    """The families of the entries that were run again, at accuracy budgets."""
    summary: Mapping[Asked, Mapping[Faced, Row]]
    """One row for each question, attack and defense."""
    cells: Mapping[Asked, Mapping[Faced, list[tuple[Entry, CellFile]]]]
    """The cells behind each row of the summary, in the order of seeds."""
    costs: RunCosts
    owners: Mapping[str, Entry]
    """The entry of every defense, by the defense's label."""
    ranked_questions: Mapping[Asked, Question]
    """The questions of the entries that were run again, which no other entry can change."""
    ranked_costs: RunCosts
    """The costs of the entries that were run again."""

    def state(self, defense: str) -> str:
        return self.published.state(self.owners[defense].name)

    def strongest_of(self, standing: Standing) -> Faced | None:
        """The defense and its strongest attack, as `summary` and `cells` name them."""
        return None if standing.strongest is None else (standing.defense, *standing.strongest)


def asked_of(row: Mapping[str, object]) -> Asked:
    """The question of a row."""
    return tuple(str(row[name]) for name in QUESTION)


def faced_of(row: Mapping[str, Any]) -> Faced:
    """The defense of a row, its attack, and what that was granted."""
    return row["defense"], row["attack"], *facts_of(row)


def results(published: Published) -> Results:
    """Rank what was run again, and summarise everything."""
    _check_names(published)
    rule, all_of_them = published.rule, published.ranked == published.entries
    images, jobs = published.frames()
    # Text as plain objects: cutting tens of thousands of rows into cells is twice as fast.
    texts = [name for name, kind in images.dtypes.items() if isinstance(kind, pd.StringDtype)]
    images = images.astype(dict.fromkeys(texts, object))
    costs, every = costs_of(jobs), {asked_of(question.row): question for question in questions(images)}
    again, costs_again = (every, costs) if all_of_them else _run_again(every, jobs, published)
    found = _by_question(ranking([*every.values()], rule, costs))
    ranked = found if all_of_them else _by_question(ranking([*again.values()], rule, costs_again))
    return Results(
        published,
        images,
        every,
        {asked: _joined(own, ranked.get(asked, [])) for asked, own in found.items()},
        {asked: _why(ranked.get(asked, [])) for asked in found},
        _budgets(ranked, again, costs_again, rule),
        _summaries(images),
        _cells(published),
        costs,
        {defense: entry for entry in published.entries for defense in entry.defenses},
        again,
        costs_again,
    )


def _run_again(
    every: Mapping[Asked, Question], jobs: DataFrame, published: Published
) -> tuple[dict[Asked, Question], RunCosts]:
    """Questions and costs of the entries that are ranked, as if there were no others."""
    labels = {defense for entry in published.ranked for defense in entry.defenses}
    found = {asked: question.among(labels) for asked, question in every.items()}
    # By entry: another's jobs may name whatever defense.
    own = jobs.loc[jobs["entry"].isin([entry.name for entry in published.ranked])] if len(jobs) else jobs
    return {asked: question for asked, question in found.items() if question.defenses}, costs_of(own)


def _budgets(
    ranked: Mapping[Asked, list[Standing]], again: Mapping[Asked, Question], costs: RunCosts, rule: RankingRule
) -> dict[Asked, list[Affordable]]:
    """Empty for a question that nobody was trained for: it has no accuracy to keep within."""
    trained = {asked for asked, standings in ranked.items() if any(own.price.accuracy_seeds for own in standings)}
    return {asked: ranking_at_budgets([question], rule, costs) for asked, question in again.items() if asked in trained}


def _summaries(images: DataFrame) -> dict[Asked, dict[Faced, Row]]:
    found: dict[Asked, dict[Faced, Row]] = {}
    for row in records(summarise(images)):
        found.setdefault(asked_of(row), {})[faced_of(row)] = row
    return found


def _cells(published: Published) -> dict[Asked, dict[Faced, list[tuple[Entry, CellFile]]]]:
    found: dict[Asked, dict[Faced, list[tuple[Entry, CellFile]]]] = {}
    every = ((entry, cell) for entry in published.entries for cell in entry.cells)
    for entry, cell in sorted(every, key=lambda own: own[1].identity.seed):
        own = vars(cell.identity)
        found.setdefault(asked_of(own), {}).setdefault(faced_of(own), []).append((entry, cell))
    return found


def _joined(standings: list[Standing], ranked: list[Standing]) -> list[Standing]:
    better = {standing.defense: standing for standing in ranked}
    return [better.get(standing.defense, replace(standing, rank=None)) for standing in standings]


def _why(ranked: list[Standing]) -> str:
    return ranked[0].unranked if ranked else "no entry has been run again yet"


def _by_question(standings: list[Standing]) -> dict[Asked, list[Standing]]:
    found: dict[Asked, list[Standing]] = {}
    for standing in standings:
        found.setdefault(asked_of(standing.question.row), []).append(standing)
    return found


def _check_names(published: Published) -> None:
    """Two entries of one name would share pages."""
    seen: set[str] = set()
    for entry in published.entries:
        if entry.name in seen:
            raise Refused(f"{published.board.name}: two entries are called {entry.name}; rename one of them")
        seen.add(entry.name)
        ids = [cell.identity.cell for cell in entry.cells]
        if len(set(ids)) < len(ids):
            raise Refused(f"{entry.name}: two cells have one id; pack the run again")
