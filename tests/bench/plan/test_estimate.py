"""What `leakboard plan` says a run would cost."""

import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

import leakboard
from attacks.attack import Attack
from attacks.engine.execution import report
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.plan import estimate
from bench.plan.estimate import describe_plan, estimate_seconds, readable
from bench.store.store import Store
from bench.trial.clients import Clients

SEEN = SimpleNamespace(device=torch.device("cpu"))


@dataclass(frozen=True)
class Slow(Attack):
    """Ten milliseconds an iteration, after a start of a tenth of a second."""

    iterations: int
    reports: bool = True

    def reconstruct(self, observation, seeds):
        time.sleep(0.1)
        for i in range(self.iterations):
            time.sleep(0.01)
            if self.reports:
                report(i + 1, self.iterations)


def test_a_long_attack_is_estimated_from_its_first_iterations():
    started = time.perf_counter()
    seconds = estimate_seconds(Slow(3000), SEEN, [0])
    assert time.perf_counter() - started < 5
    assert 0.9 * 30 < seconds < 2 * 30


@pytest.mark.parametrize("attack", [Slow(3), Slow(10, reports=False)])
def test_a_short_attack_or_one_that_reports_nothing_is_measured_whole(attack):
    seconds = estimate_seconds(attack, SEEN, [0])
    assert 0.1 + 0.01 * attack.iterations <= seconds < 2


def described(grid_file, tmp_path, *overrides):
    _, registry, clients, plan = prepare(grid_file, overrides=overrides)
    return describe_plan(plan, registry, clients, Store(tmp_path / "run")).splitlines()


def test_a_plan_names_everything_and_states_the_hours(grid_file, tmp_path, monkeypatch):
    measured = []

    def an_hour(attack, seen, seeds):
        measured.append(attack)
        return 3600.0 if hasattr(attack, "tv_weight") else 0.0

    monkeypatch.setattr(estimate, "estimate_seconds", an_hour)
    lines = described(grid_file, tmp_path)
    assert lines[0] == "small: 24 cells over 4 images, 24 blocks"
    assert "  setting   digits, mlp(hidden=[16]), untrained" in lines
    # Three defenses share one schedule, and one program: an hour for all of them.
    assert "  attack    inverting_gradients(iterations=4): about 60 minutes" in lines
    assert "  control   grey_image" in lines
    assert "  defense   gaussian_noise(std=0.1)" in lines
    assert "  pending   24 blocks" in lines
    # inverting_gradients, linear_layer and prior_only have a tv_weight; a control runs by itself on each defense.
    assert lines[-1].startswith("about 5.0 hours (5 hours) for 24 blocks on the CPU with 1 thread, ")
    assert len(measured) == 6
    assert not (tmp_path / "run").exists()


def test_the_attacks_on_held_out_clients_count_four_times(grid_file, tmp_path, monkeypatch):
    asked, lanes = [], []

    def an_hour(attack, seen, seeds):
        asked.append(type(attack).__name__)
        lanes.append(seen.trials)
        return len(seeds) * 900.0 if not attack.control else 0.0

    monkeypatch.setattr(estimate, "estimate_seconds", an_hour)
    monkeypatch.setattr(estimate, "timeit", lambda *_, **__: 36.0)
    attacks = 'grid.attacks=["posterior_mean", "inverting_gradients(iterations=4)"]'
    one = 'grid.defenses=["none"]'
    lines = described(grid_file, tmp_path, attacks, one, "grid.threat.public=[true]", "grid.images=4")
    assert [line for line in lines if ": about" in line] == [
        "  attack    posterior_mean: about 60 minutes",
        "  attack    inverting_gradients(iterations=4): about 60 minutes",
        "  control   same_class(of='posterior_mean'): about 4.0 hours",
        "  control   same_class(of='inverting_gradients(iterations=4)'): about 4.0 hours",
    ]
    # The lanes of one attack on all held-out clients, or an attack that was measured before, so often.
    assert (asked.count("InvertingGradients"), asked.count("PosteriorMean")) == (2, 1)
    assert max(lanes) == 16
    # 36 seconds for the clients of the block, and four times that for the held-out ones.
    assert "10.1 hours" in lines[-1]


def test_training_enters_the_hours_once_a_seed_and_is_not_done(grid_file, tmp_path, monkeypatch):
    monkeypatch.setattr(Clients, "training_seconds", lambda self, setting, seed: 1800.0)
    monkeypatch.setattr("bench.models.weights.train", None)
    lines = described(grid_file, tmp_path, "grid.weights=[2]", "grid.seeds=[0,1]")
    assert "  training  about 60 minutes, once" in lines
    assert lines[-1].startswith("about 60 minutes (1 hours) for 48 blocks")


def test_training_is_estimated_until_the_weights_are_kept(grid_file, tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))
    _, _, clients, plan = prepare(grid_file, overrides=["grid.weights=[2]"])
    block = next(plan.blocks())
    assert 0 < clients.training_seconds(block.cell.setting, 0) < 60
    clients.release(block)
    assert clients.training_seconds(block.cell.setting, 0) == 0


def test_a_plan_of_a_finished_run_has_nothing_left(grid_file, tmp_path):
    leakboard.run(grid_file, output=tmp_path / "run")
    lines = described(grid_file, tmp_path)
    assert lines[-2:] == ["  ok        24 blocks", "nothing left to run"]


def test_a_failure_says_how_to_run_it_again(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=["grid.controls=false"])
    record = next(run.store.blocks.glob("*.json"))
    record.write_text(record.read_text().replace('"status": "ok"', '"status": "timeout"'))
    lines = described(grid_file, tmp_path, "grid.controls=false")
    assert "  timeout   1 block; --retry timeout runs it again" in lines


def test_a_device_that_is_not_there_is_refused(grid_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigurationError, match="torch sees no GPU here"):
        described(grid_file, tmp_path, "engine.device=cuda")


def test_durations_are_in_the_unit_that_a_person_would_use():
    assert [readable(s) for s in (0.1, 42, 600, 9000)] == [
        "less than a second", "about 42 seconds", "about 10 minutes", "about 2.5 hours"
    ]  # fmt: skip
