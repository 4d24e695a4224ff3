"""What one entry can do to another on the site: nothing to its figures, however it is called."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import time
from dataclasses import replace

import pytest
from made_entries import BOARD, NONE, board_of, make_entry
from tiny_board import PUBLIC
from typer.testing import CliRunner

from bench.errors import ConfigurationError
from leaderboards.cli.site import site_commands
from leaderboards.entries.entry import read_entry
from leaderboards.entries.published import published
from leaderboards.entries.reviews import Review, write_review
from leaderboards.evidence.question import questions
from leaderboards.site.board_page import board_view
from leaderboards.site.build import command_of, write, write_site
from leaderboards.site.defense_page import curves, pages_of
from leaderboards.site.lines import gain_figure
from leaderboards.site.results import results
from leaderboards.site.text import significant_text

MINE = [(f"zeros(part={part})", "zeros", [{"part": part}], share) for part, share in ((0.5, 0.3), (1.0, 0.0))]
THEIRS = [(f"zeros(part={part})", "zeros", [{"part": part}], 0.2) for part in (0.6, 0.8)]


RULES_2 = BOARD.replace("[board]\n", "[board]\nrules = 2\n")


@pytest.mark.parametrize("text", [BOARD, RULES_2], ids=["rules 1", "rules 2"])
def test_a_defense_with_more_images_has_both_losses_on_its_page_and_the_one_of_the_rules_on_the_board(tmp_path, text):
    with board_of(tmp_path / "boards", text):
        for name, defenses, images in (("none", [NONE], 1), ("mine", MINE, 4)):
            make_entry(tmp_path / "published" / "made-up", name, defenses, images=images)
            run_again(tmp_path / "published" / "made-up", name)
        _, view = view_of(tmp_path / "published")
        write_site(tmp_path / "site", tmp_path / "published")
    line = next(own for own in view.lines if own.defense == "zeros(part=0.5)")
    words = "at equal images" if text == BOARD else "at equal rounds"
    lost = 40 * (NONE[3] - 0.3)
    assert float(line.figures["lost"].text) == pytest.approx(lost + 3 * (text == RULES_2), abs=0.05)
    assert float(line.beside[f"points lost {words}"].text) == pytest.approx(lost + 3 * (text == BOARD), abs=0.05)
    [page] = (tmp_path / "site" / "made-up" / "defenses").glob("zeros-*.html")
    assert f"<dt>points lost {words}</dt>" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(("text", "said"), [(BOARD, 1), (RULES_2, 2)])
def test_a_board_speaks_of_the_rules_by_which_it_is_ranked(tmp_path, text, said):
    with board_of(tmp_path / "boards", text):
        make_entry(tmp_path / "published" / "made-up", "none", [NONE])
        run_again(tmp_path / "published" / "made-up", "none")
        write_site(tmp_path / "site", tmp_path / "published")
    page = (tmp_path / "site" / "made-up" / "index.html").read_text(encoding="utf-8")
    [defense] = (tmp_path / "site" / "made-up" / "defenses").glob("*.html")
    words = {
        1: [
            "Worst case over all attacks",
            "Per image what",
            "strongest on most images",
            "over all rounds",
            "works undefended",
        ],
        2: [
            "The strongest attack by its mean",
            "by its mean gain",
            "test accuracy lost at equal images",
            "<dt>blind</dt>",
            "conformance suite",
        ],
    }
    assert f"Ranked by rules {said}" in page
    assert all(
        (word in page) == (rules == said) for rules, own in words.items() for word in own if "rounds" not in word
    )
    floors = {1: "own floor, image by image", 2: "own floor, by their means"}
    assert [rules for rules, word in floors.items() if word in defense.read_text(encoding="utf-8")] == [said]
    method = (tmp_path / "site" / "method.html").read_text(encoding="utf-8")
    assert f'made-up/index.html">Made up</a></th><td class="number">{said}</td>' in method


@pytest.mark.parametrize("text", [BOARD, RULES_2])
def test_a_defense_with_as_many_images_has_one_loss(tmp_path, text):
    with board_of(tmp_path / "boards", text):
        make_entry(tmp_path / "published" / "made-up", "none", [NONE])
        run_again(tmp_path / "published" / "made-up", "none")
        _, view = view_of(tmp_path / "published")
    assert not any(line.beside for line in view.lines)


def run_again(folder, name):
    digest = {"entry_sha256": read_entry(folder / name).digest, "state": "re-run", "checked_by": "me"}
    write_review(folder, name, Review.model_validate(digest | {"commit": None, "reruns": []}))


def view_of(folder):
    found = results(published("made-up", folder))
    [view] = board_view(found).questions.values()
    return found, view


def marks(view):
    """Everything of a mark but where the scale of the drawing puts it."""
    return {mark.defense: (mark.kind, mark.words, mark.anchor, mark.look) for mark in view.plot.marks}


@pytest.fixture
def made(tmp_path):
    """A folder with two entries that were run again, the undefended client and `zeros` at two strengths."""
    with board_of(tmp_path / "boards"):
        for name, defenses in (("none", [NONE]), ("mine", MINE)):
            make_entry(tmp_path / "published" / "made-up", name, defenses)
            run_again(tmp_path / "published" / "made-up", name)
        yield tmp_path / "published"


def test_a_self_reported_entry_changes_no_mark_front_or_figure_of_one_that_was_run_again(made):
    _, before = view_of(made)
    assert {mark.kind for mark in before.plot.marks} == {"full"}
    # Another's code of the same name that breaks its proof, on more seeds than anybody else's.
    make_entry(made / "made-up", "zzz", THEIRS, seeds=2, picked=190)
    found, after = view_of(made)
    assert marks(before).items() <= marks(after).items()
    assert [mark.kind for mark in after.plot.marks if mark.defense == THEIRS[0][0]] == ["broken"]
    assert after.plot.front
    assert len(before.plot.front.split("H")) == len(after.plot.front.split("H"))
    assert {line.defense: line for line in before.lines}.items() <= {line.defense: line for line in after.lines}.items()
    [standings] = found.standings.values()
    assert next(own for own in standings if own.defense == MINE[0][0]).strongest is not None


def test_evidence_is_made_once_for_all_that_a_board_s_page_shows(made, monkeypatch):
    make_entry(made / "made-up", "zzz", THEIRS)
    calls = []
    monkeypatch.setattr("leaderboards.site.results.questions", lambda frame: calls.append(frame) or questions(frame))
    view_of(made)
    assert len(calls) == 1


def test_strengths_of_two_entries_are_not_joined_whatever_they_are_called(made):
    make_entry(made / "made-up", "zzz", THEIRS)
    found, view = view_of(made)
    joined = {member.title: member.path.count("L") for member in view.plot.members}
    assert joined == {"none": 0, "zeros: part (mine)": 1, "zeros: part (zzz)": 1}
    [standings] = found.standings.values()
    for own in (MINE, THEIRS):
        [curve] = curves(standings, [label for label, *_ in own])
        assert len(curve.dots) == 2
        assert curve.by == "part"


def test_a_lower_bound_is_one_in_the_table_the_plot_and_the_curves(made):
    found, view = view_of(made)
    [standings] = found.standings.values()
    weak = [replace(standing, underpowered=0.01) for standing in standings]
    assert all(gain_figure(standing).text.startswith("≥ ") for standing in weak)
    [curve] = curves(weak, [label for label, *_ in MINE])
    assert all("SSIM gain ≥ 0." in dot.words for dot in curve.dots)
    assert not any("≥" in mark.words for mark in view.plot.marks)
    standings[:] = weak
    [view] = board_view(found).questions.values()
    assert all("SSIM gain ≥ 0." in mark.words for mark in view.plot.marks)


def test_no_figure_on_a_drawing_is_minus_nothing(made):
    make_entry(made / "made-up", "zzz", [("zeros", "zeros", [{}], 0.9005)])
    _, view = view_of(made)
    assert any("zeros: 0.0 points of accuracy lost" in mark.words for mark in view.plot.marks)


def test_the_page_of_a_defense_says_who_has_read_its_code_and_which_rules_it_breaks(made):
    folder = made / "made-up"
    digest = {"entry_sha256": read_entry(folder / "mine").digest, "state": "re-run", "checked_by": "me"}
    suite = [{"method": "zeros(part=0.5)", "passed": ["surrogate"], "failed": ["draws"]}]
    code = {"read_by": "Ada", "read": "It sends <nothing>.", "conformance": suite}
    figures = {"gain": 0.4, "low": 0.3, "entry_gain": 0.1, "entry_high": 0.2}
    code |= {"spot_checks": [{"defense": "zeros", "seed": 7, "weights": "untrained", "images": 20, **figures}]}
    write_review(folder, "mine", Review.model_validate(digest | {"commit": None, "reruns": []} | code))
    write_site(made.parent / "site", made)
    page = (made.parent / "site" / "made-up" / pages_of(results(published("made-up", made)))[MINE[0][0]]).read_text()
    assert "<dt>Read by</dt><dd>Ada: It sends &lt;nothing&gt;.</dd>" in page
    assert "breaks draws" in page
    assert "gain 0.400, at least 0.300; the entry shows 0.100, at most 0.200" in page


def test_seeds_have_pages_that_are_linked_and_the_gallery_says_which_it_shows(tmp_path):
    with board_of(tmp_path / "boards"):
        make_entry(tmp_path / "published" / "made-up", "none", [NONE], seeds=2)
        write_site(tmp_path / "site", tmp_path / "published")
    own = tmp_path / "site" / "made-up"
    [defense] = own.glob("defenses/*.html")
    linked = set(re.findall(r'href="../(cells/[^"]+)"', defense.read_text()))
    assert linked == {f"cells/{path.name}" for path in own.glob("cells/*.html")}
    assert len(linked) == 24
    assert "seed 0" in defense.read_text()
    assert {re.search(r"seed (.) of", path.read_text())[1] for path in own.glob("cells/*.html")} == {"0", "1"}


def test_the_command_is_made_of_labels_and_never_of_a_submitters_words(tmp_path):
    say = lambda text: f"{text}; rm -rf ~"
    with board_of(tmp_path / "boards"):
        make_entry(tmp_path / "published" / "made-up", "noise", [("zeros", "zeros", [{}], 0.1)], say)
        own = published("made-up", tmp_path / "published")
    words = shlex.split(command_of(own.entries[0], own.board))
    attacks = ["--attack", "label_rule; rm -rf ~", "--attack", "linear_layer; rm -rf ~"]
    assert words[:5] == ["leakboard", "run", "board:made-up", "--defense", "zeros; rm -rf ~"]
    assert sorted(words[5:]) == sorted([*attacks, "--plugin", "noise.py"])


def test_epsilon_is_beside_its_delta_and_no_duration_has_an_exponent(made):
    _, view = view_of(made)
    proven = next(line for line in view.lines if line.figures["epsilon"].sort)
    assert proven.figures["epsilon"].beside == "delta 1e-05"
    assert view.facts.endswith("identified in a pool of 100, chance 1%")
    texts = [significant_text(value) for value in (0, 0.00421, 1.5, 99.96, 1234.5, 3.2e9)]
    assert texts == ["0", "0.00421", "1.50", "100.0", "1,234", "3,200,000,000"]


def test_no_page_is_written_twice(tmp_path):
    write(tmp_path, "a/b.html", b"first")
    with pytest.raises(ConfigurationError, match="two files of the site are called a"):
        write(tmp_path, "a/b.html", b"second")
    assert (tmp_path / "a" / "b.html").read_bytes() == b"first"


def test_ctrl_c_leaves_no_half_of_a_site(tmp_path, monkeypatch):
    def interrupted(folder):
        yield "index.html", b"begun"
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr("leaderboards.site.build._site", interrupted)
    (tmp_path / "published").mkdir()
    before = signal.getsignal(signal.SIGINT)
    options = ["build", "-o", str(tmp_path / "site"), "--published", str(tmp_path / "published")]
    done = CliRunner().invoke(site_commands, options)
    assert done.exit_code == 130
    assert "stopped" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_page_of_a_cell_shows_all_answers_to_held_out_clients_and_no_label_of_one_of_them(tiny, tmp_path):
    shutil.copytree(tiny / PUBLIC, tmp_path / "published" / PUBLIC)
    write_site(tmp_path / "site", tmp_path / "published")
    [entry] = [own for own in published(PUBLIC, tiny).entries if own.name == "undefended"]
    [cell] = [own for own in entry.cells if own.identity.attack == "same_class(of='posterior_mean')"]
    [page] = (tmp_path / "site" / PUBLIC / "cells").glob(f"*-{cell.identity.cell}.html")
    text = page.read_text()
    assert "answers to 4 held-out clients for each image" in text
    assert ">found<" not in text
    assert ">label<" in text
