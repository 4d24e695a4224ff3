"""What `make` installs, read from its dry run; and the hooks that check the same at each commit."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def planned(tmp_path):
    """What `make` would do for a target in a clone, after other targets have been made."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    # A make that runs these tests tells its own flags to every make below it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def plan(target, *done):
        (tmp_path / ".venv").mkdir(exist_ok=True)
        for name in done:
            (tmp_path / ".venv" / name).touch()
        words = ["make", "--dry-run", "--no-print-directory", target]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    return plan


def installed(text):
    return re.findall(r"pip install .* -e (\S+)", text)


@needs_make
def test_a_run_installs_no_tool_of_development_and_says_what_it_installs(planned):
    text = planned("run")
    assert installed(text) == ["."]
    assert re.search(r"echo \"Installing .* packages, [\d.]+ GiB", text)


@needs_make
@pytest.mark.parametrize("target", ["test", "check", "format", "slow", "mutants", "benchmark"])
def test_tests_and_checks_add_their_tools_to_what_a_run_needs(planned, target):
    text = planned(target)
    assert installed(text) == [".", "'.[dev]'"]
    assert re.search(r"echo \"Adding .* packages, [\d.]+ GiB", text)


@needs_make
def test_tests_after_a_run_only_add_to_the_environment(planned):
    text = planned("test", "installed")
    assert installed(text) == ["'.[dev]'"]
    assert "rm -rf" not in text


@needs_make
def test_what_is_installed_is_not_installed_again(planned):
    assert installed(planned("test", "installed", "installed-dev")) == []
    assert installed(planned("run", "installed", "installed-dev")) == []


def test_the_hooks_are_the_programs_of_make_check_and_download_nothing():
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = repository["hooks"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in hooks} == {"system"}
    called = [hook["entry"].replace(" --force-exclude", "").replace(".venv/bin/", "") for hook in hooks]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert called == [line.removeprefix("\t$(BIN)/").removesuffix(" .") for line in recipe.splitlines()]
