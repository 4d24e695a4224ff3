"""Every command and file that a document shows is tried, in the order shown, in a folder of its own."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from leaderboards.cli.main import app
from tools.reference import options, walk

ROOT = Path(__file__).parents[2]
_FEW = "-o runs/mine --set expect.gain_db=-99 --set grid.images=4 --set "
_WITHOUT_NETWORK = "pip install --quiet --no-index --no-deps --no-build-isolation --target site "


@dataclass(frozen=True)
class Setup:
    """How a document's commands are run.

    `files` (name -> text) lie in the folder beforehand, and `before` has been run there. `instead` maps a text of the
    document's blocks to what is taken in its place, where it would take minutes or a network: say nothing else by it.
    `leaves` are files that are there in the end. `slow` ones are run by `make slow`.
    """

    files: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    before: str = ""
    leaves: tuple[str, ...] = ()
    slow: bool = False


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
required = ["inverting_gradients(iterations=20)", "linear_layer", "label_rule"]
minimum_images = 2

[grid]
dataset = "mnist-samples"
models = ["lenet-zhu"]
images = 2
attacks = [{ name = "inverting_gradients", iterations = 20 }, "linear_layer", "label_rule"]
threat = { labels = "known", schedule_known = true, defense_known = [false, true] }
"""
_BOARD = {"cifar10-samples-v1": "tiny-v1"}
_FILES = {"quick.toml": QUICK, "house/tiny-v1.toml": TINY}
_HOUSE = "export LEAKBOARD_BOARDS=$PWD/house\n"
_CLONE = (
    _HOUSE
    + """
git init -q --initial-branch=main . && git add quick.toml && git commit -qm start
git clone -q --bare . ../origin && git remote add origin ../origin && git fetch -q
"""
)
SETUPS = {
    "README.md": Setup(
        files=_FILES,
        before=_HOUSE,
        instead=_BOARD
        | {
            # Setting up is what `make test` has done.
            "make run  ": ":  ",
            "make test  ": ":  ",
            ". .venv/bin/activate": ":",
            "leakboard run quick ": "leakboard run quick.toml ",
            "images   = 8": "images   = 4",
            "iterations = 600": "iterations = 2",
            "iterations = 12 ": "iterations = 2 ",
            "ratio = [0.5, 0.9, 0.99]": "ratio = [0.9]",
            "noise_multiplier = [0.001, 0.01]": "noise_multiplier = [0.01]",
            "examples = [4, 8]": "examples = [4]",
            "epochs = [1, 5]": "epochs = [1]",
        },
        leaves=("leaderboards/published/tiny-v1/pruning-95/entry.json", "runs/grid/plots", "runs/mine/plots"),
        slow=True,
    ),
    "quickstart.md": Setup(
        files=_FILES,
        instead={
            "make run\n. .venv/bin/activate": "leakboard run quick.toml",
            "leakboard run quick ": "leakboard run quick.toml ",
        },
        leaves=("results.parquet",),
        slow=True,
    ),
    "run-a-board.md": Setup(
        files=_FILES,
        before=_HOUSE,
        instead=_BOARD
        | {"iterations=12)": "iterations=2)", "iterations = 600": "iterations = 2", "iterations=600": "iterations=2"}
        | {"images = 20": "images = 2"},
        leaves=("runs/digits-v1/plots", "runs/more/plots", "mine.csv"),
        slow=True,
    ),
    "submit.md": Setup(
        files=_FILES,
        before=_CLONE,
        instead=_BOARD,
        leaves=("leaderboards/published/tiny-v1/my-defense.review.json", "site/index.html"),
    ),
    "how-numbers-are-made.md": Setup(
        instead={
            'dataset = "fashion-mnist"\nmodels = ["lenet-zhu"]': 'dataset = "digits"\nmodels = ["mlp"]',
            "images = 100": "images = 2",
            "iterations = 1200": "iterations = 2",
            "rounds = 2400": "rounds = 2",
            "clients = 50 ": "clients = 2 ",
            "seeds = [0, 1, 2]": "seeds = [0]",
            "candidates = 20": "candidates = 2",
            "trials = 200": "trials = 2",
            "least_accuracy = 0.85": "least_accuracy = 0.0",
        },
        leaves=("jobs.csv",),
        slow=True,
    ),
    "public-images.md": Setup(
        instead={
            "images = 8": "images = 2",
            ', "gradient_pruning(ratio=0.99)"]': "]",
            '"informed_matching"': '"informed_matching(iterations=2)"',
        },
        leaves=("learned.csv", "runs/learned/plots"),
        slow=True,
    ),
    "add-a-defense.md": Setup(
        instead={
            "-o runs/mine": _FEW + "'grid.attacks=[\"inverting_gradients(iterations=2)\"]'",
            "pip install -e ": _WITHOUT_NETWORK,
        }
    ),
    "add-an-attack.md": Setup(
        instead={
            '["inverting_gradients","my_attack(iterations=600)"]': '["inverting_gradients(iterations=2)",'
            '"my_attack(iterations=2)"]',
            "-o runs/mine": _FEW + "'grid.defenses=[\"none\"]'",
        }
    ),
}
"""The README, or a document in `docs` -> its setup. One that shows commands and is not here fails the first test."""
_BLOCK = re.compile(r"^```(sh|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(document):
    """A document's blocks marked `sh` as one script; a block of TOML is a file whose name is its first comment."""
    parts = []
    for kind, text in _BLOCK.findall(document.read_text(encoding="utf-8")):
        named = re.match(r"# ([\w./-]+\.toml)\n", text)
        if kind == "toml":
            assert named, f"{document.name}: a block of TOML has no name:\n{text}"
            file = shlex.quote(named[1])
            text = f"mkdir -p $(dirname {file})\ncat > {file} <<'END OF FILE'\n{text}END OF FILE\n"
        parts.append(text)
    return "\n".join(parts)


DOCUMENTS = {path.name: commands(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}


def test_every_document_that_shows_commands_has_a_setup():
    assert SETUPS.keys() == {name for name, script in DOCUMENTS.items() if script}


@pytest.mark.parametrize("name", SETUPS)
def test_what_is_run_instead_stands_in_the_document(name):
    assert [shown for shown in SETUPS[name].instead if shown not in DOCUMENTS[name]] == []


@pytest.fixture
def shell(tmp_path):
    """Runs a script in an empty folder whose `leakboard`, `python` and `pip` are those under test."""
    tools, here = tmp_path / "bin", tmp_path / "here"
    for folder in (tools, here):
        folder.mkdir()
    for name, call in {"leakboard": "-P -m leakboard", "python": "", "pip": "-m pip"}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(tools), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(here / "site"), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    environment |= {
        f"GIT_{who}_{what}": "n@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }

    def run(script, files):
        for file, text in files.items():
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).write_text(text, encoding="utf-8")
        call = ["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script]
        return subprocess.run(call, cwd=here, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("name", SETUPS)
def test_every_command_of_a_document_is_there_with_its_options(name):
    known = {words: options(function) for words, function in walk(app, ())}
    lines = [line for line in DOCUMENTS[name].splitlines() if line.startswith("leakboard ")]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        command = tuple(words[:2]) if tuple(words[:2]) in known else tuple(words[:1])
        assert command in known, line
        assert {word for word in words if re.match("--?[a-z]", word)} <= known[command], line


RUN = [pytest.param(name, marks=pytest.mark.slow if setup.slow else ()) for name, setup in SETUPS.items()]


@pytest.mark.parametrize("name", RUN)
def test_the_commands_of_a_document_work(shell, tmp_path, name):
    setup, script = SETUPS[name], DOCUMENTS[name]
    for shown, run in setup.instead.items():
        script = script.replace(shown, run)
    done = shell(setup.before + script, setup.files)
    assert done.returncode == 0, f"{name}: the last command shown with a + failed\n{done.stdout}\n{done.stderr}"
    assert [file for file in setup.leaves if not (tmp_path / "here" / file).exists()] == []
