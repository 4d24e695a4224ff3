"""The commands of plugin authors: what `new` writes and refuses, and what `check` survives."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import leakboard
from bench.conformance.child import checked
from bench.conformance.findings import Finding
from bench.conformance.scaffold import PUBLIC, check_name, scaffold, suggested
from bench.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
TWO = '''
import os
from leakboard import Defense

print("imported")

class Fine(Defense):
    """Send it as it is; a heuristic."""

    def transform(self, task, update, rng):
        return dict(update)

class Leaving(Defense):
    """Leave; a heuristic."""

    def transform(self, task, update, rng):
        os._exit(3)
'''


@pytest.mark.parametrize("kind", ["defense", "attack"])
@pytest.mark.parametrize("package", [False, True])
def test_what_is_written_is_formatted_and_free_of_lint(tmp_path, kind, package):
    paths = scaffold(kind, "my_method", tmp_path / "new", package=package)
    assert paths[0].name == "my_method.py"
    assert sorted(paths) == sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert len(paths[0].read_text().splitlines()) <= 65
    for words in (["format", "--check"], ["check", "--select=E,F,B,UP,RUF,PT,N,SIM"]):
        call = [sys.executable, "-m", "ruff", *words, "--isolated", "--no-cache", "--line-length=120", str(tmp_path)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["defense", "attack"])
def test_a_package_names_its_class_as_an_entry_point(tmp_path, kind):
    paths = scaffold(kind, "my_method", tmp_path, package=True)
    [setup] = [path for path in paths if path.name == "pyproject.toml"]
    project = tomllib.loads(setup.read_text())["project"]
    assert project["entry-points"] == {f"leakboard.{kind}s": {"my_method": "my_method:MyMethod"}}
    assert setup.parent == tmp_path / project["name"] == tmp_path / "leakboard-my-method"


@pytest.mark.parametrize("package", [False, True])
def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path, package):
    paths = scaffold("defense", "my_method", tmp_path, package=package)
    for path in paths[:-1]:
        path.unlink()
    paths[-1].write_text("mine")
    with pytest.raises(ConfigurationError, match=r"test_my_method\.py exists and is not overwritten; choose another"):
        scaffold("defense", "my_method", tmp_path, package=package)
    assert paths[-1].read_text() == "mine"
    assert not any(path.exists() for path in paths[:-1])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot write into .*file/inner: Not a directory; choose another"):
        scaffold("defense", "my_method", tmp_path / "file" / "inner")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my-defense", r"'my-defense' is no name: a-z, 0-9 and _ are allowed, a letter first; try 'my_defense'"),
        ("MyDefense", r"is no name: .* try 'my_defense'"),
        ("2nd", r"is no name: .* try 'my_2nd'"),
        ("é", r"is no name: .* try 'my_method'"),
        ("", r"is no name: .* try 'my_method'"),
        ("../up", r"is no name: .* try 'up'"),
        ("class", r"'class' is a word of Python, or a module of its library; try 'my_class'"),
        ("match", r"a word of Python"),
        ("random", r"a module of its library; try 'my_random'"),
        ("torch", r"'torch' is an installed module, which the file would hide; try 'my_torch'"),
        ("leakboard", r"'leakboard' is a package of Leakboard; try 'my_leakboard'"),
        ("defenses", r"'defenses' is a package of Leakboard; try 'my_defenses'"),
        ("conftest", r"'conftest' is a file that pytest runs; try 'my_conftest'"),
        ("setup", r"'setup' is a file that an installer runs; try 'my_setup'"),
        ("adam", r"the class Adam of 'adam' would hide another of that name; try 'my_adam'"),
        ("matching_problem", r"the class MatchingProblem of .* try 'my_matching_problem'"),
        ("defense", r"the class Defense of 'defense'"),
        ("tensor", r"the class Tensor of 'tensor'"),
        ("path", r"the class Path of 'path'"),
        ("value_error", r"the class ValueError of 'value_error'"),
        ("test_mine", r"'test_mine' is for pytest a file of tests; try 'mine'"),
        ("dp_sgd", r"'dp_sgd' is taken: there is defense dp_sgd \(built-in\); try 'my_dp_sgd'"),
        ("linear_layer", r"'linear_layer' is taken: there is attack linear_layer \(built-in\); try"),
    ],
)
def test_a_bad_name_says_why_and_what_to_try(name, message):
    with pytest.raises(ConfigurationError, match=message):
        check_name(name)
    check_name(suggested(name))


def test_the_names_that_a_class_must_not_hide_are_the_public_ones():
    assert {name for name in leakboard.__all__ if name[0].isupper()} == PUBLIC


def test_a_plugin_that_leaves_fails_its_rule_and_harms_nobody(tmp_path, capfd):
    """Of a file with two methods: all of the first is told, and of the second what came before its end."""
    path = tmp_path / "two.py"
    path.write_text(TWO)
    told = list(checked(str(path)))
    titles = [title for title in told if not isinstance(title, Finding)]
    assert titles == [f"defense {name}, file {path}" for name in ("fine", "leaving")]
    *before, last = told[told.index(titles[1]) + 1 :]
    assert [str(f) for f in told[1 : told.index(titles[1])] if f.failed] == []
    assert [finding.rule for finding in before] == ["constructs", "documented", "parameters"]
    assert (last.rule, last.failed) == ("shapes", True)
    assert last.text == "the process left with code 3 while this was asked; run it by itself to see"
    printed = capfd.readouterr()
    assert (printed.out, set(printed.err.splitlines())) == ("", {"imported"})


def test_a_check_that_does_not_end_is_given_up():
    [finding] = checked("none", seconds=0.1)
    assert finding.failed
    assert finding.text.startswith("it did not come to an end in 0.1 seconds")


def ended(process):
    """Whether a process is gone, or waits for a parent that never asks after it."""
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False).stdout
    return stat.strip()[:1] in ("", "Z")


def wait_until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


STAYING = """
import os, pathlib, subprocess, threading, time

threading.Thread(target=time.sleep, args=(300,)).start()
other = subprocess.Popen(["sleep", "300"])
pathlib.Path(__file__).with_name("staying").write_text(f"{os.getpid()} {other.pid}")
"""


def test_what_a_plugin_leaves_running_delays_nobody_and_ends_with_its_check(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(STAYING + TWO.partition("class Leaving")[0])
    start = time.monotonic()
    [_, *findings] = checked(str(path), seconds=250)
    assert time.monotonic() - start < 200
    assert [str(finding) for finding in findings if finding.failed] == []
    for process in (tmp_path / "staying").read_text().split():
        wait_until(lambda process=process: ended(process))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_leaves_no_process_behind(tmp_path, sent):
    path, staying = tmp_path / "mine.py", tmp_path / "staying"
    path.write_text(STAYING + "time.sleep(300)")
    call = [sys.executable, "-P", "-m", "leakboard", "check", str(path)]
    command = subprocess.Popen(call, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    wait_until(lambda: staying.exists() and staying.read_text())
    command.send_signal(sent)
    assert command.wait(60) == -sent
    for process in staying.read_text().split():
        wait_until(lambda process=process: ended(process))


def test_the_command_says_one_line_a_rule_and_ends_with_1_where_one_is_broken(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(TWO.partition("class Leaving")[0].replace("dict(update)", "None"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def command(*arguments):
        call = [sys.executable, "-P", "-m", "leakboard", *arguments]
        return subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = command("check", "mine")  # Finds the file in this folder.
    assert done.returncode == 1
    title, *lines, counts = done.stdout.splitlines()
    assert title == f"defense mine, file {path}"
    assert lines[3] == (
        "failed          shapes       returned NoneType; return a dict of parameter names to tensors [in torch.float32]"
    )
    assert len(lines) == sum(int(part.split()[0]) for part in counts.split(", "))
    wrong = command("check", "mine(kept=1)")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "leakboard: defense mine: unknown parameter 'kept'" in wrong.stderr
    assert "Traceback" not in done.stderr + wrong.stderr
