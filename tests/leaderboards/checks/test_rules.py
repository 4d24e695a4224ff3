"""Rules of an entry's check: honest entries hold to all, and every lie is found by the rule that is there for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from doctored import CASES, PLUGIN, READING, RERUN, attacked, table
from doctoring import Doctor, doctored, plan_once
from tiny_board import ENTRIES, PICTURES, PUBLIC, TRAININGS
from tiny_board import PLUGIN as SIGNS

from bench.errors import ConfigurationError
from bench.registry.registry import Registry
from leaderboards.checks.jobs import job_faults
from leaderboards.checks.rerun import RerunSample, check_plugin, fault, rerun, sample_reruns
from leaderboards.checks.rules import ENTRY_RULES, check_rules
from leaderboards.checks.submission import Submission
from leaderboards.entries.entry import read_entry
from leaderboards.entries.published import published
from tools.detection import DETECTION_PAGE

RUN_AGAIN = ("code", "rerun", "figures")


@pytest.fixture(scope="module")
def boards(tiny):
    return {board: published(board, tiny) for board in (PICTURES, TRAININGS, PUBLIC)}


def checked(folder, boards, *, alone=True, plugins=()):
    """The report on an entry, beside all others of its board, or beside those of other names."""
    entry = read_entry(folder)
    board = boards[entry.manifest.board]
    if alone:
        board = replace(board, entries=tuple(other for other in board.entries if other.name != entry.name))
    submission = Submission(entry, board, folder, registry=Registry(plugins), planner=plan_once)
    return submission, check_rules(submission)


def broken(report):
    """The faults of every broken rule, by its name."""
    return {answer.rule.name: answer.faults for answer in report.broken}


@pytest.mark.parametrize("honest", ENTRIES, ids=lambda honest: f"{honest.board}/{honest.name}")
def test_an_honest_entry_holds_to_every_rule(honest, tiny, boards):
    _, report = checked(tiny / honest.board / honest.name, boards, alone=False)
    assert broken(report) == {}
    assert report.open == []
    assert [one.rule.name for one in report.held] == [
        r.name for r in ENTRY_RULES if r.name not in ("changes", *RUN_AGAIN)
    ]
    if honest.plugin:
        _, report = checked(tiny / honest.board / honest.name, boards, alone=False, plugins=[honest.plugin])
        assert broken(report) == {}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.rule not in (READING, RERUN)])
def test_a_lie_is_found_by_its_rule_alone(name, tiny, boards, tmp_path):
    case = CASES[name]
    folder = doctored(tiny / case.board / case.entry, tmp_path / case.entry, case.change)
    plugins = [SIGNS] if case.rule == PLUGIN else []
    _, report = checked(folder, boards, alone=case.rule != "place", plugins=plugins)
    [(rule, faults)] = broken(report).items()
    assert rule == ("cells" if case.rule == PLUGIN else case.rule)
    assert any(case.says in text for text in faults), faults
    if case.rule == PLUGIN:
        assert checked(folder, boards)[1].ok, "without the file it is taken at its word"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.rule == READING])
def test_a_lie_about_files_is_refused(name, tiny, tmp_path):
    case = CASES[name]
    folder = doctored(tiny / case.board / case.entry, tmp_path / case.entry, case.change)
    with pytest.raises(ConfigurationError) as found:
        published(read_entry(folder).manifest.board, tiny)
    assert case.says in str(found.value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.rule == RERUN])
def test_a_lie_that_artefacts_hide_is_found_by_computing_again(name, tiny, boards, tmp_path):
    case = CASES[name]
    folder = doctored(tiny / case.board / case.entry, tmp_path / case.entry, case.change)
    submission, report = checked(folder, boards)
    assert broken(report) == {}
    entry = submission.entry
    again = (case.again or attacked)(Doctor(folder))
    cell = again if "identity" in again else Doctor(folder).cell("grey_image")
    chosen = RerunSample(
        tuple(own for own in entry.cells if own.identity.cell == cell["identity"]["cell"]),
        tuple(job for job in entry.jobs if job.job == again.get("job")),
    )
    compared = rerun(submission.plan, chosen, entry, submission.registry, lambda _: None)
    found = [text for one in compared if (text := fault(one))]
    assert any(case.says in text for text in found), found


@pytest.mark.parametrize(
    ("rules", "rounds", "is_asked"), [(2, 10, True), (1, 10, False), (2, 9, False)], ids=["2", "1", "too few rounds"]
)
def test_by_rules_2_a_training_that_sees_more_images_states_its_accuracy_at_equal_images(
    tiny, boards, tmp_path, rules, rounds, is_asked
):
    """Ten images an update: in ten rounds undefended training sees what the first round of these does."""

    def leave_out(doctor):
        for job in doctor.jobs:
            job["figures"].pop("accuracy_at_equal_images", None)

    def planner(*asked):
        plan = plan_once(*asked)
        board = plan.config.board.model_copy(update={"rules": rules})
        utility = plan.config.utility.model_copy(update={"rounds": rounds})
        return replace(plan, config=plan.config.model_copy(update={"board": board, "utility": utility}))

    for name, missing in (("tens", is_asked), ("noise", False)):
        folder = doctored(tiny / TRAININGS / name, tmp_path / name, leave_out)
        found = job_faults(Submission(read_entry(folder), boards[TRAININGS], folder, planner=planner))
        assert ["accuracy_at_equal_images is missing" in text for text in found] == [True] * 2 * missing


def test_without_the_undefended_entry_the_rules_that_compare_with_it_stay_open(tiny, boards):
    board = replace(boards[PICTURES], entries=())
    folder = tiny / PICTURES / "noise"
    report = check_rules(Submission(read_entry(folder), board, folder, planner=plan_once))
    assert report.ok
    assert [one.rule.name for one in report.open] == ["reference", "floors"]
    assert {one.reason for one in report.open} == {
        "there is no undefended entry to compare with; give the --published that has it"
    }


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ("another_board_file", ["place", "folder"]),
        ("large_batches", ["place", "limits", "folder"]),
        ("unknown_parameter", ["place", "limits", "methods", "folder"]),
        ("permuted_truth", ["place", "limits", "methods", "configuration", "truth", "folder"]),
        ("dropped_cell", ["place", "limits", "methods", "configuration", "truth", "cells", "folder"]),
    ],
)
def test_a_rule_is_asked_only_when_the_rules_hold_that_it_builds_on(change, asked, tiny, boards, tmp_path):
    case = CASES[change]
    folder = doctored(tiny / case.board / case.entry, tmp_path / case.entry, case.change)
    _, report = checked(folder, boards)
    assert [one.rule.name for one in report.answers] == asked


def test_missing_images_of_the_board_are_no_fault_of_the_entry(tiny, boards):
    published_board = boards[PICTURES]
    elsewhere = {"grid": {**published_board.board.grid["grid"], "dataset": "no-such-images"}}
    board = replace(published_board, board=replace(published_board.board, grid=elsewhere))
    folder = tiny / PICTURES / "noise"
    with pytest.raises(ConfigurationError, match="no-such-images"):
        check_rules(Submission(read_entry(folder), board, folder, planner=plan_once))


def test_nothing_is_computed_again_of_an_entry_that_breaks_a_rule(tiny, boards, tmp_path):
    case = CASES["edited_metric"]
    folder = doctored(tiny / case.board / case.entry, tmp_path / case.entry, case.change)
    report = check_rules(Submission(read_entry(folder), boards[PICTURES], folder, planner=plan_once, rerun_count=1))
    assert not {one.rule.name for one in report.answers} & set(RUN_AGAIN)


def test_the_page_shows_every_case():
    shown = f"<!-- lies -->\n{table()}\n<!-- end of lies -->"
    assert shown in DETECTION_PAGE.read_text(encoding="utf-8"), "run make reference"


# Drawing


def test_what_is_drawn_follows_from_the_seed_and_brings_its_floors(tiny):
    entry = read_entry(tiny / TRAININGS / "noise")
    required = ["inverting_gradients(iterations=5, tv_weight=0.01)", "linear_layer", "label_rule"]
    chosen = sample_reruns(entry, required, 1, seed=3)
    assert chosen == sample_reruns(entry, required, 1, seed=3)
    names = [cell.identity.attack_name for cell in chosen.cells]
    assert names[0] in ("inverting_gradients", "linear_layer")
    assert names[1] == "label_rule"
    assert set(names[2:]) == {"grey_image", "dataset_mean", "class_mean", "prior_only"}
    assert [job.kind for job in chosen.jobs] == ["training", "certificate"]
    assert len({sample_reruns(entry, required, 1, seed=seed).cells[0].identity.cell for seed in range(20)}) == 2


def test_attacks_that_an_entry_adds_are_drawn_beside_the_boards(tiny):
    entry = read_entry(tiny / PICTURES / "noise")
    chosen = sample_reruns(entry, ["linear_layer"], 1, seed=0)
    assert [cell.identity.attack_name for cell in chosen.cells[:2]] == ["linear_layer", "inverting_gradients"]


# Plugins


def test_a_plugin_is_run_again_only_as_it_was_submitted(tiny, tmp_path):
    entry = read_entry(tiny / PICTURES / "signs")
    check_plugin(entry, Registry([SIGNS]))
    with pytest.raises(ConfigurationError, match="needs the plugin as submitted"):
        check_plugin(entry, Registry())
    other = tmp_path / SIGNS.name
    other.write_text(SIGNS.read_text() + "\n")
    with pytest.raises(ConfigurationError, match=r"signs at 000000000000 with --plugin"):
        check_plugin(entry, Registry([other]))


def test_a_defense_without_public_code_is_never_run_again(tiny, tmp_path):
    def nameless(doctor):
        doctor.manifest["plugin"] = None

    folder = doctored(tiny / PICTURES / "signs", tmp_path / "signs", nameless)
    with pytest.raises(ConfigurationError, match="not built in, and the entry names no plugin"):
        check_plugin(read_entry(folder), Registry([SIGNS]))
