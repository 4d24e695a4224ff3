"""Every command that a document shows is run, in the order shown, in an empty folder."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_FEW = "-o runs/mine --set expect.gain_db=-99 --set grid.images=4 --set "
_WITHOUT_NETWORK = "pip install --quiet --no-index --no-deps --no-build-isolation --target site "


@dataclass(frozen=True)
class Setup:
    """How a document's commands are run.

    `files` (name -> text) lie in the folder beforehand. `instead` maps a text of the document's commands to what is run
    in its place, where it would take minutes or a network: say nothing else by it.
    """

    files: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)


SETUPS = {
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
"""A document in `docs` -> its setup. One that shows commands and is not here fails the first test."""


def commands(document):
    """The commands of a document's blocks marked `sh`, as one script."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))


DOCUMENTS = {path.name: commands(path) for path in sorted((ROOT / "docs").glob("*.md"))}


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
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(here / "site")]),
        "OMP_NUM_THREADS": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }

    def run(script, files):
        for file, text in files.items():
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).write_text(text, encoding="utf-8")
        call = ["bash", "-e", "-u", "-x", "-o", "pipefail", "-c", script]
        return subprocess.run(call, cwd=here, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("name", SETUPS)
def test_the_commands_of_a_document_work(shell, name):
    script = DOCUMENTS[name]
    for shown, run in SETUPS[name].instead.items():
        script = script.replace(shown, run)
    done = shell(script, SETUPS[name].files)
    assert done.returncode == 0, f"{name}: the last command shown with a + failed\n{done.stdout}\n{done.stderr}"
