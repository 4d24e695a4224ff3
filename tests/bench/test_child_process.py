"""Child processes: what they import, how they answer, and that neither they nor what they start outlive anybody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.child_process import Unfinished, child_records
from bench.registry import sources
from bench.registry.sources import MethodDescription

ROOT = Path(__file__).parents[2]
MODULE = """
import os, subprocess, sys, time

def numbers(write, count):
    for number in range(int(count)):
        print("printed")
        write({"number": number})

def ends_in_the_middle(write, how):
    write({"number": 0})
    exec(how)

def leaves_a_sleeper(write):
    write({"sleeper": subprocess.Popen(["sleep", "300"]).pid})
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """A module `functions` that parent and child can import."""
    (tmp_path / "functions.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def wait_until_gone(pid):
    """A zombie that nobody has waited for is gone."""
    end = time.monotonic() + 60
    while True:
        listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if listed.stdout.strip()[:1] in ("", "Z"):
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_function_writes_arrives_in_order_and_what_it_prints_does_not(capfd):
    assert list(child_records("functions:numbers", ["3"], 60)) == [{"number": number} for number in range(3)]
    assert capfd.readouterr() == ("", "printed\n" * 3)


def test_a_user_s_folder_that_is_called_as_ours_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "here" / "bench").mkdir(parents=True)
    (tmp_path / "here" / "bench" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path / "here")
    assert list(child_records("functions:numbers", ["1"], 60)) == [{"number": 0}]


@pytest.mark.parametrize(
    ("how", "seconds", "code"),
    [
        ("os._exit(3)", 60, 3),
        ("os.kill(os.getpid(), 9)", 60, -signal.SIGKILL),
        ("raise ValueError", 60, 1),
        ("time.sleep(300)", 2, None),
    ],
)
def test_a_child_that_does_not_finish_says_what_came_before_and_how_it_ended(how, seconds, code):
    found = child_records("functions:ends_in_the_middle", [how], seconds)
    assert next(found) == {"number": 0}
    with pytest.raises(Unfinished) as end:
        next(found)
    assert end.value.code == code


def test_what_a_child_leaves_running_ends_with_it():
    [record] = child_records("functions:leaves_a_sleeper", [], 60)
    wait_until_gone(record["sleeper"])


PARENT = """
import sys, time
from bench.child_process import start_python
child = start_python("functions:stay", [], own_group=sys.argv[1] == "True")
time.sleep(300)
"""
STAY = """
def stay():
    sleeper = subprocess.Popen(["sleep", "300"])
    with open("pids", "w") as file:
        file.write(f"{os.getpid()} {sleeper.pid}\\n")
    time.sleep(300)
"""


@pytest.mark.parametrize("own_group", [True, False])
def test_a_child_goes_with_its_parent_and_takes_its_own_group_along(tmp_path, own_group):
    (tmp_path / "functions.py").write_text(MODULE + STAY)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    call = [sys.executable, "-P", "-c", PARENT, str(own_group)]
    parent = subprocess.Popen(call, cwd=tmp_path, env=environment)
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().endswith("\n"):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    child, sleeper = map(int, (tmp_path / "pids").read_text().split())
    wait_until_gone(child)
    if not own_group:  # The group is the test's own here; a terminal would tell all of it.
        os.kill(sleeper, signal.SIGKILL)
    wait_until_gone(sleeper)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os; os._exit(3)", "its import ended with code 3"),
        ("import os, sys; print('no such device', file=sys.stderr, flush=True); os._exit(3)", "no such device"),
        ("import time; time.sleep(300)", "its import did not end in 2 seconds"),
    ],
)
def test_a_package_whose_import_ends_its_process_or_does_not_end_is_broken(tmp_path, monkeypatch, text, reason):
    (tmp_path / "harmful.py").write_text(text)
    metadata = tmp_path / "harmful-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: harmful\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[leakboard.defenses]\nharmful = harmful:Harmful\n")
    if "sleep" in text:
        monkeypatch.setattr(sources, "_VERIFY_SECONDS", 2)
    entry = MethodDescription("harmful", "defense", "package harmful 1 (harmful:Harmful)")
    assert sources.verified(entry).broken == reason
