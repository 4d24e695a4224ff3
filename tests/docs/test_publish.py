"""What is published of a run with trainings, and that the docs repeat it."""

import json
from pathlib import Path

import pandas as pd
from publish import first_table, page

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "leaderboards" / "published" / "fashion-mnist"


def test_the_docs_show_the_first_table_of_the_published_run():
    table = first_table((FOLDER / "README.md").read_text(encoding="utf-8"))
    assert table in (ROOT / "docs" / "how-numbers-are-made.md").read_text(encoding="utf-8")
    ranking = {row["defense"]: row for row in json.loads((FOLDER / "ranking.json").read_text(encoding="utf-8"))}
    rows = [line.split(" | ") for line in table.splitlines()[4:]]
    assert len(rows) == len(ranking) >= 9
    for row in rows:
        own = ranking[row[0].strip("| `")]
        assert float(row[1].strip("≥ ")) == round(own["ssim_gain"], 3)
        assert float(row[3]) == round(own["accuracy"], 3)


def test_the_published_accuracies_are_those_of_the_published_jobs():
    jobs = pd.read_csv(FOLDER / "jobs.csv")
    trained = jobs[jobs["kind"] == "training"].groupby("defense")["accuracy"].agg(["mean", "count"])
    assert (trained["count"] >= 3).all()
    for row in json.loads((FOLDER / "ranking.json").read_text(encoding="utf-8")):
        assert abs(row["accuracy"] - trained.loc[row["defense"], "mean"]) < 1e-5
    assert trained.loc["none", "mean"] >= jobs["least_accuracy"].max() == 0.85


def test_no_budget_ranks_zeros_or_pure_noise():
    for row in json.loads((FOLDER / "ranking.json").read_text(encoding="utf-8")):
        if row["defense"] in ("zeros", "gaussian_noise(std=1000.0)"):
            assert [row[f"rank_at_{budget}"] for budget in (1, 3, 5, 10)] == [None] * 4


def test_the_page_of_a_published_run_names_command_machine_and_commits():
    told = {"name": "n", "command": "leakboard run n", "device": ["cpu"], "threads": [1], "commits": ["a" * 40]}
    text = page(told | {"seconds_of_attacks": 90, "seconds_of_jobs": 30}, "TABLES")
    assert text.startswith("# n\n\nMade by `leakboard run n` on cpu with 1 thread")
    assert "aaaaaaaaaa, of which" in text
    assert text.endswith("TABLES")
