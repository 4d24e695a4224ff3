"""Every command, file and snippet that the documents show is run, with less to compute; every link leads somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from reference_commands import options, walk

from leaderboards.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *(f"docs/{name}.md" for name in ("quickstart", "run-a-board", "submit", "how-numbers-are-made"))]
LINKED = [*PAGES, "docs/reference.md", "CONTRIBUTING.md", "CHANGELOG.md"]
QUICK = """
[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 2
attacks = [{ name = "inverting_gradients", iterations = 2 }]
defenses = ["none"]
threat = { defense_known = [false, true] }
"""
TINY = """
[board]
title = "Tiny"
summary = "Two images of MNIST, for tests."
required = ["inverting_gradients(iterations=2)", "linear_layer", "label_rule"]
minimum_images = 2

[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 2
attacks = [{ name = "inverting_gradients", iterations = 2 }, "linear_layer", "label_rule"]
threat = { labels = "known", schedule_known = true, defense_known = [false, true] }
"""
INSTEAD = {
    # Setting up is what `make test` has done.
    "make run\n. .venv/bin/activate": "leakboard run quick.toml",
    "make run  ": ":  ",
    "make test  ": ":  ",
    ". .venv/bin/activate": ":",
    # The same commands on less.
    "leakboard run quick ": "leakboard run quick.toml ",
    'bench.run("quick")': 'bench.run("quick.toml")',
    "cifar10-samples-v1": "tiny-v1",
    "iterations = 600": "iterations = 2",
    "iterations = 1200": "iterations = 2",
    "iterations = 12 ": "iterations = 2 ",
    "iterations=600": "iterations=2",
    "iterations=12)": "iterations=2)",
    "images = 20": "images = 2",
    'dataset = "fashion-mnist"\nmodels = ["lenet-zhu"]': 'dataset = "digits"\nmodels = ["mlp"]',
    "images = 100": "images = 2",
    "images   = 8": "images   = 4",
    "ratio = [0.5, 0.9, 0.99]": "ratio = [0.9]",
    "noise_multiplier = [0.001, 0.01]": "noise_multiplier = [0.01]",
    "examples = [4, 8]": "examples = [4]",
    "epochs = [1, 5]": "epochs = [1]",
    "rounds = 2400": "rounds = 2",
    "clients = 50 ": "clients = 2 ",
    "seeds = [0, 1, 2]": "seeds = [0]",
    "candidates = 20": "candidates = 2",
    "trials = 200": "trials = 2",
}
"""What stands in the documents -> what is run instead."""
NAMED = re.compile(r'(?:# |""")([\w./-]+\.(?:toml|py))(?:"""|\n)')
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def clone(tmp_path):
    """A folder like a clone of the project, with an origin to push to; `leakboard` is this tree's."""
    (tmp_path / "bin").mkdir()
    for name, words in {"leakboard": "-P -m leakboard", "python": ""}.items():
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        command.chmod(0o755)
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "tiny-v1.toml").write_text(TINY)
    here = tmp_path / "clone"
    (here / "leaderboards" / "published").mkdir(parents=True)
    (here / "quick.toml").write_text(QUICK)
    (here / "boards").mkdir()
    start = """
        git init -q --initial-branch=main . && git add quick.toml && git commit -qm start
        git clone -q --bare . ../origin && git remote add origin ../origin && git fetch -q
    """
    called(here, start)
    return here


def called(here, script):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    who = {f"GIT_{role}_{what}": "n@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    own = {
        "PATH": f"{here.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "LEAKBOARD_BOARDS": str(here.parent / "boards"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=os.environ | who | own,
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def small(text):
    for what, instead in INSTEAD.items():
        text = text.replace(what, instead)
    return text


RUN = [page if page == "docs/submit.md" else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
"""The whole path of an entry is always run; the other pages take a minute or two each."""


def blocks(page):
    """The blocks of a page, with what is run instead."""
    return BLOCK.findall(small((ROOT / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_is_there_with_its_options(page):
    known = {words: options(function) for words, function in walk(app, ())}
    lines = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    shown = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("leakboard ")]
    assert shown
    for words in shown:
        command = tuple(words[:2]) if tuple(words[:2]) in known else tuple(words[:1])
        assert command in known, f"{page}: leakboard {' '.join(words)}"
        assert {word for word in words if re.match("--?[a-z]", word)} <= known[command], f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page", RUN)
def test_what_a_page_shows_runs(page, clone):
    for kind, text in blocks(page):
        file = NAMED.match(text)
        if kind in ("toml", "python") and file:
            (clone / file[1]).write_text(text)
        elif kind == "sh":
            called(clone, text)
        elif kind == "python":
            (clone / "snippet.py").write_text(text)
            called(clone, "python snippet.py")
        else:
            pytest.fail(f"{page}: a block of {kind} that nothing runs:\n{text}")
    if page == "docs/submit.md":
        assert (clone / "leaderboards/published/tiny-v1/my-defense.review.json").is_file()
        assert (clone / "site" / "index.html").is_file()


def test_whatever_is_run_instead_stands_in_a_page():
    shown = "\n".join(text for page in PAGES for _, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")))
    assert [what for what in INSTEAD if what not in shown] == []


@pytest.mark.parametrize("page", LINKED)
def test_every_link_of_a_page_leads_to_a_file_and_its_heading(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"<!-- !.*?-->", "", text)):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if file.name in LATER:
            continue
        assert file.exists(), f"{page}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


LATER = {"add-a-defense.md", "add-an-attack.md", "what-a-check-sees.md", "ranking.md"}
"""Pages that may not be there yet."""
