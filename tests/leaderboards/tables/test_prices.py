"""What a defense costs and proves stands in every table, and limits who is ranked."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaderboards.evidence.question import questions
from leaderboards.ranking.costs import PRICE_COLUMNS, CertificateResult, RunCosts, costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.summary import Row, records
from leaderboards.tables import scores, standings
from leaderboards.tables.exports import standings_frame
from leaderboards.tables.prices import epsilon_text

Make = Callable[..., pd.DataFrame]
ANY = RankingRule(rules=1, minimum_images=1)
NOISE = "dp_sgd(noise_multiplier=1.0)"
PRUNED = ["gradient_pruning(ratio=0.5)", "gradient_pruning(ratio=0.9)"]
DEFENSES: list[tuple[str, list[dict[str, Any]]]] = [
    ("none", [{}]),
    (PRUNED[0], [{"ratio": 0.5}]),
    (PRUNED[1], [{"ratio": 0.9}]),
    (NOISE, [{"noise_multiplier": 1.0}]),
    ("zeros", [{}]),
]
SEEDS = np.array([0.0, 0.01, 0.02])


@pytest.fixture
def frame(results: Make) -> pd.DataFrame:
    attack = "inverting_gradients(iterations=600)"
    made = results(images=20, attacks=[attack], controls=["grey_image"], defenses=DEFENSES)
    return made.assign(underpowered=0.0)


@pytest.fixture
def jobs(make: SimpleNamespace) -> Callable[..., pd.DataFrame]:
    """Three seeds each: pruning loses half a point and 2, noise 4, zeros everything; noise proves epsilon 14.21."""

    def made(successes: int = 36, trained: bool = True, **changes: Any) -> pd.DataFrame:
        lost = {"none": 0.0, PRUNED[0]: 0.005, PRUNED[1]: 0.02, NOISE: 0.04, "zeros": 0.5}
        own = {name: make.training(name, list(0.6 - loss + SEEDS), **changes) for name, loss in lost.items()}
        for row in own[NOISE]:
            row |= make.proof(14.21)
        return make.frame(*(own.values() if trained else ()), make.certificate(NOISE, successes))

    return made


def ranked(frame: pd.DataFrame, rule: RankingRule, jobs: pd.DataFrame | None = None) -> pd.DataFrame:
    return standings_frame(ranking(questions(frame), rule, costs_of(jobs)))


def of(rows: pd.DataFrame, defense: str) -> Row:
    return next(row for row in records(rows) if row["defense"] == defense)


def shown(text: str, title: str) -> dict[str, dict[str, str]]:
    """A table of a Markdown page: first column -> heading -> cell."""
    lines = text.split(f"**{title}")[1].split("\n\n")[1].splitlines()
    head, _, *rows = [[cell.strip().strip("`") for cell in line.split(" | ")] for line in lines]
    return {row[0].strip("| `"): dict(zip(head, row, strict=True)) for row in rows}


def test_every_figure_of_a_defense_stands_beside_its_leakage(frame: pd.DataFrame, jobs: Callable) -> None:
    row = of(ranked(frame, ANY, jobs()), NOISE)
    found = {name: row[name] for name in ("accuracy", "accuracy_lost", "epsilon", "epsilon_rdp", "epsilon_central")}
    expected = {"accuracy": 0.57, "accuracy_lost": 4.0, "epsilon": 14.21, "epsilon_rdp": 17.052}
    assert found == pytest.approx(expected | {"epsilon_central": 14.21 / 6})
    facts = {"delta": 1e-5, "rounds": 400, "participations": 7, "bytes_sent": 2048, "update_ms": 12.5}
    facts |= {"certificate": 0.23, "certificate_measured": 0.18, "certificate_trials": 200, "accuracy_seeds": 3}
    assert {name: row[name] for name in facts} == facts
    assert (row["unit"], row["relation"], row["accountant"]) == ("image", "add or remove one image", "closed form")
    assert row["ssim_gain"] > 0


def test_without_jobs_everything_is_null_and_ranks_are_as_before(frame: pd.DataFrame, jobs: Callable) -> None:
    without, priced = ranked(frame, ANY), ranked(frame, ANY, jobs())
    assert without["rank"].tolist() == priced["rank"].tolist()
    numbers = [name for name in PRICE_COLUMNS if not name.endswith("reason") and name != "accuracy_seeds"]
    assert without[numbers].isna().all(axis=None)
    assert without["accuracy_reason"].eq("accuracy not measured").all()
    pd.testing.assert_frame_equal(without, ranked(frame, ANY, jobs().iloc[:0]))
    text = standings.render_standings(frame, "text", ANY)
    assert "Privacy and its price" not in text
    assert "cost" in text.split("What it is made of")[1]


def test_a_broken_certificate_takes_epsilon_and_rank(frame: pd.DataFrame, jobs: Callable) -> None:
    whole, broken = ranked(frame, ANY, jobs()), ranked(frame, ANY, jobs(successes=100))
    assert not pd.isna(of(whole, NOISE)["rank"])
    row = of(broken, NOISE)
    assert pd.isna(row["rank"])
    assert "broken certificate" in row["verdicts"]
    assert np.isnan([row[name] for name in ("epsilon", "epsilon_rdp", "epsilon_prv", "epsilon_central")]).all()
    assert row["no_epsilon"] == "broken certificate"
    # The others are ranked as if it were not there.
    assert broken["rank"].notna().sum() == len(DEFENSES) - 1
    text = standings.render_standings(frame, "markdown", ANY, jobs(successes=100))
    assert shown(text, "What it costs")[NOISE]["certificate |"].startswith("BROKEN: 0.50 of 200 trials, bound 0.23")
    assert "14.3" not in text
    assert shown(text, "Who leaks least")[NOISE]["5 points"] == "broken"


def test_a_certificate_that_was_not_measured_helps_nobody(frame: pd.DataFrame, jobs: Callable) -> None:
    made = jobs()
    failed = made["kind"] == "certificate"
    made.loc[failed, ["status", "reason"]] = "error", "it broke"
    made.loc[failed, ["successes", "bound"]] = np.nan
    row = of(ranked(frame, ANY, made), NOISE)
    assert pd.isna(row["rank"])
    assert "incomplete" in row["verdicts"]
    assert np.isnan([row[name] for name in ("epsilon", "epsilon_rdp", "epsilon_prv", "epsilon_central")]).all()
    assert row["no_epsilon"].startswith("certificate not measured: ")
    assert "it broke" in row["incomplete"]
    text = standings.render_standings(frame, "markdown", ANY, made)
    assert shown(text, "Who leaks least")[NOISE]["5 points"] == "incomplete"


def test_a_broken_part_breaks_every_proof_that_rests_on_it_and_no_heuristic() -> None:
    broken = CertificateResult(bound=0.2, measured=0.9, trials=200, broken=True, defense_name="larger_batch | dp_sgd")
    whole = CertificateResult(bound=0.2, measured=0.1, trials=200, defense_name="dp_sgd | gradient_pruning")
    labels = {"larger_batch(examples=4) | dp_sgd": broken, "dp_sgd | gradient_pruning(ratio=0.5)": whole}
    costs = RunCosts({}, {("digits", "mlp", "untrained", label): own for label, own in labels.items()})
    row = lambda label, name: {"dataset": "digits", "model": "mlp", "defense": label, "defense_name": name}
    assert costs.broken(row("dp_sgd | gradient_pruning(ratio=0.5)", "dp_sgd | gradient_pruning"))
    assert not costs.broken(row("larger_batch(examples=4)", "larger_batch"))
    assert not costs.broken(row("gradient_pruning(ratio=0.5)", "gradient_pruning"))


def test_a_broken_certificate_is_broken_under_all_weights(frame: pd.DataFrame, jobs: Callable) -> None:
    trained = frame.assign(weights="5 epochs")
    rows = ranked(pd.concat([frame, trained]), ANY, jobs(successes=100))
    noise = rows[rows["defense"] == NOISE]
    assert noise["rank"].isna().all()
    assert noise["certificate"].notna().tolist() == [True, False]


def test_nobody_is_ranked_where_undefended_training_falls_short(frame: pd.DataFrame, jobs: Callable) -> None:
    assert ranked(frame, ANY, jobs(least_accuracy=0.61))["rank"].notna().all()
    short = ranked(frame, ANY, jobs(least_accuracy=0.62))
    assert short["rank"].isna().all()
    assert set(short["unranked"]) == {"undefended training reaches 0.610, 0.62 is needed"}
    assert "Nobody is ranked: undefended training reaches" in standings.render_standings(
        frame, "text", ANY, jobs(least_accuracy=0.62)
    )


def test_nobody_is_ranked_where_undefended_training_is_missing(frame: pd.DataFrame, jobs: Callable) -> None:
    asked = jobs(least_accuracy=0.5)
    rows = ranked(frame, ANY, asked[asked["defense"] != "none"])
    assert set(rows["unranked"]) == {"undefended training has no accuracy (accuracy not measured), 0.5 is needed"}
    failed = asked.assign(status=asked["status"].mask(asked["defense"].eq("none") & asked["seed"].eq(2), "oom"))
    assert ranked(frame, ANY, failed)["rank"].isna().all()
    # Another model of the run needs an accuracy of its own.
    other = ranked(pd.concat([frame, frame.assign(model="other")]), ANY, asked)
    assert other.groupby("model")["rank"].count().to_dict() == {"lenet-zhu": len(DEFENSES), "other": 0}


def test_the_first_table_joins_leakage_accuracy_proof_certificate_and_cost(frame: pd.DataFrame, jobs: Callable) -> None:
    text = standings.render_standings(frame, "markdown", ANY, jobs())
    row = shown(text, "Privacy and its price")[NOISE]
    figures = of(ranked(frame, ANY, jobs()), NOISE)
    assert row["SSIM gain"] == f"{figures['ssim_gain']:.3f}"
    assert row["95% interval"] == f"[{figures['ssim_gain_low']:.3f}, {figures['ssim_gain_high']:.3f}]"
    assert (row["accuracy"], row["accuracy lost"]) == (f"{figures['accuracy']:.3f}", "4.0 [4.0, 4.0]")
    # An upper bound is rounded up.
    assert (row["epsilon"], row["picked / proven"]) == ("14.3", "0.180 / 0.230")
    assert (row["KiB sent"], row["ms |"]) == ("2.0", "12.5 |")
    assert shown(text, "Privacy and its price")[PRUNED[0]]["epsilon"] == "-"
    costs = shown(text, "What it costs")[NOISE]
    assert costs["accuracy"].startswith("0.570 [0.5")
    assert costs["central, trusted aggregator"] == "2.37"
    assert costs["certificate |"] == "≤ 0.23 (measured 0.18 of 200 trials) |"


LARGER = "larger_batch(examples=4)"


@pytest.fixture
def larger(frame: pd.DataFrame, jobs: Callable, make: SimpleNamespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frame and jobs with a larger batch, which gains a point at equal rounds and loses two at equal images."""
    own = make.training(LARGER, list(0.61 + SEEDS), images_per_update=4)
    own = [row | {"accuracy_at_equal_images": row["accuracy"] - 0.03} for row in own]
    zeros = frame[frame["defense"] == "zeros"]
    shown = zeros.assign(defense=LARGER, defense_name="larger_batch", defense_parameters='[{"examples": 4}]')
    return pd.concat([frame, shown], ignore_index=True), pd.concat([jobs(), make.frame(own)], ignore_index=True)


TWO = RankingRule(rules=2, minimum_images=1)


@pytest.mark.parametrize("rule", [ANY, TWO], ids=["rules 1", "rules 2"])
def test_accuracy_at_equal_images_stands_beside_that_at_equal_rounds(
    larger: tuple[pd.DataFrame, pd.DataFrame], rule: RankingRule
) -> None:
    text = standings.render_standings(larger[0], "markdown", rule, larger[1])
    costs = shown(text, "What it costs")
    assert costs[LARGER]["accuracy"].startswith("0.620 [")
    assert costs[LARGER]["at equal images"].startswith("0.590 [")
    assert costs[PRUNED[0]]["at equal images"] == costs[PRUNED[0]]["accuracy"]
    assert "up to 4 times the images" in text
    first = shown(text, "Privacy and its price")[LARGER]
    compared = first["accuracy lost"] if rule is ANY else first["accuracy lost at equal images"]
    assert compared == ("-1.0 [-1.0, -1.0]" if rule is ANY else "2.0 [2.0, 2.0]")
    row = of(ranked(larger[0], rule, larger[1]), LARGER)
    assert (row["accuracy_lost"], row["lost_at_equal_images"]) == pytest.approx((-1.0, 2.0))
    assert row["images_seen"] == 4


def test_an_accuracy_at_equal_images_that_was_never_measured_is_null_with_its_reason(
    larger: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    jobs = larger[1].assign(accuracy_at_equal_images=np.nan)
    row = of(ranked(larger[0], TWO, jobs), LARGER)
    assert np.isnan([row["accuracy_at_equal_images"], row["lost_at_equal_images"]]).all()
    assert row["equal_images_reason"].startswith("no accuracy at equal images was recorded of seed 0, 1, 2: ")
    text = standings.render_standings(larger[0], "markdown", TWO, jobs)
    assert f"training: {row['equal_images_reason']}" in text
    assert "nan" not in text.lower()


def test_a_table_where_all_see_as_many_images_has_no_column_of_equal_images(
    frame: pd.DataFrame, jobs: Callable
) -> None:
    text = standings.render_standings(frame, "markdown", TWO, jobs())
    assert "equal images" not in text


@pytest.mark.parametrize(("releases", "epsilon"), [(1, 4.38), (2, 6.573), (7, 14.21)])
def test_epsilon_is_stated_for_as_many_releases_as_are_attacked(
    frame: pd.DataFrame, jobs: Callable, releases: int, epsilon: float
) -> None:
    """Noise of one clipping norm; the whole training takes seven releases of every client."""
    row = of(ranked(frame.assign(releases=releases), TWO, jobs()), NOISE)
    assert row["epsilon_of_attacked_releases"] == pytest.approx(epsilon, abs=0.01)
    assert (row["attacked_releases"], row["epsilon"], row["participations"]) == (releases, 14.21, 7)
    text = standings.render_standings(frame.assign(releases=releases), "markdown", TWO, jobs())
    heading = "epsilon" if releases == 7 else f"epsilon, {releases} release{'s' * (releases > 1)} attacked"
    assert shown(text, "Privacy and its price")[NOISE][heading] == epsilon_text(row["epsilon_of_attacked_releases"])
    costs = shown(text, "What it costs")[NOISE]
    assert costs.get("epsilon, whole training") == (None if releases == 7 else "14.3")
    assert ("epsilon of the whole training counts 7" in text) == (releases != 7)


def test_a_proof_of_the_whole_training_alone_says_nothing_of_fewer_releases(
    frame: pd.DataFrame, jobs: Callable
) -> None:
    made = jobs()
    made.loc[made["defense"].eq(NOISE), "accountant"] = "RDP"
    row = of(ranked(frame, TWO, made), NOISE)
    assert np.isnan(row["epsilon_of_attacked_releases"])
    assert row["attacked_releases_reason"] == "its proof, which is not of Gaussian noise alone, is of 7 releases"
    assert of(ranked(frame.assign(releases=7), TWO, made), NOISE)["epsilon_of_attacked_releases"] == 14.21


def test_budgets_name_rank_and_strength_or_why_there_is_none(frame: pd.DataFrame, jobs: Callable) -> None:
    found = shown(standings.render_standings(frame, "markdown", ANY, jobs()), "Who leaks least")
    pruning = found["gradient_pruning: ratio"]
    assert pruning["1 point"].endswith(": 0.5")
    assert pruning["3 points"].endswith(": 0.9")
    assert {found[NOISE][at] for at in ("1 point", "3 points")} == {"too costly"}
    assert found[NOISE]["5 points"] == "2 (2 to 3)"
    assert {found["zeros"][at] for at in ("1 point", "3 points", "5 points")} == {"too costly"}


def test_a_failed_training_is_null_with_its_reason(frame: pd.DataFrame, jobs: Callable) -> None:
    rows = jobs()
    failed = rows["defense"].eq(PRUNED[0]) & rows["seed"].eq(1)
    rows.loc[failed, ["status", "reason"]] = "oom", "2 GiB were asked for"
    rows.loc[failed, ["accuracy", "bytes_sent", "update_ms"]] = np.nan
    text = standings.render_standings(frame, "text", ANY, rows)
    assert "training: seed 1 is oom (2 GiB were asked for)" in text
    assert "nan" not in text.lower()
    row = of(ranked(frame, ANY, rows), PRUNED[0])
    assert np.isnan([row["accuracy"], row["accuracy_lost"], row["bytes_sent"]]).all()
    assert row["accuracy_reason"] == "seed 1 is oom (2 GiB were asked for)"


def test_notes_say_how_accuracy_and_epsilon_were_made(frame: pd.DataFrame, jobs: Callable) -> None:
    text = " ".join(standings.render_standings(frame, "text", ANY, jobs()).split())
    for said in (
        "3,000 test images", "400 rounds of 32 of 2,000 clients", "adam (learning rate 0.001)", "over 3 seeds",
        "one image (add or remove one image) at delta 1e-05", "in 7 of which the client takes part", "q = 1",
        "only the mean of a round's updates", "one of 16", "a heuristic, of which nothing is proven",
    ):  # fmt: skip
        assert said in text


def test_certificates_alone_are_shown_without_a_word_of_accuracy(frame: pd.DataFrame, jobs: Callable) -> None:
    text = standings.render_standings(frame, "text", ANY, jobs(trained=False))
    assert "≤ 0.23 (measured 0.18 of 200 trials)" in text
    assert "accuracy was not measured" in " ".join(text.split())
    assert "Who leaks least" not in text


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json"])
def test_every_format_shows_the_costs(frame: pd.DataFrame, jobs: Callable, format: str) -> None:
    text = standings.render_standings(frame, format, ANY, jobs())
    assert "nan" not in text.lower()
    assert text.endswith("\n")
    if format == "text":
        assert max(map(len, text.splitlines())) <= 120
    if format == "latex":
        assert not {"≤", "≥", "±"} & set(text)
        assert text.count("\\begin{") == text.count("\\end{")
    if format == "csv":
        table = pd.read_csv(io.StringIO(text))
        assert of(table, NOISE)["epsilon"] == pytest.approx(14.21)
        assert len(table) == len(DEFENSES)
        assert [of(table, NOISE)[f"rank_at_5{end}"] for end in ("", "_low", "_high")] == [2, 2, 3]
        assert np.isnan([of(table, NOISE)["rank_at_3"], of(table, PRUNED[0])["rank_at_5"]]).all()
    if format == "json":
        found = next(row for row in json.loads(text) if row["defense"] == PRUNED[0])
        assert (found["epsilon"], found["accuracy_lost"]) == (None, pytest.approx(0.5))


def test_the_table_of_attacks_carries_the_costs_in_csv_and_json(frame: pd.DataFrame, jobs: Callable) -> None:
    rows = json.loads(scores.render_scores(frame, "json", jobs()))
    own = [row for row in rows if row["defense"] == NOISE]
    assert len(own) == 2
    assert [row["accuracy_lost"] for row in own] == pytest.approx([4.0, 4.0])
    assert {(row["epsilon"], row["certificate"]) for row in own} == {(14.21, 0.23)}
    assert "accuracy" not in json.loads(scores.render_scores(frame, "json"))[0]
    assert scores.render_scores(frame, "text", jobs()) == scores.render_scores(frame, "text")


def test_alarms_name_what_is_broken(jobs: Callable) -> None:
    assert costs_of(jobs()).alarms() == []
    (alarm,) = costs_of(jobs(successes=100)).alarms()
    assert NOISE in alarm
    assert "0.500 of 200 trials" in alarm


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(14.21, "14.3"), (14.2, "14.2"), (0.12301, "0.124"), (36123.0, "36,200"), (1.0, "1"), (0.0, "0"), (np.nan, "-")],
)
def test_an_upper_bound_is_rounded_up(epsilon: float, text: str) -> None:
    assert epsilon_text(epsilon) == text
