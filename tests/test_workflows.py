"""What runs on others' proposals has no rights and no secrets, and runs none of their code."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import leakboard
from leaderboards.entries.packing import Author, write_entry

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PUBLISHED = "leaderboards/published"
TINY = """
[board]
title = "Tiny"
summary = "Two digits, for tests."
required = ["linear_layer", "label_rule"]
metrics = ["psnr_db", "identified", "label_accuracy"]
minimum_images = 2

[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 2
attacks = ["linear_layer", "label_rule"]

[engine]
threads = 1
"""


def script():
    spec = importlib.util.spec_from_file_location("submission_script", ROOT / ".ci" / "submission.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded(path):
    # YAML reads a bare `on` as true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def steps(path):
    return [step for job in loaded(path)["jobs"].values() for step in job["steps"]]


def test_there_are_two_workflows():
    assert [path.name for path in FILES] == ["check.yml", "submission.yml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else(path):
    workflow, text = loaded(path), path.read_text()
    assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in workflow["jobs"].values() if {"permissions", "secrets", "environment"} & job.keys()]
    assert set(workflow["on"]) <= {"push", "pull_request"}
    assert "pull_request_target" not in text
    assert not re.search(r"\bsecrets\b|github\.token|GITHUB_TOKEN|: write", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_text_of_a_proposal_becomes_a_script(path):
    for step in steps(path):
        assert "${{" not in step.get("run", "")
        assert "env" not in step


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_action_is_pinned_by_its_commit_and_keeps_no_credentials(path):
    used = [step for step in steps(path) if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"actions/(checkout|setup-python)@[0-9a-f]{40}", step["uses"])
        if "checkout" in step["uses"]:
            assert step["with"]["persist-credentials"] is False


def test_a_submission_is_checked_by_the_code_of_the_base():
    path = ROOT / ".github" / "workflows" / "submission.yml"
    assert loaded(path)["on"] == {"pull_request": {"paths": [f"{PUBLISHED}/**"]}}
    base, head = (step["with"] for step in steps(path) if "checkout" in step.get("uses", ""))
    assert (base["path"], base["ref"]) == ("base", "${{ github.event.pull_request.base.sha }}")
    assert (head["path"], head.get("ref"), head["fetch-depth"]) == ("head", None, 2)
    scripts = [line.strip() for step in steps(path) for line in step.get("run", "").splitlines()]
    assert [line for line in scripts if "head" in line] == ["python -P base/.ci/submission.py base head"]
    assert [line.split()[-1] for line in scripts if "pip install" in line] == ["./base"]


def test_the_entries_of_a_proposal_are_the_folders_that_hold_what_it_changes():
    names = [
        f"{PUBLISHED}/a-v1/mine/entry.json",
        f"{PUBLISHED}/a-v1/mine/cells/0.json",
        f"{PUBLISHED}/a-v1/mine.review.json",
        f"{PUBLISHED}/README.md",
        f"{PUBLISHED}/b-v1/other/entry.json",
        "bench/engines/run.py",
    ]
    assert script().entries(names) == [f"{PUBLISHED}/a-v1/mine", f"{PUBLISHED}/b-v1/other"]


def git(folder, *words):
    own = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *own, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """A whole entry of a board that takes a second, and the folder of that board."""
    folder = tmp_path_factory.mktemp("entry")
    (folder / "boards").mkdir()
    (folder / "boards" / "tiny-v1.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAKBOARD_BOARDS", str(folder / "boards"))
        run = leakboard.run("board:tiny-v1", output=folder / "run", defenses=["gradient_pruning(ratio=0.9)"])
        write_entry(run.folder, folder / "packed", "pruning", Author("A"))
        yield folder / "packed" / "pruning"


@pytest.fixture
def clones(tmp_path, entry):
    """Clones as the workflow has them, of the base and of a proposal merged into it; the proposal adds the entry."""
    origin, fork, base, head = (tmp_path / name for name in ("origin", "fork", "base", "head"))
    (origin / PUBLISHED).mkdir(parents=True)
    (origin / PUBLISHED / "README.md").write_text("Results\n")
    git(origin, "init", "-q")
    git(origin, "add", "-A")
    git(origin, "commit", "-qm", "base")
    git(tmp_path, "clone", "-q", origin, fork)
    shutil.copytree(entry, fork / PUBLISHED / "tiny-v1" / "pruning")

    def merged():
        git(fork, "add", "-A")
        git(fork, "commit", "-qm", "proposal")
        (origin / "later").write_text("the base has moved on\n")
        git(origin, "add", "-A")
        git(origin, "commit", "-qm", "later")
        git(origin, "fetch", "-q", fork, "main:proposal")
        git(tmp_path, "clone", "-q", origin, base)
        git(origin, "checkout", "-q", "--detach")
        git(origin, "merge", "-q", "--no-ff", "-m", "merge", "proposal")
        git(origin, "branch", "merge")
        git(tmp_path, "clone", "-q", "--depth=2", "--branch=merge", f"file://{origin}", head)
        return base, head

    return fork, merged


def check(base, head):
    words = [sys.executable, "-P", ROOT / ".ci" / "submission.py", base, head]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, env=environment, cwd=base.parent, capture_output=True, text=True, check=False)


def test_a_proposal_that_adds_an_entry_is_checked_and_its_text_is_no_command(clones):
    _, merged = clones
    done = check(*merged())
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  holds    nothing else has changed since HEAD^1" in lines
    assert lines[0].startswith("::stop-commands::")
    assert lines[-1] == f"::{lines[0].removeprefix('::stop-commands::')}::"


def test_a_proposal_that_brings_code_and_reviews_itself_is_refused_and_the_code_is_not_run(clones, tmp_path):
    fork, merged = clones
    for name in ("leaderboards/__init__.py", "sitecustomize.py"):
        (fork / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (fork / PUBLISHED / "tiny-v1" / "pruning.review.json").write_text("{}")
    done = check(*merged())
    assert done.returncode == 1
    for name in ("leaderboards/__init__.py", "sitecustomize.py", f"{PUBLISHED}/tiny-v1/pruning.review.json"):
        assert f"{name} was added: a submission adds one folder and changes nothing else" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_a_proposal_without_an_entry_is_refused(clones):
    fork, merged = clones
    shutil.rmtree(fork / PUBLISHED / "tiny-v1")
    (fork / PUBLISHED / "README.md").write_text("Better results\n")
    done = check(*merged())
    assert done.returncode == 1
    assert "no entry is added" in done.stdout
