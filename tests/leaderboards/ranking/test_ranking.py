"""Leakage, verdicts and ranks: what a finished attack shows always counts, what is missing never helps its defense."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given
from hypothesis import settings as sizes
from hypothesis import strategies as st

from attacks.threat import ThreatModel
from leaderboards.evidence.question import questions
from leaderboards.evidence.record import LEAKAGE_METRICS
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.statistics.summary import records
from leaderboards.tables.exports import standings_frame
from leaderboards.tables.standings import render_standings

FEW = sizes(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""Without shrinking: every example is a whole ranking."""
ANY = RankingRule(rules=1, minimum_images=1)
N = 24


def cell(
    attack: str,
    defense: str,
    ssim: Iterable[float],
    *,
    seed: int = 0,
    control: bool = False,
    known: bool = False,
    batch: int = 1,
    underpowered: float = 0.0,
    identified: float = 0.0,
    parameters: str = "{}",
    order: int = 0,
    labels: Any = "known",
    found: float = np.nan,
) -> pd.DataFrame:
    values = np.asarray(list(ssim), dtype=float)
    return pd.DataFrame(
        {
            "dataset": "d", "model": "m", "weights": "untrained", 
            **asdict(ThreatModel(labels, defense_known=known)), "attack": attack, "attack_name": attack.split("(")[0],
            "attack_parameters": parameters, "attack_order": 9 if control else 0, "control": control,
            "defense": defense, "defense_name": defense.split("(")[0], "defense_order": order,
            "defense_parameters": "[{}]", "adapts": known, "images_per_update": batch, "local_steps": 0,
            "recovers_labels": attack == "label_rule", "label_accuracy": found,
            "seed": seed, "status": "ok", "reason": "", "image": np.arange(len(values)),
            "trial": np.arange(len(values)) // batch, "ssim": values, "identified": identified,
            "underpowered": underpowered,
        }
    )  # fmt: skip


def board(
    gains: Mapping[str, float | np.ndarray],
    n: int = N,
    attack: str = "cosine",
    batch: int = 1,
    known: bool = False,
    labels: str = "known",
) -> pd.DataFrame:
    """One attack on each defense with these gains over a floor of .1, the undefended client at .6 more."""
    rng = np.random.default_rng(0)
    spread = rng.normal(0, 0.02, n)
    rows = []
    for order, (defense, gain) in enumerate(({"none": 0.6} | dict(gains)).items()):
        own = 0.1 + gain + (spread if np.ndim(gain) == 0 else 0)
        share = partial(cell, defense=defense, order=order, batch=batch, known=known, labels=labels)
        rows.append(share(attack, ssim=own + rng.normal(0, 0.01, n)))
        rows.append(share("grey_image", ssim=np.full(n, 0.1), control=True))
        rows.append(share(f"wrong_image(of={attack!r})", ssim=np.zeros(n), control=True))
    return pd.concat(rows, ignore_index=True)


def some(frame: pd.DataFrame, column: str, text: str) -> pd.DataFrame:
    return pd.DataFrame(frame[frame[column].str.contains(text)])


def ranked(frame: pd.DataFrame, rule: RankingRule = ANY) -> pd.DataFrame:
    return standings_frame(ranking(questions(frame), rule, RunCosts()))


def ranks(frame: pd.DataFrame, rule: RankingRule = ANY) -> dict[str, int | None]:
    return {row["defense"]: None if pd.isna(row["rank"]) else row["rank"] for row in records(ranked(frame, rule))}


def reasons(frame: pd.DataFrame, rule: RankingRule = ANY) -> set[str]:
    """Why nobody is ranked."""
    rows = records(ranked(frame, rule))
    assert all(pd.isna(row["rank"]) for row in rows)
    return {row["unranked"] for row in rows}


def of(frame: pd.DataFrame, defense: str, rule: RankingRule = ANY) -> dict[str, Any]:
    return next(row for row in records(ranked(frame, rule)) if row["defense"] == defense)


def failing(frame: pd.DataFrame, attack: str, defense: str, status: str = "diverged") -> pd.DataFrame:
    chosen = (frame["attack"] == attack) & (frame["defense"] == defense)
    row = pd.DataFrame(frame[chosen].iloc[:1].copy())
    row[["ssim", "identified", "underpowered", "image", "trial"]] = np.nan
    row[["status", "reason"]] = status, "it broke"
    return pd.DataFrame(pd.concat([frame[~chosen], row], ignore_index=True))


def test_what_stays_under_its_floor_leaks_nothing_however_far_under_it_is() -> None:
    frame = board({"far": -0.3, "near": -0.1, "leaking": 0.2})
    assert [of(frame, name)["ssim_gain"] for name in ("far", "near")] == [0, 0]
    assert [of(frame, name)["rank"] for name in ("far", "near", "leaking")] == [1, 1, 3]


def test_what_is_under_the_floor_is_still_told_beside_the_gain_and_has_no_interval_in_tables() -> None:
    frame = board({"far": -0.3, "leaking": 0.2})
    far = of(frame, "far")
    assert far["ssim_excess"] == pytest.approx(-0.3, abs=0.02)
    assert far["ssim_excess_low"] < far["ssim_excess"] < far["ssim_excess_high"]
    assert of(frame, "leaking")["ssim_excess"] == pytest.approx(of(frame, "leaking")["ssim_gain"])
    row = next(line for line in render_standings(frame, "markdown", ANY).splitlines() if line.startswith("| `far`"))
    assert row.split(" | ")[2:4] == ["0.000", "-"]


def test_leakage_is_the_mean_over_images_of_the_strongest_attack_above_its_strongest_control() -> None:
    frame = pd.concat(
        [
            cell("a", "none", [0.9, 0.2, 0.5] * 8),
            cell("b", "none", [0.1, 0.6, 0.5] * 8),
            cell("grey_image", "none", [0.1, 0.3, 0.1] * 8, control=True),
            cell("wrong_image(of='b')", "none", [0.0, 0.4, 0.2] * 8, control=True),
        ]
    )
    # Image by image: a over grey .8, b over its own wrong image .2 (a: -.1), a over grey .4 (b: .3).
    assert of(frame, "none")["ssim_gain"] == pytest.approx((0.8 + 0.2 + 0.4) / 3)


def test_an_adaptive_attack_counts_beside_the_one_that_does_not_adapt() -> None:
    oblivious, adaptive = board({"p": 0.0}), board({"p": 0.3}, known=True)
    row = of(pd.concat([oblivious, adaptive]), "p")
    assert row["not_adapting"] == pytest.approx(0.0, abs=0.02)
    assert row["adapting"] == pytest.approx(row["ssim_gain"], abs=0.01) == pytest.approx(0.3, abs=0.02)
    assert row["verdicts"] == ""
    assert of(oblivious, "p")["verdicts"] == "unaudited"


def test_seeds_are_averaged_inside_an_image_before_the_strongest_attack_is_taken() -> None:
    rows = [cell("grey_image", "none", np.zeros(N), seed=s, control=True) for s in (0, 1)]
    rows += [cell("a", "none", np.full(N, value), seed=s) for s, value in enumerate((1.0, 0.0))]
    rows += [cell("b", "none", np.full(N, value), seed=s) for s, value in enumerate((0.0, 0.8))]
    assert of(pd.concat(rows), "none")["ssim_gain"] == pytest.approx(0.5)


def test_prior_only_is_the_floor_of_the_attack_whose_prior_it_has_alone() -> None:
    prior = {"iterations": 9, "tv_weight": 0.1, "learning_rate": 0.1, "milestones": [0.5], "decay": 0.1}
    mine, other = json.dumps({**prior, "restarts": 1}), json.dumps({**prior, "iterations": 8})
    rows = [
        cell("a", "none", np.full(N, 0.5), parameters=mine),
        cell("grey_image", "none", np.full(N, 0.1), control=True),
        cell("prior_only(iterations=9)", "none", np.full(N, 0.2), control=True, parameters=json.dumps(prior)),
        cell("prior_only(iterations=8)", "none", np.full(N, 0.4), control=True, parameters=other),
    ]
    assert of(pd.concat(rows), "none")["ssim_gain"] == pytest.approx(0.3)


def test_ranks_count_the_defenses_that_leak_significantly_less_and_ties_share() -> None:
    rng = np.random.default_rng(1)
    frame = board({"strong": 0.0} | {name: 0.3 + rng.normal(0, 0.1, N) for name in ("p", "q")})
    assert ranks(frame) == {"none": 4, "strong": 1, "p": 2, "q": 2}
    assert (of(frame, "p")["rank_low"], of(frame, "p")["rank_high"]) == (2, 3)


def test_fewer_images_than_the_minimum_are_not_ranked() -> None:
    assert reasons(board({"p": 0.2}), RankingRule(rules=1)) == {f"{N} images, 100 are needed"}


def test_without_an_undefended_control_nobody_is_ranked() -> None:
    frame = some(board({"p": 0.2}), "defense", "p")
    assert reasons(frame) == {'there is no undefended control: add the defense "none"'}


def test_an_attack_replaced_by_noise_is_invalid_and_unranks_the_question() -> None:
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.2}, attack="other")], ignore_index=True)
    noise = pd.Series(np.random.default_rng(0).normal(0, 0.02, len(frame)), frame.index)
    frame["ssim"] = frame["ssim"].mask(frame["attack"] == "other", noise)
    (reason,) = reasons(frame)
    assert reason.startswith("invalid: other gains -0.1")
    # Where nobody asks for it, it limits nothing.
    assert ranks(frame, RankingRule(rules=1, required=("cosine",), minimum_images=1)) == {"none": 2, "p": 1}


def test_a_required_attack_that_is_absent_unranks_the_question() -> None:
    rule = RankingRule(rules=1, required=("cosine", "linear_layer"), minimum_images=1)
    assert reasons(board({"p": 0.2}), rule) == {"the required attack linear_layer is missing"}


def test_a_skip_that_the_defense_causes_counts_as_missing() -> None:
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.2}, attack="other")])
    skipped = failing(frame, "other", "p", "skipped")
    assert ranks(skipped) == {"none": 1, "p": None}
    assert of(skipped, "p")["verdicts"] == "incomplete, unaudited"
    assert ranks(failing(skipped, "other", "none", "skipped")) == {"none": 2, "p": 1}


def test_a_failed_undefended_attack_unranks_the_question() -> None:
    frame = failing(board({"p": 0.2}), "cosine", "none")
    assert reasons(frame) == {"no whole result of cosine (it broke) on the undefended client"}


def test_a_block_that_is_not_there_is_missing() -> None:
    # Another attack has seen the image: there is a figure for it, which might have been higher.
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.2}, attack="other")], ignore_index=True)
    poorer = pd.DataFrame(frame[~(frame["defense"].eq("p") & frame["attack"].eq("other") & frame["image"].eq(3))])
    assert ranks(poorer) == {"none": 1, "p": None}
    assert np.isnan(of(poorer, "p")["ssim_gain"])


def test_without_controls_there_is_no_leakage_and_no_rank() -> None:
    frame = some(board({"p": 0.2}), "attack", "cosine$")
    assert reasons(frame) == {"invalid: cosine has no SSIM or no floor on the undefended client"}
    assert np.isnan(of(frame, "p")["ssim_gain"])


def test_underpowered_evidence_ranks_above_nobody_whose_evidence_is_not() -> None:
    frame = board({"p": 0.1, "q": 0.3, "r": 0.2})
    assert ranks(frame) == {"none": 4, "p": 1, "q": 3, "r": 2}
    frame.loc[frame["defense"].eq("p") & ~frame["control"], "underpowered"] = 1.0
    assert ranks(frame) == {"none": 3, "p": 3, "q": 2, "r": 1}
    assert of(frame, "p")["verdicts"] == "unaudited, underpowered"
    # Among themselves underpowered defenses are compared as all others.
    frame["underpowered"] = 1.0
    assert ranks(frame) == {"none": 4, "p": 1, "q": 3, "r": 2}


def test_a_null_figure_is_a_missing_one_and_lowers_nothing() -> None:
    frame = pd.concat([board({"p": 0.5}), board({"p": 0.1}, attack="other")], ignore_index=True)
    for attack in ("cosine", "grey_image"):
        null = frame.assign(ssim=frame["ssim"].mask(frame["defense"].eq("p") & frame["attack"].eq(attack)))
        assert ranks(null) == {"none": 1, "p": None}
        assert np.isnan(of(null, "p")["ssim_gain"])
    two = pd.concat([board({"p": 0.5}), board({"p": 0.5}).assign(seed=1)], ignore_index=True)
    one_null = two.assign(
        ssim=two["ssim"].mask(two["defense"].eq("p") & two["attack"].eq("cosine") & two["seed"].eq(1))
    )
    assert ranks(one_null) == {"none": 1, "p": None}


def test_an_attack_that_gets_nothing_undefended_audits_nobody() -> None:
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.0, "none": 0.0}, attack="junk", known=True)])
    rule = RankingRule(rules=1, required=("cosine",), minimum_images=1)
    assert of(frame, "p", rule)["verdicts"] == "unaudited"
    assert of(pd.concat([board({"p": 0.2}), board({"p": 0.0}, attack="able", known=True)]), "p", rule)["verdicts"] == ""


def test_an_attack_without_an_objective_makes_no_evidence_whole() -> None:
    frame = board({"p": 0.1, "q": 0.3})
    frame.loc[frame["defense"].eq("p") & ~frame["control"], "underpowered"] = 1.0
    junk = board({"p": 0.2, "q": 0.0}, attack="junk").assign(underpowered=np.nan)
    rule = RankingRule(rules=1, required=("cosine",), minimum_images=1)
    found = pd.concat([frame, junk], ignore_index=True)
    assert of(found, "p", rule)["verdicts"] == "unaudited, underpowered"
    # One whose optimiser did its work, and that reaches as much, says that there is no more to be had.
    able = board({"p": 0.2, "q": 0.0}, attack="able")
    assert of(pd.concat([frame, able], ignore_index=True), "p", rule)["verdicts"] == "unaudited"


def test_an_optional_attack_that_failed_is_missing_and_one_that_was_never_tried_is_not() -> None:
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.4}, attack="other")], ignore_index=True)
    rule = RankingRule(rules=1, required=("cosine",), minimum_images=1)
    assert ranks(failing(frame, "other", "p"), rule) == {"none": 1, "p": None}
    never = pd.DataFrame(frame[~(frame["defense"].eq("p") & frame["attack"].str.contains("other"))])
    assert ranks(never, rule) == {"none": 2, "p": 1}


def test_what_the_largest_of_several_gains_by_luck_is_stated() -> None:
    rng = np.random.default_rng(0)
    frame = board({"p": 0.0}, n=100)
    for attack in "abcd":
        frame = pd.concat([frame, board({"p": 0.0}, n=100, attack=attack)], ignore_index=True)
    noise = pd.Series(rng.normal(0.1, 0.05, len(frame)), frame.index)
    lucky = frame["defense"].eq("p") & ~frame["attack"].eq("grey_image")
    row = of(frame.assign(ssim=frame["ssim"].mask(lucky, noise)), "p")
    assert row["ssim_gain"] > 0.01
    assert row["chance"] >= row["ssim_gain"]


def test_the_ratio_to_an_undefended_gain_that_is_incomplete_is_null() -> None:
    frame = pd.concat([board({"p": 0.2}), board({"p": 0.2}, attack="other")], ignore_index=True)
    assert of(frame, "p")["of_undefended"] == pytest.approx(0.35, abs=0.05)
    assert np.isnan(of(failing(frame, "other", "none"), "p")["of_undefended"])


def test_batches_that_cut_the_images_differently_are_not_compared_in_silence() -> None:
    four, six = board({"p": 0.2}, batch=4), board({"p": 0.1}, batch=6)
    six["defense"] = six["defense"].replace({"p": "q"})
    frame = pd.concat([four, pd.DataFrame(six[six["defense"] == "q"])], ignore_index=True)
    # Two and three clients share a boundary every 12 images: 2 units of 24.
    assert (of(frame, "p")["incomparable"], of(frame, "q")["incomparable"], of(frame, "none")["incomparable"]) == (
        1,
        2,
        1,
    )
    assert of(frame, "p")["rank"] == of(frame, "q")["rank"]


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json"])
def test_a_table_shows_complete_and_incomplete_defenses_and_questions_side_by_side(format: str) -> None:
    unfinished = failing(board({"p": 0.2, "q": 0.3}), "cosine", "none").assign(model="other")
    frame = pd.concat([failing(board({"p": 0.2, "q": 0.3}), "cosine", "p"), unfinished], ignore_index=True)
    text = render_standings(frame, format, ANY)
    assert "no whole result of cosine (it broke)" in " ".join(text.split())
    assert "nan" not in text.lower()
    if format == "markdown":
        header, _, row = text.splitlines()[6:9]
        shown = dict(zip(header.split("|"), row.split("|"), strict=True))
        assert shown[" verdicts "].strip() == "-"
        assert float(shown[" by chance "]) == 0  # the attacks' guesses at other images are under the floor
    if format == "text":
        ranked, unranked = text.split("Leakage:")[1:]
        assert "Rank 1 leaks least" in ranked
        assert "Nobody is ranked: no whole result" in unranked


def test_the_ratio_to_the_undefended_gain_is_null_where_that_may_be_zero() -> None:
    assert of(board({"p": 0.3}), "p")["of_undefended"] == pytest.approx(0.5, abs=0.02)
    none = np.where(np.arange(N) % 2, 0.5, -0.49)
    assert np.isnan(of(board({"none": none, "p": 0.3}), "p")["of_undefended"])


def test_batches_are_the_units_of_intervals() -> None:
    alternating = np.repeat([0.2, 0.4], N // 2)
    alone, together = (of(board({"p": alternating}, batch=b), "p") for b in (1, 4))
    assert (alone["units"], together["units"]) == (N, N // 4)
    assert together["ssim_gain_high"] - together["ssim_gain_low"] > alone["ssim_gain_high"] - alone["ssim_gain_low"]


def test_another_knowledge_of_labels_is_another_question() -> None:
    rows = records(ranked(pd.concat([board({"p": 0.2}), board({"p": 0.4}, labels="recovered")])))
    found = {(row["labels"], row["defense"]): row["ssim_gain"] for row in rows}
    assert found["known", "p"] == pytest.approx(0.2, abs=0.02)
    assert found["recovered", "p"] == pytest.approx(0.4, abs=0.02)


gains = st.lists(st.floats(-0.1, 0.7), min_size=4, max_size=4)
NAMES = ["none", "p", "q", "r"]


@FEW
@given(gains, gains, st.booleans())
def test_adding_an_attack_never_lowers_any_gain(old: list[float], new: list[float], known: bool) -> None:
    frame = board(dict(zip(NAMES, old, strict=True)))
    added = board(dict(zip(NAMES, new, strict=True)), attack="new", known=known)
    (before,), (after,) = (questions(rows) for rows in (frame, pd.concat([frame, some(added, "attack", "new")])))
    for poorer, richer in zip(before.defenses, after.defenses, strict=True):
        for metric in LEAKAGE_METRICS:
            assert (richer.gain(metric) >= poorer.gain(metric)).all()


@FEW
@given(gains, st.sampled_from(NAMES[:2]), st.sampled_from(["a", "b"]), st.booleans(), st.booleans())
def test_losing_a_cell_never_gives_its_defense_a_rank_or_a_lower_leakage(
    reached: list[float], defense: str, attack: str, deleted: bool, of_control: bool
) -> None:
    first, second = ({"p": own[0], "q": own[1]} for own in (reached[:2], reached[2:]))
    frame = pd.concat([board(first, attack="a"), board(second, attack="b")], ignore_index=True)
    frame = frame.drop_duplicates(["attack", "defense", "image"])
    lost = f"wrong_image(of={attack!r})" if of_control else attack
    chosen = (frame["attack"] == lost) & (frame["defense"] == defense)
    before = of(frame, defense)
    after = of(pd.DataFrame(frame[~chosen]) if deleted else failing(frame, lost, defense), defense)
    assert not pd.isna(before["rank"])
    assert pd.isna(after["rank"])
    assert np.isnan(after["ssim_gain"]) or after["ssim_gain"] >= before["ssim_gain"]
    assert "incomplete" in after["verdicts"]


def test_an_attack_on_labels_is_required_but_leaks_no_pixel_and_unranks_nobody():
    rows = board({"weak": 0.3, "strong": 0.1})
    rule = RankingRule(rules=1, required=("cosine", "label_rule"), minimum_images=1)
    alone = ranked(rows, rule)
    assert alone["unranked"].iloc[0] == "the required attack label_rule is missing"
    found = {"none": 1.0, "weak": 0.9, "strong": 0.1}
    grey = [
        cell("label_rule", defense, np.full(N, 0.9 if defense == "strong" else 0.1), order=i, found=share)
        for i, (defense, share) in enumerate(found.items())
    ]
    floors = [
        cell("wrong_image(of='label_rule')", d, np.full(N, 0.1), order=i, control=True) for i, d in enumerate(found)
    ]
    both = ranked(pd.concat([rows, *grey, *floors]), rule)
    assert both["unranked"].isna().all()
    assert both["labels_found"].tolist() == pytest.approx([1.0, 0.9, 0.1])
    plain = ranked(rows, RankingRule(rules=1, required=("cosine",), minimum_images=1))
    for column in ("rank", "ssim_gain", "ssim_excess", "chance", "strongest", "underpowered"):
        assert both[column].tolist() == plain[column].tolist(), column
    without = ranked(pd.concat([rows, *grey[:2], *floors]), rule)
    assert without["incomplete"].tolist()[:2] == [None, None]
    assert "label_rule" in without["incomplete"].iloc[2]


def test_the_question_asked_of_some_defenses_or_rows_is_the_question_of_a_frame_that_has_no_others() -> None:
    two = [board({"p": 0.2, "q": 0.4}, batch=4), board({"p": 0.3, "q": 0.1}, batch=3).assign(seed=1)]
    frame = failing(pd.concat(two, ignore_index=True), "cosine", "q")
    more = pd.concat([frame, cell("cosine", "r", np.full(2 * N, 0.5), order=3)], ignore_index=True)
    (every,) = questions(more)
    among = pd.DataFrame(more[more["defense"] != "r"])
    part = pd.DataFrame(more[(more["seed"] == 1) & ~(more["image"] < 12)])
    for found, own in (
        (every.among(["none", "p", "q"]), among),
        (every.part(lambda record: (record.seeds == 1) & ~(record.images < 12)), part),
    ):
        (expected,) = questions(own)
        assert found.images.tolist() == expected.images.tolist()
        for mine, its in zip(found.defenses, expected.defenses, strict=True):
            assert mine.row["defense"] == its.row["defense"]
            assert mine.groups.tolist() == its.groups.tolist()
            for one, other in zip(mine.attempts, its.attempts, strict=True):
                assert (one.variant, one.whole, one.reason) == (other.variant, other.whole, other.reason)
                assert np.array_equal(one.gain("ssim"), other.gain("ssim"), equal_nan=True)


def with_public(frame: pd.DataFrame, floor: float, attack: str | None = "posterior_mean") -> pd.DataFrame:
    """The frame with a floor `class_mean` of public images, and an attack that learns from them, on each defense."""
    more = []
    for order, defense in enumerate(frame["defense"].unique()):
        share = partial(cell, defense=defense, order=order)
        more.append(share("class_mean", ssim=np.full(N, floor), control=True))
        more += [share(attack, ssim=np.full(N, floor) + np.linspace(0.1, 0.14, N))] if attack else []
    return pd.concat([frame, pd.concat(more).assign(public=True)], ignore_index=True)


def test_all_attacks_of_a_question_are_judged_by_the_floors_of_one_that_holds_public_images() -> None:
    plain = of(board({"a": 0.3}), "a")
    assert plain["ssim_gain"] == pytest.approx(0.3, abs=0.02)
    (question,) = questions(with_public(board({"a": 0.3}), 0.35))
    gains = {a.variant[0]: a.gain(LEAKAGE_METRICS[0]).mean() for a in question.defenses[1].attempts}
    assert gains == pytest.approx({"cosine": 0.05, "posterior_mean": 0.12}, abs=0.02)
    assert "class_mean" in question.defenses[1].attempts[0].controls


def test_the_notice_of_a_board_stands_above_its_ranks_in_tables_alone() -> None:
    rule = RankingRule(rules=1, minimum_images=1, notice="Take care.")
    frame = board({"a": 0.3})
    assert "Rank 1 leaks least. Take care." in render_standings(frame, "text", rule)
    assert "Take care" not in render_standings(frame, "text", ANY)
    for format in ("csv", "json"):
        assert render_standings(frame, format, rule) == render_standings(frame, format, ANY)


def test_the_answers_to_held_out_clients_are_a_floor_of_their_own_attack() -> None:
    frame = with_public(board({"a": 0.3}), 0.2)
    answers = {
        attack: [
            cell(f"same_class(of={attack!r})", d, np.full(N, ssim), order=i, control=True).assign(public=public)
            for i, d in enumerate(("none", "a"))
        ]
        for attack, ssim, public in (("cosine", 0.28, False), ("posterior_mean", 0.28, True), ("other", 0.9, False))
    }

    def gains(*attacks: str) -> dict[str, float]:
        joined = pd.concat([frame, *(rows for attack in attacks for rows in answers[attack])], ignore_index=True)
        (question,) = questions(joined)
        return {a.variant[0]: a.gain(LEAKAGE_METRICS[0]).mean() for a in question.defenses[1].attempts}

    assert gains("cosine") == pytest.approx({"cosine": 0.12, "posterior_mean": 0.12}, abs=0.02)
    assert gains(*answers) == pytest.approx({"cosine": 0.12, "posterior_mean": 0.04}, abs=0.02)


def test_a_floor_of_public_images_judges_nobody_where_no_attack_holds_any() -> None:
    frame = with_public(board({"a": 0.3}), 0.35, attack=None)
    assert of(frame, "a")["ssim_gain"] == of(board({"a": 0.3}), "a")["ssim_gain"]


def test_a_required_attack_that_is_skipped_without_public_images_is_required_with_them() -> None:
    frame = with_public(board({"a": 0.3}), 0.2)
    own = frame[frame["attack"] == "posterior_mean"].groupby("defense", sort=False).head(1).assign(public=False)
    own = own.assign(status="skipped", reason="it needs public images", ssim=np.nan, image=np.nan, trial=np.nan)
    rule = RankingRule(rules=1, required=("cosine", "posterior_mean"), minimum_images=1)
    assert ranks(pd.concat([frame, own], ignore_index=True), rule) == {"none": 2, "a": 1}
    without = pd.concat([board({"a": 0.3}), own], ignore_index=True)
    assert any("no whole result of posterior_mean" in why for why in reasons(without, rule))
