"""Trainings and certificates are cells of a run: planned, stored, resumed, failed and retried like blocks."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import leakboard
from bench.data.dataset import in_memory
from bench.data.load import load_dataset
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.grid.sections import Utility
from bench.plan.estimate import describe_jobs
from bench.price.utility import trained_figures
from bench.registry.registry import Registry
from bench.store.store import Store
from defenses.accounting import gaussian_epsilon
from defenses.chain import Chain
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Classifier, Normalise
from leaderboards.cli.main import app
from leaderboards.cli.report import report_run

GRID = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 4
attacks = [{ name = "inverting_gradients", iterations = 1 }]
defenses = ["none", "gaussian_noise(std=0.01)", "dp_sgd(noise_multiplier=2.0)"]

[utility]
rounds = 80
clients = 20
learning_rate = 0.02
seeds = [0, 1]

[certificate]
candidates = 4
trials = 6

[engine]
threads = 1
"""
BROKEN = '''
"""Fails when it is trained, not when it is attacked."""

from dataclasses import dataclass

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class Broken(Defense):
    """Noop in one test, a fault in many clients (no source)."""

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return update

    def transform_many(self, task, updates, rngs):
        raise RuntimeError("no more than one")
'''


@pytest.fixture
def grid(tmp_path):
    """The path of a grid with jobs."""
    path = tmp_path / "jobs.toml"
    path.write_text(GRID)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of that grid."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "jobs.toml").write_text(GRID)
    return leakboard.run(folder / "jobs.toml", output=folder / "run").folder


def planned(path, *overrides, plugins=()):
    return prepare(str(path), Registry(plugins), overrides=overrides)[3]


def records(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "blocks").glob("*.json")}


def test_every_defense_is_trained_and_every_proof_tested(finished):
    frame = Store.existing(finished).jobs_frame()
    assert set(frame["status"]) == {"ok"}
    trained = frame[frame["kind"] == "training"]
    assert trained.groupby("defense")["seed"].apply(list).tolist() == [[0, 1]] * 3
    undefended = trained[trained["defense"] == "none"]
    assert (undefended["accuracy"] > 0.6).all()  # ten digits
    assert undefended["accuracy"].nunique() == 2
    assert (trained["test_images"] == 360).all()
    assert trained["chance"].between(0.1, 0.12).all()
    # 17 x 64 + 10 x 17 weights of four bytes, which deflating shortens a little, more where pixels are always black.
    assert trained["bytes_sent"].between(500, 4 * 1210 * 1.01).all()
    assert (trained["update_ms"] > 0).all()
    certificates = frame[frame["kind"] == "certificate"]
    assert certificates["defense"].tolist() == ["dp_sgd(noise_multiplier=2.0)"]  # others prove nothing
    assert certificates["bound"].item() == pytest.approx(0.4308, abs=1e-4)  # Phi(Phi^-1(1/4) + 1/2)
    assert 0 <= certificates["successes"].item() <= certificates["trials"].item() == 6


def test_a_larger_batch_is_also_tested_after_as_many_images_as_undefended_clients_see(grid, tmp_path):
    overrides = ['grid.defenses=["none","larger_batch(examples=4)"]', "utility.rounds=40", "utility.seeds=[0]"]
    run = leakboard.run(grid, output=tmp_path / "run", overrides=overrides)
    jobs = run.store.jobs_frame().set_index("defense")
    assert np.isnan(jobs.loc["none", "accuracy_at_equal_images"])
    own = jobs.loc["larger_batch(examples=4)"]
    assert 0.1 < own["accuracy_at_equal_images"] < own["accuracy"]
    # The same images in ten rounds: less than in the forty of clients with one image each.
    assert own["accuracy_at_equal_images"] < jobs.loc["none", "accuracy"]


def test_epsilon_counts_the_rounds_in_which_a_client_takes_part(finished):
    trained = Store.existing(finished).jobs_frame().query("kind == 'training'").set_index("defense")
    private = trained.loc["dp_sgd(noise_multiplier=2.0)"].iloc[0]
    assert (private["population"], private["participations"]) == (1437, 2)  # 71 rounds of 20 a pass, 80 rounds
    assert private["epsilon"] == pytest.approx(gaussian_epsilon(2.0, 2, 1e-5))
    assert private["epsilon_central"] == pytest.approx(gaussian_epsilon(2.0 * 20**0.5, 2, 1e-5))
    assert private["epsilon"] < private["epsilon_prv"] < private["epsilon_rdp"]
    assert (private["accountant"], private["guarantee_unit"], private["guarantee_steps"]) == ("closed form", "image", 2)
    for heuristic in ("none", "gaussian_noise(std=0.01)"):
        assert trained.loc[heuristic, "epsilon"].isna().all()
        assert set(trained.loc[heuristic, "no_epsilon"]) == {"heuristic: nothing is proven of an image"}


def test_what_is_attacked_does_not_change_what_is_trained(grid):
    first = {job.id for job in planned(grid).jobs if job.kind == "training"}
    more = [
        'grid.weights=["untrained", 1]',
        "grid.threat.defense_known=[false,true]",
        "grid.images=8",
        "grid.seeds=[3]",
    ]
    assert {job.id for job in planned(grid, *more).jobs if job.kind == "training"} == first
    assert len({job.id for job in planned(grid, *more).jobs if job.kind == "certificate"}) == 2  # weights change those
    for override in ("utility.rounds=81", "grid.client.images=2"):
        assert not first & {job.id for job in planned(grid, override).jobs}
    relaxed = planned(grid, "utility.delta=1e-6", "utility.least_accuracy=0.5")
    assert {job.id for job in relaxed.jobs if job.kind == "training"} == first


def test_a_run_without_the_sections_trains_and_certifies_nothing(grid_file, tmp_path):
    run = leakboard.run(grid_file, output=tmp_path / "run")
    frame = run.store.jobs_frame()
    assert frame.empty
    assert "accuracy" in frame


def test_more_seeds_train_only_what_is_new_and_the_same_again_nothing(grid, tmp_path):
    small = ["utility.rounds=2", 'grid.defenses=["none"]']
    run = leakboard.run(grid, output=tmp_path / "run", overrides=small)
    before = records(run.folder)
    leakboard.run(grid, output=tmp_path / "run", overrides=small)
    assert records(run.folder) == before
    leakboard.run(grid, output=tmp_path / "run", overrides=[*small, "utility.seeds=[0,1,2]"])
    after = records(run.folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1


def test_a_defense_that_cannot_be_trained_has_a_reason_and_the_others_go_on(grid, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    overrides = ["utility.rounds=2", 'grid.defenses=["none","broken"]', "utility.seeds=[0]"]
    run = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin])
    frame = run.store.jobs_frame().set_index("defense")
    assert frame["status"].to_dict() == {"none": "ok", "broken": "error"}
    assert frame.loc["broken", "reason"] == "RuntimeError: no more than one"
    assert np.isnan(frame.loc["broken", "accuracy"])
    assert run.failed == 1
    job = frame.loc["broken", "job"]
    assert "Traceback" in json.loads((run.folder / "blocks" / f"{job}.json").read_text())["traceback"]
    plugin.write_text(BROKEN.replace('raise RuntimeError("no more than one")', "return updates"))
    again = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin])
    assert set(again.store.jobs_frame()["status"]) == {"ok"}  # another source is another method: tried without --retry


def test_a_training_of_another_method_is_stale_and_out_of_the_tables(grid, tmp_path, plugin_file):
    overrides = ["utility.rounds=2", 'grid.defenses=["none","my_defense"]', "utility.seeds=[0]"]
    run = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin_file])
    plugin_file.write_text(plugin_file.read_text().replace("self.scale * u.sign()", "2 * self.scale * u.sign()"))
    again = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin_file])
    frame = again.store.jobs_frame().set_index("defense")
    assert frame["status"].to_dict() == {"none": "ok", "my_defense": "stale"}
    assert np.isnan(frame.loc["my_defense", "accuracy"])
    leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin_file], retry=["stale"])
    assert set(run.store.jobs_frame()["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["utility.clients=5000"], r"utility\.clients must be at most 1437, got 5000"),
        (["grid.dataset=mnist-samples"], r"utility: dataset mnist-samples has no training images.*leave \[utility\]"),
        (["utility.seeds=[1,1]"], r"utility\.seeds has duplicates"),
        (["utility.optimizer=lion"], r"utility\.optimizer must be 'adam' or 'sgd'"),
        (["utility.delta=1.5"], r"utility\.delta"),
        (["certificate.candidates=1"], r"certificate\.candidates must be at least 2"),
        (["utility.round=3"], r"utility\.round: unknown key; did you mean 'utility\.rounds'"),
    ],
)
def test_bad_numbers_are_said_before_anything_runs(grid, overrides, message):
    with pytest.raises(ConfigurationError, match=message):
        planned(grid, *overrides)


def test_trainings_and_certificates_are_exported_with_their_nulls(finished, tmp_path):
    target = tmp_path / "jobs.csv"
    found = CliRunner().invoke(app, ["export", str(finished), "--to", str(target), "--jobs"])
    assert found.exit_code == 0, found.output
    table = pd.read_csv(target).set_index("defense")
    assert len(table) == 7  # three defenses under two seeds, and a certificate
    assert table.loc["none", "epsilon"].isna().all()
    stored = Store.existing(finished).jobs_frame().set_index("defense")
    assert table["accuracy"].tolist() == pytest.approx(stored["accuracy"].tolist(), nan_ok=True)


def test_the_end_of_a_run_ranks_by_what_was_trained(finished):
    found = CliRunner().invoke(app, ["rank", str(finished), "--format", "json"])
    rows = {row["defense"]: row for row in json.loads(found.output)}
    trained = Store.existing(finished).jobs_frame().query("kind == 'training'").groupby("defense")["accuracy"].mean()
    for defense, row in rows.items():
        assert row["accuracy"] == pytest.approx(trained[defense])
        assert row["accuracy_lost"] == pytest.approx(100 * (trained["none"] - trained[defense]))
    assert rows["dp_sgd(noise_multiplier=2.0)"]["certificate"] == pytest.approx(0.4308, abs=1e-4)


TWICE = '''
"""Noise divided by the number of images once more than the sum: a mistake that its proof does not know of."""

from dataclasses import dataclass

from defenses.noise.dp_sgd import DpSgd
from leakboard import Batch, Defense, Generator, Params, Task, Update


@dataclass(frozen=True)
class Twice(Defense):
    """DP-SGD with a mistake (Abadi et al., CCS 2016, algorithm 1, misread)."""

    noise_multiplier: float = 1.0

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        return DpSgd(1.0, self.noise_multiplier / len(batch)).share(task, params, batch, rng)

    def privacy(self, schedule, rounds, delta):
        return DpSgd(1.0, self.noise_multiplier).privacy(schedule, rounds, delta)

    def surrogate(self, task):
        return DpSgd(1.0, self.noise_multiplier).surrogate(task)
'''


def test_a_run_whose_noise_is_divided_twice_fails_loudly(grid, tmp_path, capsys):
    plugin = tmp_path / "twice.py"
    plugin.write_text(TWICE)
    grid.write_text(GRID.partition("[utility]")[0] + "[certificate]\ncandidates = 20\ntrials = 40\n")
    overrides = ['grid.defenses=["none","twice","dp_sgd"]', "grid.client.images=4", "grid.images=8"]
    run = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin])
    assert run.failed == 0
    assert not report_run(run.folder, quiet=True)
    said = capsys.readouterr().err
    assert "BROKEN CERTIFICATE: twice" in said
    assert "dp_sgd" not in said


OWN_PROOF = '''
"""A defense with a proof of its own."""

from leakboard import Batch, Defense, Generator, Params, Task, Update, local_training
from defenses.accounting import Guarantee


class OwnProof(Defense):
    """Proves something by other means than Gaussian noise (no source)."""

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        return local_training(task, params, batch, rng, task.gradient)

    def privacy(self, schedule, rounds, delta):
        return Guarantee(1.5 * rounds, delta, "RDP", rounds, 1.0)
'''


def test_a_proof_that_is_not_of_gaussian_noise_is_stated_and_not_put_to_the_gaussian_test(grid, tmp_path):
    plugin = tmp_path / "own_proof.py"
    plugin.write_text(OWN_PROOF)
    overrides = ['grid.defenses=["none","own_proof"]', "utility.rounds=2", "utility.seeds=[0]"]
    run = leakboard.run(grid, output=tmp_path / "run", overrides=overrides, plugins=[plugin])
    frame = run.store.jobs_frame()
    assert set(frame["kind"]) == {"training"}
    own = frame[frame["defense"] == "own_proof"].iloc[0]
    assert (own["epsilon"], own["accountant"]) == (1.5, "RDP")
    assert frame[["epsilon_rdp", "epsilon_prv", "epsilon_central"]].isna().all().all()


def test_a_proof_that_raises_is_named_where_it_is_asked_for_and_stops_nobody_else(grid, grid_file, tmp_path):
    plugin = tmp_path / "own_proof.py"
    plugin.write_text(
        OWN_PROOF.replace('return Guarantee(1.5 * rounds, delta, "RDP", rounds, 1.0)', "raise KeyError(7)")
    )
    with pytest.raises(ConfigurationError, match=r"defense own_proof: KeyError: 7 .*own_proof\.py"):
        planned(grid, 'grid.defenses=["none","own_proof"]', plugins=[plugin])
    assert planned(grid_file, 'grid.defenses=["none","own_proof"]', plugins=[plugin]).jobs == ()


def test_too_few_images_for_a_certificate_are_said_before_anything_runs(grid):
    small = ["grid.dataset=cifar10-samples", 'grid.models=["lenet-zhu"]', "grid.client.images=4", "grid.images=8"]
    grid.write_text(GRID.partition("[utility]")[0] + "[certificate]\n")
    with pytest.raises(
        ConfigurationError, match=r"certificate\.candidates = 20 and 3 other images.*has 20; take fewer"
    ):
        planned(grid, *small)


def test_a_network_of_clients_in_train_mode_is_tested_whatever_the_order_of_images(tmp_path):
    """Statistics come from training images: a test of one class after the other would have others in every batch."""
    dataset = load_dataset("digits")
    order = dataset.labels.argsort()
    pixels, labels = dataset.pixels(order.tolist()), dataset.labels[order]
    by_class = replace(dataset, labels=labels, read=in_memory(pixels))
    asked = Utility(rounds=60, clients=20, learning_rate=0.02, seeds=(0,))
    found = []
    for attacked in (dataset, by_class):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
        model = Classifier(Normalise(dataset.mean, dataset.std), network).eval()
        kept = tmp_path / "kept.safetensors"
        schedule = Schedule(images=4)
        figures = trained_figures(model, "train", Chain((NoDefense(),)), schedule, schedule, attacked, asked, 0, kept)
        assert "accuracy_at_equal_images" not in figures
        found.append(figures)
    assert found[0]["accuracy"] == pytest.approx(found[1]["accuracy"], abs=1e-9)
    assert found[0]["accuracy"] > 0.6


def test_a_plan_says_what_jobs_are_left_and_what_they_take(grid, finished, tmp_path):
    _, _, clients, plan = prepare(str(grid))
    lines, seconds = describe_jobs(plan, clients, Store(tmp_path / "run"))
    assert [line.partition(", about")[0] for line in lines] == [
        "  job       6 trainings of 3 defenses",
        "  job       1 certificate of 1 defense",
    ]
    assert seconds > 0
    assert describe_jobs(plan, clients, Store.existing(finished)) == ([], 0.0)


def test_a_job_that_cannot_be_estimated_leaves_the_plan_readable(grid, tmp_path):
    plugin = tmp_path / "broken.py"
    plugin.write_text(BROKEN)
    overrides = ["utility.rounds=2", 'grid.defenses=["none","broken"]', "utility.seeds=[0]"]
    _, _, clients, plan = prepare(str(grid), Registry([plugin]), overrides=overrides)
    lines, _ = describe_jobs(plan, clients, Store(tmp_path / "run"))
    assert lines[1] == "  not estimated: training / broken, seed 0: RuntimeError: no more than one"
