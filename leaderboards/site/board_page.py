"""From a board's results to what its page says: plain values that templates print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.columns import QUESTION
from bench.grid.sections import Weights
from leaderboards.entries.board import Board
from leaderboards.site.defense_page import pages_of
from leaderboards.site.heat import Heat, heat
from leaderboards.site.lines import LeaderboardLine, lines
from leaderboards.site.plot import Plot, plot
from leaderboards.site.results import Asked, Results
from leaderboards.site.text import distinct_names, one_line
from leaderboards.tables.formats import Table
from leaderboards.tables.labels import slug
from leaderboards.tables.notes import secrets_text
from leaderboards.tables.prices import at_budgets

LABEL_KNOWLEDGE = {"known": "labels known", "recovered": "labels recovered", "joint": "labels optimised with the image"}


@dataclass(frozen=True)
class Budgets:
    """Ranks at accuracy budgets."""

    table: Table | None
    why: str
    """The reason for which there is no table; "" where there is one."""
    notes: list[str]
    """Notes of the table, with their numbers."""


@dataclass(frozen=True)
class QuestionView:
    """A question of a board: its place on the page, and everything that is shown of it."""

    anchor: str
    title: str
    facts: str
    pool: str
    images: int
    unranked: str
    lines: list[LeaderboardLine]
    has_accuracy: bool
    has_proofs: bool
    plot: Plot | None
    heat: Heat
    budgets: Budgets

    @property
    def has_labels(self) -> bool:
        return any(line.figures["labels_found"].sort for line in self.lines)

    @property
    def states(self) -> set[str]:
        return {line.state for line in self.lines}

    @property
    def verdicts(self) -> set[str]:
        return {verdict for line in self.lines for verdict in line.verdicts}

    @property
    def leaders(self) -> list[LeaderboardLine]:
        """The lines of rank 1: several where the comparisons leave it open."""
        return [line for line in self.lines if line.rank.sort == "1"]


@dataclass(frozen=True)
class BoardView:
    """A board with its questions, and the page of every defense."""

    name: str
    title: str
    summary: str
    results: Results
    questions: Mapping[Asked, QuestionView]
    pages: Mapping[str, str]

    @property
    def settings(self) -> int:
        """Defenses at their strengths, in each question."""
        return sum(len(view.lines) for view in self.questions.values())

    @property
    def images(self) -> int:
        """As many as the board asks for, whatever has been handed in."""
        return int(self.results.published.board.grid["grid"]["images"])


def board_view(results: Results) -> BoardView:
    """Everything that a board's page shows."""
    board, pages = results.published.board, pages_of(results)
    epochs = _epochs(board)
    order = sorted(results.standings, key=lambda asked: _place(asked, board.grid["grid"]["models"], epochs))
    anchors = distinct_names(_anchor(asked) for asked in order)
    views = {
        asked: _question(results, asked, anchor, pages, epochs) for asked, anchor in zip(order, anchors, strict=True)
    }
    return BoardView(board.name, board.rules.title, board.rules.summary, results, views, pages)


def _question(
    results: Results, asked: Asked, anchor: str, pages: Mapping[str, str], epochs: Mapping[str, int]
) -> QuestionView:
    prices = [standing.price for standing in results.standings[asked]]
    own = lines(results, asked, pages)
    ranked = {line.defense for line in own if line.state == "re-run" and line.rank.sort}
    # Of entries that were run again the question is that of their likes alone.
    question = results.standings[asked][0].question
    row, n = question.row, len(question.images)
    labels = LABEL_KNOWLEDGE.get(row["labels"], row["labels"])
    facts = f"{row['dataset']}, {n} images, {labels}{secrets_text(row)}"
    pool = _pool(results, asked)
    return QuestionView(
        anchor=anchor,
        title=f"{row['model']}, {_weights(row['weights'], epochs)}",
        facts=f"{facts}; identified in a {pool}" if pool else facts,
        pool=pool,
        images=n,
        unranked=results.unranked[asked],
        lines=own,
        has_accuracy=any(price.accuracy_seeds or not np.isnan(price.bytes_sent) for price in prices),
        has_proofs=any(not np.isnan([price.epsilon, price.certificate]).all() for price in prices),
        plot=plot(results, asked, ranked),
        heat=heat(results, asked, [line.defense for line in own], pages),
        budgets=_budgets(results, asked),
    )


def _budgets(results: Results, asked: Asked) -> Budgets:
    families = results.budgets.get(asked, [])
    if not families:
        return Budgets(None, "No entry that has been run again has a measured accuracy.", [])
    reasons: dict[str, int] = {}
    tables = at_budgets(families, reasons)
    if not tables:
        return Budgets(
            None, f"Nobody is ranked at any budget: {families[0].unranked or 'no accuracy was measured'}.", []
        )
    return Budgets(tables[0], "", [f"[{number}] {reason}" for reason, number in reasons.items()])


def _pool(results: Results, asked: Asked) -> str:
    """Among how many images one is identified, and how often by chance; "" where nobody was."""
    found = {row["identification_pool"] for row in results.summary[asked].values()}
    pools = sorted(pool for pool in found if pool > 0)
    return " or ".join(f"pool of {pool:.0f}, chance {100 / pool:.2g}%" for pool in pools)


def _epochs(board: Board) -> dict[str, int]:
    """Label of weights -> their epochs, for those that are trained on the board's own dataset."""
    every = [Weights.model_validate(own) for own in board.grid["grid"].get("weights", [])]
    return {own.label: own.epochs for own in every if own.epochs and own.dataset is None}


def _place(asked: Asked, models: list[str], epochs: Mapping[str, int]) -> tuple[object, ...]:
    """Models as the board has them, untrained weights first, then by epochs."""
    named = dict(zip(QUESTION, asked, strict=True))
    model, weights = named["model"], named["weights"]
    known = models.index(model) if model in models else len(models)
    return known, model, weights != "untrained", epochs.get(weights, 0), asked


def _weights(weights: str, epochs: Mapping[str, int]) -> str:
    """The attacked weights in words."""
    if weights in epochs:
        return f"trained for {epochs[weights]} epoch{'s' * (epochs[weights] != 1)}"
    return weights if weights == "untrained" else f"{weights} weights"


def _anchor(asked: Asked) -> str:
    named = dict(zip(QUESTION, asked, strict=True))
    words = slug(named["model"], named["weights"], "labels", named["labels"])
    return one_line(words).replace(".", "-")[:80] or "question"
