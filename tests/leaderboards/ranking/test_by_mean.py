"""Rules 2: gains by mean over images and seeds, and the verdicts that withhold a rank."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attacks.threat import ThreatModel
from leaderboards.evidence.code_reviews import CodeReview, CodeReviews, Reading
from leaderboards.evidence.question import questions
from leaderboards.ranking.budgets import Absence, ranking_at_budgets
from leaderboards.ranking.by_mean import ByMean
from leaderboards.ranking.costs import RunCosts, costs_of
from leaderboards.ranking.pareto import points_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict
from leaderboards.tables.notes import ABSENCES, question_notes
from leaderboards.tables.prices import SHORT_ABSENCES
from leaderboards.tables.standings import render_standings

N, SEEDS = 24, 3
RULE = RankingRule(rules=2, minimum_images=1, required=("cosine", "black_box_decoder"))
SPREAD = np.random.default_rng(0).normal(0, 0.02, (SEEDS, N))
AUDITS = ("posterior_mean", "black_box_decoder")


def cell(attack: str, defense: str, ssim: Any, *, order: int, public: bool = True, **more: Any) -> pd.DataFrame:
    """Rows of an attack or control on a defense, with scores of one value, of each image (n,) or by seed (s n)."""
    score = np.broadcast_to(np.asarray(ssim, dtype=float), (SEEDS, N))
    control = attack in ("class_mean", "grey_image") or attack.startswith(("wrong_image", "same_class"))
    threat = asdict(ThreatModel("known", defense_known=public, public=public))
    rows = {
        "dataset": "d", "model": "m", "weights": "untrained", **threat, "attack": attack,
        "attack_name": attack.split("(")[0], "attack_parameters": "{}", "attack_order": 9 if control else 0,
        "control": control, "defense": defense, "defense_name": defense.split("(")[0], "defense_order": order,
        "defense_parameters": "[{}]", "adapts": public, "images_per_update": 1, "local_steps": 0,
        "recovers_labels": False, "label_accuracy": np.nan, "status": "ok", "reason": "", "image": np.arange(N),
        "trial": np.arange(N), "identified": 0.0, "underpowered": 0.0, "held_out_ssim": np.nan,
    }  # fmt: skip
    return pd.concat([pd.DataFrame(rows | {"seed": seed, "ssim": score[seed]} | more) for seed in range(SEEDS)])


def facing(defense: str, gains: Mapping[str, Any], order: int, held_out: Mapping[str, float]) -> pd.DataFrame:
    """Attacks with these gains over a floor of .3; those that learn answer held-out clients alike, or as told."""
    rows = [cell("class_mean", defense, 0.3, order=order), cell("grey_image", defense, 0.1, order=order, public=False)]
    for attack, gain in gains.items():
        public = attack != "cosine"
        score = 0.3 + np.asarray(gain) + SPREAD
        rows.append(cell(attack, defense, score, order=order, public=public))
        if public:
            own = held_out.get(attack, np.nan)
            held = score.mean() + SPREAD[::-1] if np.isnan(own) else own + SPREAD[::-1]
            rows += [
                cell(f"same_class(of={attack!r})", defense, 0.2, order=order).assign(held_out_ssim=held.ravel()),
            ]
    return pd.concat(rows)


def board(
    defenses: Mapping[str, Mapping[str, Any]], held_out: Mapping[str, Mapping[str, float]] | None = None
) -> pd.DataFrame:
    """Each attack's gain on each defense beside an undefended client that gives .5 to all of them."""
    names = dict.fromkeys(attack for gains in defenses.values() for attack in gains)
    whole = {"none": dict.fromkeys(names, 0.5)} | defenses
    found = held_out or {}
    rows = [facing(d, gains, i, found.get(d, {})) for i, (d, gains) in enumerate(whole.items())]
    return pd.concat(rows, ignore_index=True)


def audited(gain: Any, **others: Any) -> dict[str, Any]:
    return {"cosine": -0.2, "posterior_mean": gain, "black_box_decoder": gain} | others


def standings(frame: pd.DataFrame, rule: RankingRule = RULE) -> dict[str, Standing]:
    return {own.defense: own for own in ranking(questions(frame), rule, RunCosts())}


def ranks(frame: pd.DataFrame, rule: RankingRule = RULE) -> dict[str, int | None]:
    return {name: own.rank.lowest if own.rank else None for name, own in standings(frame, rule).items()}


def reason(frame: pd.DataFrame, rule: RankingRule = RULE) -> str:
    (found,) = {own.unranked for own in standings(frame, rule).values()}
    return found


def test_defenses_are_ranked_by_the_mean_of_the_strongest_attack_above_its_strongest_floor() -> None:
    frame = board({"weak": audited(0.2, cosine=0.25), "strong": audited(0.1)})
    found = standings(frame)
    assert ranks(frame) == {"none": 3, "weak": 2, "strong": 1}
    assert found["weak"].gain.mean == pytest.approx(0.25, abs=0.01)
    assert found["weak"].strongest is not None
    assert found["weak"].strongest[0] == "cosine"


def test_a_mean_below_the_floor_counts_as_nothing_and_is_clamped_last() -> None:
    turning = np.tile([0.1, -0.11], N // 2)
    found = standings(board({"turning": audited(turning)}))["turning"]
    assert found.gain.mean == 0
    assert found.excess.mean == pytest.approx(-0.005, abs=0.01)
    assert found.worst_case == pytest.approx(0.05, abs=0.01)


def test_the_maximum_of_each_image_is_the_worst_case_and_no_gain() -> None:
    up, down = np.tile([0.2, 0.0], N // 2), np.tile([0.0, 0.2], N // 2)
    found = standings(board({"p": {"cosine": 0.0, "posterior_mean": up, "black_box_decoder": down}}))["p"]
    assert found.worst_case == pytest.approx(0.2, abs=0.02)
    assert found.gain.mean == pytest.approx(0.1, abs=0.01)


def test_both_intervals_and_the_gain_of_every_seed_are_known() -> None:
    by_seed = np.array([[0.1], [0.2], [0.3]])
    found = standings(board({"p": audited(by_seed + np.zeros(N))}))["p"]
    assert found.by_seed == pytest.approx((0.1, 0.2, 0.3), abs=0.01)
    assert found.gain.mean == found.given_seeds.mean == pytest.approx(0.2, abs=0.01)
    assert found.gain.high - found.gain.low > 10 * (found.given_seeds.high - found.given_seeds.low)


def test_a_rank_above_another_needs_the_same_sign_in_every_seed() -> None:
    steady, turning = audited(0.2), audited(np.array([[0.4], [0.3], [0.1]]) + np.zeros(N))
    assert ranks(board({"steady": steady, "turning": turning}))["turning"] == 1
    assert ranks(board({"steady": steady, "worse": audited(0.3)}))["worse"] == 2


def test_fewer_seeds_than_three_are_not_ranked() -> None:
    frame = board({"p": audited(0.1)})
    assert reason(pd.DataFrame(frame[frame["seed"] < 2])) == "2 seeds of weights, 3 are needed"


def test_a_plugin_that_nobody_has_read_and_that_proves_nothing_has_no_rank() -> None:
    frame = board({"p": audited(0.1), "q": audited(0.2)})
    ours = CodeReviews(frozenset({"none", "q"}))
    found = standings(frame, replace(RULE, reviews=ours))
    assert found["p"].verdicts == {Verdict.UNREAD}
    assert found["p"].rank is None
    assert found["q"].rank is not None
    read = replace(ours, readings={"p": Reading("Ada", "It sends signs.")})
    assert standings(frame, replace(RULE, reviews=read))["p"].rank is not None
    assert "unread" in render_standings(frame, rule=replace(RULE, reviews=ours))


def test_a_proof_stands_in_for_a_reader_only_where_the_part_that_states_it_is_built_in() -> None:
    names = ["p", "dp_sgd | p", "larger_batch | p"]
    frame = board(dict.fromkeys(names, audited(0.1)))
    built_in = CodeReviews(frozenset({"none", "dp_sgd", "larger_batch"}), frozenset({"dp_sgd"}))
    (question,) = questions(frame)
    proofs = dict(zip(names, question.defenses[1:], strict=True))

    def verdicts(name: str, epsilon: float, reviews: CodeReviews = built_in) -> frozenset[Verdict]:
        evidence = proofs[name]
        price = replace(RunCosts().of(question.row | evidence.row), epsilon=epsilon)
        return ByMean().verdicts(question, evidence, replace(RULE, reviews=reviews), price)

    assert verdicts("dp_sgd | p", 8.0) == frozenset()
    assert verdicts("p", 8.0) == verdicts("larger_batch | p", 8.0) == {Verdict.UNREAD}
    # Without a training nothing is proven, and a broken certificate leaves no epsilon.
    assert verdicts("dp_sgd | p", np.nan) == {Verdict.UNREAD}
    read = replace(built_in, readings={"p": Reading("Ada", "It sends signs.")})
    assert verdicts("p", 8.0, read) == verdicts("p", np.nan, read) == frozenset()


def test_a_board_s_plugin_is_audited_only_after_the_conformance_suite_has_passed() -> None:
    frame, read = board({"p": audited(0.1)}), Reading("Ada", "It sends signs.")
    for review, verdicts in (
        (CodeReview(read, conforms=True), set()),
        (CodeReview(read), {Verdict.UNAUDITED}),
        (CodeReview(conforms=True), {Verdict.UNREAD}),
        (CodeReview(read, conforms=True, outdone=True), {Verdict.INCONSISTENT}),
    ):
        rule = replace(RULE, reviews=CodeReviews(frozenset({"none"}), entries={"p": review}))
        found = standings(frame, rule)
        assert found["p"].verdicts == verdicts
        assert (found["p"].rank is None) == bool(verdicts)
        assert found["none"].rank is not None


def test_rules_1_ask_nothing_about_code() -> None:
    frame = board({"p": audited(0.1)})
    rule = RankingRule(rules=1, minimum_images=1, required=("black_box_decoder",))
    asked = replace(rule, reviews=CodeReviews(frozenset({"none"}), entries={}))
    assert standings(frame, asked)["p"].verdicts == standings(frame, rule)["p"].verdicts


def test_a_run_without_public_images_says_so_once() -> None:
    frame = board({"p": {"cosine": 0.1}, "q": {"cosine": 0.3}})
    rule = RankingRule(rules=2, minimum_images=1)
    assert reason(frame, rule) == (
        "no attack here has public images; add threat.public or a folder with a training half"
    )
    assert all(not own.verdicts for own in standings(frame, rule).values())


@pytest.mark.parametrize("lost", AUDITS)
def test_a_defense_that_a_learning_attack_has_not_met_is_unaudited_and_has_no_rank(lost: str) -> None:
    frame = board({"p": audited(0.1), "q": audited(0.2)})
    rule = RankingRule(rules=2, minimum_images=1, required=("cosine",))
    gone = frame["defense"].eq("p") & frame["attack"].str.contains(lost)
    found = standings(pd.DataFrame(frame[~gone]), rule)
    assert found["p"].rank is None
    assert found["p"].verdicts == {Verdict.UNAUDITED}
    assert found["q"].rank is not None


def test_an_attack_that_fails_on_held_out_clients_audits_nobody() -> None:
    frame = board({"p": audited(0.0)}, {"p": {"black_box_decoder": 0.2}})
    assert standings(frame)["p"].verdicts == {Verdict.UNAUDITED}


def test_updates_that_say_nothing_pass_the_positive_control_and_keep_a_rank() -> None:
    found = standings(board({"zeros": audited(0.0), "weak": audited(0.2)}))
    assert found["zeros"].verdicts == frozenset()
    assert {name: own.rank.lowest for name, own in found.items() if own.rank} == {"zeros": 1, "weak": 2, "none": 3}


def test_attacks_that_all_stay_below_their_floors_are_blind_and_their_defense_has_no_rank() -> None:
    rule = RankingRule(rules=2, minimum_images=1, required=("cosine",))
    found = standings(board({"p": audited(-0.05), "q": audited(-0.01)}, {"p": dict.fromkeys(AUDITS, 0.29)}), rule)
    assert found["p"].verdicts == {Verdict.BLIND}
    assert found["p"].rank is None
    assert found["q"].rank is not None


def test_a_defense_whose_held_out_clients_are_easier_than_the_attacked_ones_is_inconsistent() -> None:
    lying = {"p": dict.fromkeys(AUDITS, 0.6)}
    found = standings(board({"p": audited(0.1), "q": audited(0.1)}, lying))
    assert found["p"].verdicts == {Verdict.INCONSISTENT}
    assert found["p"].rank is None
    # Where held-out images are easier undefended too, the images are, and not the defense.
    alike = lying | {"none": dict.fromkeys(AUDITS, 1.0)}
    assert standings(board({"p": audited(0.1)}, alike))["p"].verdicts == frozenset()


def test_a_surrogate_that_the_black_box_beats_is_marked_and_keeps_its_rank() -> None:
    found = standings(board({"p": {"cosine": 0.0, "posterior_mean": 0.02, "black_box_decoder": 0.2}}))["p"]
    assert found.verdicts == {Verdict.SURROGATE_BEATEN}
    assert found.rank is not None


def test_only_a_strength_that_holds_a_rank_stands_for_its_family(make: SimpleNamespace) -> None:
    """Of `p` the strength 2 gains least by far, for its attacks stay below their floors: nobody knows its gain."""
    names, place = ("p(x=1)", "p(x=2)", "q"), {"dataset": "d", "model": "m"}
    gains = {"p(x=1)": audited(0.1), "p(x=2)": audited(-0.05), "q": audited(-0.05)}
    frame = board(gains, {own: dict.fromkeys(AUDITS, 0.29) for own in ("p(x=2)", "q")})
    parameters = {"p(x=1)": '[{"x": 1}]', "p(x=2)": '[{"x": 2}]'}
    frame["defense_parameters"] = frame["defense"].map(parameters).fillna("[{}]")
    jobs = make.frame(*(make.training(own, [0.8] * 3, **place) for own in ("none", *names)))
    found = {own.family: own for own in ranking_at_budgets(questions(frame), RULE, costs_of(jobs), (1.0,))}
    assert (found["p"].absence, found["q"].absence) == (None, Absence.NO_RANK)
    assert (found["p"].verdicts, found["q"].verdicts) == (frozenset(), {Verdict.BLIND})
    assert found["p"].strength is not None
    assert found["p"].strength.defense == "p(x=1)"
    assert found["p"].standing is not None
    assert found["p"].standing.rank is not None
    points = points_of(questions(frame)[0], costs_of(jobs), RULE)
    assert {name: own.claims for name, own in points.items()} == {
        "none": True, "p(x=1)": True, "p(x=2)": False, "q": False,
    }  # fmt: skip


def test_a_strength_that_is_blind_on_the_scored_part_alone_has_no_rank_and_the_verdict_is_named(
    make: SimpleNamespace,
) -> None:
    """Attacks gain on `p` under the seed that chooses strengths, and stay below their floors under the others."""
    place, uneven = {"dataset": "d", "model": "m"}, np.array([[0.2], [-0.1], [-0.1]]) + np.zeros((SEEDS, N))
    frame = board({"p": audited(uneven), "q": audited(0.1)}, {"p": dict.fromkeys(AUDITS, 0.31)})
    jobs = make.frame(*(make.training(own, [0.8] * 3, **place) for own in ("none", "p", "q")))
    assert standings(frame)["p"].rank is not None
    rows = ranking_at_budgets(questions(frame), RULE, costs_of(jobs), (1.0,))
    found = {own.family: own for own in rows}
    assert found["p"].absence is Absence.NO_RANK
    assert Verdict.BLIND in found["p"].verdicts
    assert (found["p"].strength, found["p"].standing) == (None, None)
    assert found["q"].standing is not None
    assert found["q"].standing.rank is not None
    text = render_standings(frame, "markdown", RULE, jobs)
    assert "| `p` | no rank [1] |" in text
    assert "[1] no rank at a budget: blind, inconsistent" in text
    assert "No rank: a verdict, which a footnote names" in text


@pytest.mark.parametrize("words", [SHORT_ABSENCES, ABSENCES], ids=["cells", "notes"])
def test_every_reason_for_which_a_family_has_no_strength_is_in_words(words: Mapping[Absence, str]) -> None:
    assert set(words) == set(Absence)
    assert all(words.values())


def test_where_a_verdict_leaves_no_family_a_rank_the_notes_name_it(make: SimpleNamespace) -> None:
    frame = board({"p": audited(-0.05)}, {"p": dict.fromkeys(AUDITS, 0.29)})
    jobs = make.frame(*(make.training(own, [0.8] * 3, dataset="d", model="m") for own in ("none", "p")))
    ranked = ranking(questions(frame), RULE, costs_of(jobs))
    rows = ranking_at_budgets(questions(frame), RULE, costs_of(jobs), (1.0,))
    notes = question_notes(ranked, [own for own in rows if own.family == "p"], RULE)
    assert [note for note in notes if note.startswith("No ranks at")] == [
        "No ranks at accuracy budgets: no rank, blind."
    ]


def test_a_defense_that_sees_more_images_costs_at_a_budget_what_it_loses_at_equal_images(make: SimpleNamespace) -> None:
    """By rules 1 four images an update cost nothing, for they learn more in as many rounds."""
    place = {"dataset": "d", "model": "m"}
    own = make.training("p", [0.8] * 3, **place, images_per_update=4)
    jobs = make.frame(make.training("none", [0.8] * 3, **place), [r | {"accuracy_at_equal_images": 0.7} for r in own])
    at = lambda rules, budget: next(
        found.absence
        for found in ranking_at_budgets(
            questions(board({"p": audited(0.1)})), replace(RULE, rules=rules), costs_of(jobs), (budget,)
        )
        if found.family == "p"
    )
    assert [at(rules, 1.0) for rules in (1, 2)] == [None, Absence.TOO_COSTLY]
    assert at(2, 10.0) is None


def without(frame: pd.DataFrame, attack: str, defense: str) -> pd.DataFrame:
    """The attack skipped on a defense, and its controls with it."""
    own = frame["attack"].str.contains(attack) & frame["defense"].eq(defense)
    blank = {"status": "skipped", "reason": "no rows of a label", "ssim": np.nan, "image": np.nan, "trial": np.nan}
    skipped = frame[own].groupby(["attack", "seed"], sort=False).head(1).assign(**blank, held_out_ssim=np.nan)
    return pd.concat([frame[~own], skipped], ignore_index=True)


def test_a_required_attack_is_missing_where_the_defense_stops_it_and_not_where_network_or_schedule_do() -> None:
    rule = RankingRule(rules=2, minimum_images=1, required=("cosine", "posterior_mean", "black_box_decoder"))
    frame = board({"p": audited(0.1)})
    stopped = without(frame, "posterior_mean", "p")
    assert standings(stopped, rule)["p"].verdicts >= {Verdict.INCOMPLETE}
    assert ranks(without(stopped, "posterior_mean", "none"), rule) == {"none": 2, "p": 1}
    larger = stopped.assign(images_per_update=np.where(stopped["defense"] == "p", 4, 1))
    assert ranks(larger, rule) == {"none": 2, "p": 1}


def test_a_question_is_ranked_if_one_required_attack_gains_the_margin_undefended() -> None:
    frame = board({"p": audited(0.1)})
    poor = frame["defense"].eq("none") & frame["attack"].eq("cosine")
    assert ranks(frame.assign(ssim=frame["ssim"].mask(poor, 0.2)))["p"] == 1
    every = frame["defense"].eq("none") & ~frame["control"]
    assert reason(frame.assign(ssim=frame["ssim"].mask(every, 0.31))).startswith("invalid: of the required attacks ")


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "csv", "json"])
def test_tables_name_both_intervals_and_show_each_seed_and_every_verdict(format: str) -> None:
    defenses = {"p": audited(0.1), "q": {"cosine": 0.1}}
    rule = RankingRule(rules=2, minimum_images=1, required=("cosine",))
    text = " ".join(render_standings(board(defenses), format, rule).split())
    assert "unaudited" in text
    assert "nan" not in text.lower()
    if format == "markdown":
        intervals = "| 95%, images and seeds | 95%, these seeds | each seed |"
        assert f"| SSIM gain {intervals} worst case | of undefended |" in text
        shown = r"0\.\d+ \| \[0\.0\d+, 0\.1\d+\] \| \[0\.0\d+, 0\.1\d+\] \| 0\.\d+ 0\.\d+ 0\.\d+ \|"
        assert re.search(r"\| `p` \| 1 \| " + shown, text)
        assert "posterior_mean and black_box_decoder have not both finished" in text
    if format == "json":
        row = json.loads(text)[1]
        assert len(json.loads(row["ssim_gain_by_seed"])) == SEEDS
        assert row["ssim_gain_low_given_seeds"] < row["ssim_gain"] < row["ssim_gain_high_given_seeds"]


def test_a_table_without_a_figure_is_left_out_and_verdicts_stand_wherever_ranks_do() -> None:
    whole = board({"p": audited(0.1), "q": audited(0.2)})
    ranked = render_standings(whole, "markdown", RULE)
    [heading] = [line for line in ranked.splitlines() if line.startswith("| defense | rank |")]
    assert heading.endswith("| verdicts |")
    nothing = render_standings(whole.assign(ssim=np.nan, identified=np.nan, underpowered=np.nan), "markdown", RULE)
    assert "| rank |" not in nothing
    assert "What it is made of" not in nothing


def test_an_attack_that_network_excludes_is_said_to_be_not_applicable() -> None:
    rule = RankingRule(rules=2, minimum_images=1, required=("cosine", "posterior_mean"))
    frame = without(without(board({"p": audited(0.1)}), "posterior_mean", "p"), "posterior_mean", "none")
    text = " ".join(render_standings(frame, "text", rule).split())
    assert "Not applicable, and so missing nowhere: posterior_mean (no rows of a label)." in text


def test_rules_that_nobody_has_written_judge_nobody() -> None:
    with pytest.raises(ValueError, match="rules must be one of 1, 2, got 3"):
        RankingRule(rules=3)
