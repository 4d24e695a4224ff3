"""The public face: what plugins and notebooks import, and the command's entry point."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import leakboard

ROOT = Path(__file__).parents[1]


def child(*arguments, cwd, path=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    return subprocess.run(
        [sys.executable, "-P", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_every_name_resolves_to_what_its_home_calls_it():
    for name, home in leakboard._HOMES.items():
        assert getattr(leakboard, name) is getattr(importlib.import_module(home), name)
    assert sorted(leakboard.__all__) == list(leakboard.__all__) == dir(leakboard)


def test_type_checkers_see_the_names_that_are_there_at_run_time():
    tree = ast.parse((ROOT / "leakboard.py").read_text())
    [block] = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert {name: home for name, home in seen.items() if name in leakboard._HOMES} == leakboard._HOMES
    assert seen.keys() - leakboard._HOMES.keys() <= {"Callable", "Collection", "Config", "Path", "Sequence"}


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'Defence'; it has .*Defense"):
        _ = leakboard.Defence


def test_importing_the_face_imports_nothing_else(tmp_path):
    code = "import sys, leakboard; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'bench', 'attacks')])"
    assert child("-c", code, cwd=tmp_path).stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["bench", "leaderboards"])
def test_another_package_in_place_of_ours_is_named_before_anything_runs(tmp_path, room):
    (tmp_path / room).mkdir()
    (tmp_path / room / "__init__.py").write_text("raise RuntimeError('imported')\n")
    done = child("-m", "leakboard", "list", "presets", cwd=tmp_path, path=[tmp_path])
    assert done.returncode == 2
    assert done.stderr.startswith(f"leakboard: package '{room}' is {tmp_path / room}, not Leakboard's own; rename it")
    assert "Traceback" not in done.stderr


def test_the_face_is_a_command(tmp_path):
    done = child("-m", "leakboard", "list", "presets", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "quick" in done.stdout
