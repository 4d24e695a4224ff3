"""The end of a run says what nobody should trust, and the commands read trainings and certificates."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from typer.testing import CliRunner

import leakboard
from bench.store.store import Store
from leaderboards.cli.main import app
from leaderboards.cli.report import report_run

GRID = Path(__file__).parents[2] / "small.toml"
NOISE = "gaussian_noise(std=0.1)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small grid, which nobody changes."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    leakboard.run(GRID, output=folder)
    return folder


@pytest.fixture
def keep(folder: Path, make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts trainings of three seeds, undefended 60% and under noise 58%, and a certificate into the run."""
    frame = Store(folder).frame()
    place = {"dataset": frame["dataset"].iloc[0], "model": frame["model"].iloc[0]}

    def put(successes: int = 36, least: float | None = None) -> None:
        reached = {"none": 0.6, NOISE: 0.58}
        rows = [make.training(name, [own] * 3, least_accuracy=least, **place) for name, own in reached.items()]
        certificate = make.certificate(NOISE, successes, weights=frame["weights"].iloc[0], **place)
        jobs = make.frame(*rows, certificate)
        monkeypatch.setattr(Store, "jobs_frame", lambda self: jobs, raising=False)

    return put


def test_a_broken_certificate_fails_the_run_and_says_so(
    folder: Path, keep: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    keep()
    assert report_run(folder, quiet=True)
    assert capsys.readouterr().err == ""
    keep(successes=190)
    assert not report_run(folder, quiet=True)
    assert f"leakboard: BROKEN CERTIFICATE: {NOISE} on digits" in capsys.readouterr().err


def test_undefended_training_that_falls_short_is_said_and_fails_nothing(
    folder: Path, keep: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(least=0.7)
    assert report_run(folder, quiet=True)
    assert "undefended training reaches 0.600, 0.7 is needed; nobody is ranked" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["rank", "table"])
def test_the_commands_show_what_was_trained(folder: Path, keep: Callable, command: str) -> None:
    keep()
    shown = CliRunner().invoke(app, [command, str(folder), "--format", "json"])
    assert shown.exit_code == 0
    own = [row for row in json.loads(shown.stdout) if row["defense"] == NOISE]
    assert [row["accuracy"] for row in own] == pytest.approx([0.58] * len(own))
    assert {row["certificate"] for row in own} == {0.23}


def test_a_run_that_trained_nobody_is_reported_as_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "jobs_frame", lambda self: pd.DataFrame(), raising=False)
    assert report_run(folder, quiet=True)
    shown = CliRunner().invoke(app, ["rank", str(folder)])
    assert shown.exit_code == 0
    assert "Privacy and its price" not in shown.stdout
