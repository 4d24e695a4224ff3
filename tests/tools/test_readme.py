"""What the README shows of the published board: generated from its entries, and true to them."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from defenses.accounting import gaussian_epsilon
from leaderboards.entries.published import published
from leaderboards.evidence.question import questions
from leaderboards.ranking.budgets import ranking_at_budgets
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.tables.prices import epsilon_text
from tools.readme import board_table, quick_table

ROOT = Path(__file__).resolve().parents[2]


@cache
def board():
    return published("fashion-mnist-v1", ROOT / "leaderboards" / "published")


@cache
def standings():
    frame, jobs = board().frames(ranked=True)
    return ranking(questions(frame), board().rule, costs_of(jobs))


def test_the_readme_shows_the_board_as_it_is_published():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- board -->\n(.*?)\n<!-- end of board -->", readme, re.DOTALL)
    assert shown is not None
    assert shown[1] == board_table(board())
    assert (ROOT / "docs" / "board" / "plot.png").is_file()
    assert "docs/board/plot.png" in readme


@pytest.mark.parametrize(
    ("rules", "gain", "lost"), [(1, "on each\nimage", "against"), (2, "the mean", "as many images")]
)
def test_the_table_of_a_board_speaks_of_its_own_rules_and_shows_what_they_compare(monkeypatch, rules, gain, lost):
    own = board().board
    one = replace(board(), board=replace(own, rules=own.rules.model_copy(update={"rules": rules})))
    text = board_table(one)
    assert f"SSIM gain: {'what the strongest attack gets ' * (rules == 1)}{gain}" in text
    assert lost in text.partition("Points lost: of test accuracy, ")[2]
    # Epsilon of the two releases of a training, or of the one that was attacked.
    row = next(line for line in text.splitlines() if line.startswith("| `dp_sgd` |"))
    assert f" {epsilon_text(gaussian_epsilon(1.0, 3 - rules, 1e-5))} |" in row


def test_the_quick_table_is_by_the_rules_of_grids_and_shows_no_column_of_dashes():
    frame, _ = board().frames(ranked=True)
    few = frame["weights"].eq("untrained") & frame["image"].lt(8) & frame["defense_name"].isin(["none", "zeros"])
    text = quick_table(frame[few])
    assert "**The strongest attack by its mean**" in text
    assert "Nobody is ranked: no attack here has public images" in text
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        _, _, *rows = [line.strip("|").split("|") for line in table.splitlines()]
        assert all({cell.strip() for cell in column} != {"-"} for column in zip(*rows, strict=True))


def test_the_board_ranks_at_least_twelve_settings_with_accuracy_and_proof():
    assert len({own.defense for own in standings()}) >= 12
    assert {own.question.row["weights"] for own in standings()} == {"untrained", "epochs=1"}
    for own in standings():
        assert (own.unranked, own.incomplete) == ("", ""), own.defense
        assert len(own.question.images) == 100
        assert own.price.accuracy_seeds >= 3
        assert pd.isna(own.price.epsilon) != own.evidence.row["defense_name"].startswith("dp_sgd")
        assert own.price.is_heuristic == pd.isna(own.price.epsilon)


def test_the_published_accuracies_are_those_of_the_published_trainings():
    _, jobs = board().frames(ranked=True)
    trained = jobs[jobs["kind"] == "training"].groupby("defense")["accuracy"].mean()
    for own in standings():
        assert own.price.accuracy == pytest.approx(trained[own.defense])
    assert trained["none"] >= jobs["least_accuracy"].max() == 0.85


def test_no_budget_ranks_an_update_of_zeros():
    frame, jobs = board().frames(ranked=True)
    for own in ranking_at_budgets(questions(frame), board().rule, costs_of(jobs)):
        assert own.family != "zeros" or own.standing is None


def test_every_published_entry_was_run_again_by_somebody():
    assert {board().state(entry.name) for entry in board().entries} == {"re-run"}
    for entry in board().entries:
        assert board().reviews[entry.name].reruns
