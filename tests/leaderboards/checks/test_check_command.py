"""`leakboard submit check` as a whole: exit codes, what it says and never does, and whatever folder it is given."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from doctored import CASES, moved
from doctoring import Doctor, doctored, plan_once
from hostile import CORPUS
from tiny_board import BOARDS, PICTURES, TRAININGS
from tiny_board import PLUGIN as SIGNS

from bench.conformance.findings import Finding
from bench.engines import supervisor
from bench.errors import ConfigurationError
from bench.registry import sources
from bench.registry.registry import Registry
from leaderboards.checks import check as checking
from leaderboards.checks import rerun, submission
from leaderboards.checks.check import check_one, rank_changes
from leaderboards.checks.rules import check_rules
from leaderboards.checks.submission import Submission
from leaderboards.cli import boards
from leaderboards.cli.main import main
from leaderboards.entries import published as publishing
from leaderboards.entries.board import load_board
from leaderboards.entries.entry import read_entry
from leaderboards.entries.published import published
from leaderboards.entries.reviews import Conformance, Rerun, Review, SpotCheck, review_path, write_review
from leaderboards.evidence.code_reviews import CodeReview, Reading

ROOT = Path(__file__).parents[3]
MISSING = object()
FOUND = Rerun(what="mean PSNR in dB", cell=None, submitted=10.0, found=10.0, tolerance=0.5)


def told(folder, tiny, plugins=(), count=0, base=None, reviewer=None, planner=plan_once):
    """Whether the rules hold, and all that was said."""
    lines: list[str] = []
    return check_one(folder, tiny, Registry(plugins), count, base, reviewer, lines.append, planner), "\n".join(lines)


@pytest.fixture
def command(monkeypatch, capsys):
    """Gives `leakboard submit check` in this process: exit code, output and messages."""
    monkeypatch.setenv(supervisor.WORKER, "")
    monkeypatch.setattr(supervisor, "become_worker", lambda: None)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["leakboard", "submit", "check", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        told = capsys.readouterr()
        return leaving.value.code or 0, told.out, told.err

    return call


# The command


def test_the_command_exits_with_0_where_all_rules_hold(tiny):
    words = ["--published", str(tiny), str(tiny / TRAININGS / "noise"), str(tiny / PICTURES / "signs")]
    done = subprocess.run(
        [sys.executable, "-m", "leakboard", "submit", "check", *words],
        env={**os.environ, "LEAKBOARD_BOARDS": str(BOARDS), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("  holds    ") == 2 * 12


def test_the_command_exits_with_1_where_one_of_several_entries_breaks_a_rule_and_says_all(command, tiny, tmp_path):
    bad = doctored(tiny / PICTURES / "noise", tmp_path / "noise", CASES["edited_metric"].change)
    unknown = doctored(tiny / PICTURES / "noise", tmp_path / "unknown", CASES["unknown_board"].change)
    code, out, err = command("--published", tiny, tmp_path / "nowhere", bad, unknown, tiny / PICTURES / "noise")
    assert (code, err) == (1, "")
    assert "nowhere: it cannot be opened (No such file or directory)" in out
    assert "unknown board \\'easy-v1\\'" in out or "unknown board 'easy-v1'" in out
    assert "another entry noise is published" in out
    assert out.count("artefact-checked") == 1


def test_the_command_exits_with_2_where_it_is_used_wrongly(command, tiny):
    code, out, err = command("--published", tiny, tiny / PICTURES / "noise", "--plugin", "no-such-file.py")
    assert (code, out) == (2, "")
    assert "no-such-file.py does not exist" in err
    assert command("--published", tiny)[0] == 2


def test_a_check_computes_nothing_unless_it_is_asked_to(tiny, monkeypatch):
    monkeypatch.setattr(rerun, "_computed", lambda *_: pytest.fail("something was computed"))
    held, text = told(tiny / PICTURES / "signs", tiny)
    assert held, text


def test_an_entry_that_is_run_again_is_reviewed_and_then_ranked(tiny, tmp_path):
    here = tmp_path / "published"
    shutil.copytree(tiny, here)
    held, text = told(here / PICTURES / "signs", here, plugins=[SIGNS], count=1, reviewer="tester")
    assert held, text
    assert "figures are found again" in text
    assert "re-run; ranks" in text
    board = published(PICTURES, here)
    assert [entry.name for entry in board.ranked] == ["signs"]
    held, text = told(here / PICTURES / "signs", here, reviewer="tester")
    assert "keeps the review of its re-run" in text


def test_a_review_of_a_board_of_rules_1_is_written_as_it_always_was(tiny, tmp_path):
    here = tmp_path / "published"
    shutil.copytree(tiny, here)
    held, text = told(here / PICTURES / "noise", here, reviewer="tester")
    assert held, text
    written = json.loads(review_path(here / PICTURES, "noise").read_text())
    assert list(written) == ["entry_sha256", "state", "checked_by", "commit", "reruns"]


@pytest.mark.parametrize(
    ("broken", "low", "verdicts"),
    [([], 0.1, (False, False, False)), (["draws"], 0.1, (False, True, False)), ([], 0.9, (False, False, True))],
    ids=["kept", "suite broken", "outdone"],
)
def test_a_review_of_a_board_of_rules_2_holds_reader_conformance_and_spot_check(
    tiny, tmp_path, monkeypatch, broken, low, verdicts
):
    here, suites, rules = tmp_path / "published", [], load_board(PICTURES).rules.model_copy(update={"rules": 2})
    shutil.copytree(tiny, here)
    monkeypatch.setattr(publishing, "load_board", lambda name: replace(load_board(name), rules=rules))
    findings = [Finding("surrogate", "passed", ""), *(Finding(rule, "failed", "") for rule in broken)]

    def checked(call, plugins):
        suites.append((call, plugins))
        return iter(["a title", *findings])

    monkeypatch.setattr("bench.conformance.child.checked", checked)
    figures = {"gain": 0.95, "low": low, "entry_gain": 0.1, "entry_high": 0.2}
    spot = SpotCheck(defense="sign_compression", seed=1, weights="untrained", images=20, **figures)
    monkeypatch.setattr(submission, "spot_check", lambda *given: (spot,))
    lines: list[str] = []
    given = (here / PICTURES / "signs", here, Registry([SIGNS]), 1, None, "Ada", lines.append, plan_once)
    assert check_one(*given, read="It sends signs.")
    assert suites == [("sign_compression(scale=1.0)", (SIGNS,))]
    assert any(("OUTDONE" if verdicts[2] else "holds") in line and "spot check" in line for line in lines)
    board = published(PICTURES, here)
    review, reviews = board.reviews["signs"], board.rule.reviews
    assert (review.read_by, review.read, review.spot_checks) == ("Ada", "It sends signs.", (spot,))
    assert [own.failed for own in review.conformance] == [broken]
    row = {"defense": "sign_compression", "defense_name": "sign_compression"}
    assert (reviews.is_unread(row, proven=False), reviews.is_unheld(row), reviews.is_outdone(row)) == verdicts


def test_a_second_re_run_keeps_the_reader_and_every_spot_check_while_the_entry_is_the_same(tiny, tmp_path, monkeypatch):
    here, rules = tmp_path / "published", load_board(PICTURES).rules.model_copy(update={"rules": 2})
    shutil.copytree(tiny, here)
    monkeypatch.setattr(publishing, "load_board", lambda name: replace(load_board(name), rules=rules))
    monkeypatch.setattr(submission, "held", lambda *given: (Conformance(method="m", passed=["draws"], failed=[]),))
    monkeypatch.setattr(submission, "rerun", lambda *given: [FOUND])
    drawn = {"defense": "sign_compression", "weights": "untrained", "images": 20, "entry_gain": 0.1, "entry_high": 0.2}
    outdone, fair = SpotCheck(seed=1, gain=0.9, low=0.8, **drawn), SpotCheck(seed=2, gain=0.1, low=0.0, **drawn)
    assert (outdone.outdone, fair.outdone) == (True, False)

    def reviewed(name, spot, read=None):
        monkeypatch.setattr(submission, "spot_check", lambda *given: (spot,))
        lines: list[str] = []
        given = (here / PICTURES / "signs", here, Registry([SIGNS]), 1, None, name, lines.append, plan_once)
        assert check_one(*given, read=read), lines
        return published(PICTURES, here).reviews["signs"], lines[-1]

    first, said = reviewed("Ada", outdone, "It sends signs.")
    assert "which keeps" not in said
    second, said = reviewed("Bob", fair)
    assert said.endswith(", which keeps that Ada has read the code and 1 earlier spot check, 1 outdone")
    assert (second.checked_by, second.read_by, second.read) == ("Bob", "Ada", "It sends signs.")
    assert second.spot_checks == (*first.spot_checks, fair) == (outdone, fair)
    assert second.of_code.outdone
    third, said = reviewed("Eve", fair, "It sends signs, and no more.")
    assert said.endswith(", which keeps 2 earlier spot checks, 1 outdone")
    assert (third.read_by, third.read, third.spot_checks) == (
        "Eve",
        "It sends signs, and no more.",
        (outdone, fair, fair),
    )
    # Another entry of the same name is none that anybody has read.
    path = review_path(here / PICTURES, "signs")
    path.write_text(path.read_text().replace(third.entry_sha256, 64 * "0"))
    fresh, said = reviewed("Bob", fair)
    assert "which keeps" not in said
    assert (fresh.read_by, fresh.spot_checks) == (None, (fair,))


def test_a_verdict_that_withholds_a_rank_is_said_beside_it(tiny, tmp_path, monkeypatch):
    here, rules = tmp_path / "published", load_board(PICTURES).rules.model_copy(update={"rules": 2})
    shutil.copytree(tiny, here)
    monkeypatch.setattr(publishing, "load_board", lambda name: replace(load_board(name), rules=rules))
    entry, undefended = (read_entry(here / PICTURES / name) for name in ("signs", "undefended"))
    review = Review(entry_sha256=undefended.digest, state="re-run", checked_by="Ada", commit=None, reruns=[])
    write_review(here / PICTURES, "undefended", review)
    board, ranked = published(PICTURES, here), checking.ranking
    # Four images under one seed rank nobody, whatever the verdicts are.
    monkeypatch.setattr(checking, "ranking", lambda *given: [replace(own, unranked="") for own in ranked(*given)])
    assert all("-> - (unread, " in line for line in rank_changes(entry, board))
    read = CodeReview(Reading("Ada", "It sends signs."))
    assert not any("unread" in line for line in rank_changes(entry, board, read))


def test_a_reader_s_sentence_goes_with_a_review_and_a_re_run(command, tiny):
    code, _, err = command("--published", tiny, tiny / PICTURES / "signs", "--read", "It sends signs.")
    assert code == 2
    assert "give --review and --rerun with it" in err


def test_a_plugin_is_executed_once_by_a_check_with_a_re_run(tiny, monkeypatch):
    executed, execute = [], sources.from_file
    monkeypatch.setattr("bench.registry.registry.from_file", lambda path: executed.append(path) or execute(path))
    with pytest.raises(typer.Exit) as left:
        boards.check_entries([tiny / PICTURES / "signs"], rerun=1, plugin=[SIGNS], published=tiny)
    assert left.value.exit_code == 0
    assert executed == [SIGNS]


def test_a_plugin_of_another_file_is_a_fault_and_no_end_of_the_command(tiny, tmp_path):
    other = tmp_path / SIGNS.name
    other.write_text(SIGNS.read_text() + "\n")
    held, text = told(tiny / PICTURES / "signs", tiny, plugins=[other], count=1)
    assert not held
    assert "BROKEN   it can be run again:" in text
    assert "a re-run needs the plugin as submitted" in text
    held, text = told(tiny / PICTURES / "signs", tiny, count=1)
    assert not held


def test_what_is_found_differently_breaks_the_check(tiny, tmp_path, monkeypatch):
    here = tmp_path / "published"
    shutil.copytree(tiny, here)
    folder = doctored(here / PICTURES / "noise", tmp_path / "noise", CASES["noise_shown"].change)
    shutil.rmtree(here / PICTURES / "noise")
    folder.rename(here / PICTURES / "noise")
    every = rerun.sample_reruns
    monkeypatch.setattr(submission, "sample_reruns", lambda entry, required, count: every(entry, required, 99))
    held, text = told(here / PICTURES / "noise", here, count=1, reviewer="tester")
    assert not held
    assert "figures are found again:" in text
    assert "mean PSNR in dB of inverting_gradients" in text
    assert not review_path(here / PICTURES, "noise").exists()


# Folders


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_folder_is_refused_before_any_other_entry_is_read(name, tiny, tmp_path, monkeypatch):
    folder = tmp_path / "alone" / "noise"
    shutil.copytree(tiny / PICTURES / "noise", folder)
    CORPUS[name][0](folder)
    monkeypatch.setattr(checking, "published", lambda *_: pytest.fail("the board was read"))
    began = time.process_time()
    held, text = told(folder, tiny)
    took = time.process_time() - began
    assert not held
    assert "  REFUSED  " in text
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    assert len(text) < 1000
    assert took < 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
@pytest.mark.parametrize("case", ["devices", "packages", "updates", "keys"])
def test_a_million_wrong_values_are_refused_within_200_megabytes(case, tiny, tmp_path):
    many = [0] * 900_000

    def change(doctor: Doctor) -> None:
        if case == "devices":
            doctor.manifest["environment"]["devices"] = many
        elif case == "keys":
            doctor.cells[0]["columns"] |= {f"{i:x}": 0 for i in range(350_000)}
        elif case == "updates":
            doctor.cells[0]["updates"] = many
        else:
            doctor.manifest["environment"]["packages"] = {f"{i:x}": 0 for i in range(150_000)}

    folder = doctored(tiny / PICTURES / "noise", tmp_path / "noise", change)

    def memory(what: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024

    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    held, text = told(folder, tiny)
    assert not held
    assert "REFUSED" in text
    assert memory("VmHWM") - before < 200
    assert time.process_time() - began < 2


def test_a_link_a_file_and_nothing_are_refused_as_folders(tiny, tmp_path):
    (tmp_path / "noise").symlink_to(tiny / PICTURES / "noise")
    (tmp_path / "file").write_text("{}")
    for name, words in {"noise": "is a link", "file": "it is not a folder", "none": "cannot be opened"}.items():
        held, text = told(tmp_path / name, tiny)
        assert not held
        assert words in text


def test_the_name_of_a_folder_steers_no_terminal(tiny, tmp_path):
    folder = tmp_path / "\x1b[2J\u202enoise"
    shutil.copytree(tiny / PICTURES / "noise", folder)
    held, text = told(folder, tiny)
    assert not held
    assert text.replace("\n", "").isascii()
    assert text.replace("\n", "").isprintable()
    assert r"its folder is named \\x1b[2J" in text or r"its folder is named \x1b[2J" in text


def test_a_board_that_is_a_path_is_never_looked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda *_: pytest.fail("a folder was searched"))
    monkeypatch.setattr("leaderboards.entries.board.boards", dict)
    for name in ("../x", "/", ".", "..", "~", "a/b"):
        with pytest.raises(ConfigurationError, match="unknown board"):
            published(name, tiny)


def test_an_entry_under_another_board_is_of_no_board(tiny, tmp_path):
    here = tmp_path / "published"
    shutil.copytree(tiny, here)
    (here / PICTURES / "noise").rename(here / TRAININGS / "noise2")
    moved_here = here / TRAININGS / "noise2"
    doctor = Doctor(moved_here)
    doctor.manifest["name"] = "noise2"
    doctor.close()
    held, text = told(moved_here, here)
    assert not held
    assert "it lies under tiny-trainings-v1, but is an entry of tiny-pictures-v1" in text
    with pytest.raises(ConfigurationError, match="but is an entry of"):
        published(TRAININGS, here)


# Changes in a clone


def git(folder, *words):
    name = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


@pytest.fixture
def clone(tiny, tmp_path):
    """A clone whose tag `base` holds the published entries but one, and that one in the next commit."""
    here = tmp_path / "clone"
    entries = here / "published"
    shutil.copytree(tiny, entries)
    new = shutil.move(entries / PICTURES / "signs", tmp_path / "signs")
    git(tmp_path, "init", "-q", str(here))
    git(here, "add", "-A")
    git(here, "commit", "-qm", "base")
    git(here, "tag", "base")
    shutil.move(new, entries / PICTURES / "signs")
    git(here, "add", "-A")
    git(here, "commit", "-qm", "one more")
    return here


def commit(clone):
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "more")
    return told(clone / "published" / PICTURES / "signs", clone / "published", base="base")


def test_a_proposal_of_one_entry_changes_nothing_else(clone):
    held, text = told(clone / "published" / PICTURES / "signs", clone / "published", base="base")
    assert held, text
    assert "holds    nothing else has changed since base" in text


def test_an_earlier_entry_that_is_changed_on_the_way_is_found(clone):
    doctor = Doctor(clone / "published" / PICTURES / "undefended")
    doctor.manifest["note"] = "weaker"
    doctor.close()
    held, text = commit(clone)
    assert not held
    assert "undefended/entry.json was changed: a submission adds one folder" in text


def test_a_review_that_a_submission_brings_is_found_by_git_and_holds_for_its_digest_alone(clone):
    entries = clone / "published"
    entry = read_entry(entries / PICTURES / "signs")
    forged = Review(entry_sha256="0" * 64, state="re-run", checked_by="somebody", commit=None, reruns=[])
    write_review(entries / PICTURES, "signs", forged)
    assert published(PICTURES, entries).state("signs") == "self-reported"
    write_review(entries / PICTURES, "signs", forged.model_copy(update={"entry_sha256": entry.digest}))
    assert published(PICTURES, entries).state("signs") == "re-run"
    held, text = commit(clone)
    assert not held
    assert "signs.review.json was added" in text


def test_a_published_entry_that_is_checked_again_and_was_changed_is_found(clone):
    git(clone, "tag", "-f", "base")
    doctor = Doctor(clone / "published" / PICTURES / "signs")
    doctor.manifest["note"] = "better"
    doctor.close()
    held, text = commit(clone)
    assert not held
    assert "a published entry stays as it is" in text


def test_a_base_that_git_does_not_know_is_no_fault_of_the_entry(clone):
    with pytest.raises(ConfigurationError, match="fetch it, or leave --base out"):
        told(clone / "published" / PICTURES / "signs", clone / "published", base="nowhere")


# Whatever a stranger writes


ABSURD = [
    None, True, 0, 1, -1, 7, 2**53, 1e308, -0.0, 5e-324, "", "none", "x" * 200, "\u05d0" * 50, [], {}, [None], [[]],
    ["0" * 64], {"": 0}, [0, 1, 2, 3], "untrained", "known", "dp_sgd(noise_multiplier=0.5) | none", [{}], [{}, {}],
    "inverting_gradients(iterations=20, tv_weight=0.01)", "wrong_image(of='linear_layer')", "ok", "skipped", 0.5,
]  # fmt: skip


def mutated(value, rng):
    """The value with one place in it removed, doubled, or replaced by something absurd or from elsewhere in it."""
    value = copy.deepcopy(value)
    places, found = [(None, None)], [value]
    for inner in found:
        pairs = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, item in pairs:
            places.append((inner, key))
            found.append(item)
    # Keys first: lists of numbers are most of all places.
    named = [place for place in places if isinstance(place[0], dict)]
    holder, key = rng.choice(named if named and rng.random() < 0.7 else places[1:])
    what = rng.random()
    if what < 0.15:
        del holder[key]
    elif what < 0.3:
        holder[key] = copy.deepcopy(rng.choice(found))
    elif what < 0.4 and isinstance(holder[key], list):
        holder[key] = holder[key] * 2
    elif what < 0.5 and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice([-1, 0, 2, 0.5, 1e10])
    else:
        holder[key] = copy.deepcopy(rng.choice(ABSURD))
    return value


@pytest.mark.parametrize("honest", [(PICTURES, "noise"), (PICTURES, "signs"), (TRAININGS, "noise")], ids=str)
def test_nothing_that_a_stranger_writes_ends_a_check_otherwise_than_by_a_rule(honest, tiny, tmp_path):
    board, name = honest
    rng, boards = random.Random(board + name), {board: published(board, tiny)}
    folder = tmp_path / name
    outcomes = {"refused": 0, "faults": 0, "held": 0}
    for number in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny / board / name, folder)
        doctor = Doctor(folder)
        for _ in range(rng.choice([1, 1, 1, 3])):
            spoil(doctor, rng)
        doctor.close()
        try:
            entry = read_entry(folder)
            if entry.manifest.board != board:
                continue
            report = check_rules(Submission(entry, boards[board], folder, planner=plan_once))
            if report.ok and outcomes["held"] < 3:
                rank_changes(entry, boards[board])
        except ConfigurationError:
            outcomes["refused"] += 1
        except Exception as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
        else:
            outcomes["held" if report.ok else "faults"] += 1
    assert outcomes["refused"] > 10
    assert outcomes["faults"] > 10


def spoil(doctor, rng):
    """Change one place of a cell, of the jobs, or of the manifest, where closing still finds what it needs."""
    what = rng.random()
    if what < 0.5:
        index = rng.randrange(len(doctor.cells))
        changed = mutated(doctor.cells[index], rng)
        if not isinstance(changed.get("identity"), dict) or not isinstance(changed["identity"].get("cell"), str):
            return
        if "/" in changed["identity"]["cell"] or len(changed["identity"]["cell"]) > 60 or "sheet" not in changed:
            return
        if isinstance(changed["sheet"], str | None):
            doctor.cells[index] = changed
    elif what < 0.75 and doctor.jobs:
        index = rng.randrange(len(doctor.jobs))
        doctor.jobs[index] = mutated(doctor.jobs[index], rng)
    else:
        changed = mutated(doctor.manifest, rng)
        if isinstance(changed.get("truth"), str):
            doctor.manifest = changed


def test_absurd_cells_of_every_kind_are_said_in_few_short_lines(tiny, tmp_path):
    def change(doctor):
        for cell in doctor.cells:
            cell["identity"]["attack_parameters"] = {"\u05d0" * 100: ["\u05d0" * 1900] * 50}
            cell["reason"] = "x" * 1900
        moved(doctor, "absurd")

    folder = doctored(tiny / PICTURES / "signs", tmp_path / "signs", change)
    held, text = told(folder, tiny)
    assert not held
    assert len(text) < 5000
    assert text.replace("\n", "").isascii()


def test_a_line_about_ranks_names_the_threat_model_where_it_is_not_the_usual_one():
    usual = {"model": "lenet", "weights": "untrained", "labels": "known", "batch_norm": "running"}
    assert checking._question_text(usual) == "lenet, untrained, known"
    assert checking._question_text({**usual, "batch_norm": "batch"}) == "lenet, untrained, known, batch_norm = batch"
