"""Several releases of one client: fresh draws each, and their mean, which is all that noise leaves to say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attacks.attack import UnsupportedPair
from attacks.observation import joined
from attacks.optimisation.euclidean_adam import EuclideanAdam
from attacks.threat import ThreatModel
from bench.data.dataset import digest_of
from bench.engines.run import prepare, run
from bench.errors import ConfigurationError
from bench.grid.config import load_config, to_toml
from bench.plan.estimate import describe_plan
from bench.registry.registry import Registry
from bench.seeds import stream
from bench.store.store import Store
from bench.trial.black_box import OwnBlackBox
from bench.trial.clients import observe
from bench.trial.releases import RunningMean, digest_of_update, generator_of, released
from defenses.chain import Chain
from defenses.none import NoDefense
from defenses.task import Batch
from leaderboards.tables.scores import render_scores
from leaderboards.tables.standings import render_standings

MASK = Path(__file__).parents[2] / "plugins/random_mask.py"
NOISE = "gaussian_noise(std=0.1)"


@pytest.fixture
def sent(grid_file):
    """The releases of the small grid's clients under a defense, so often, and how they were asked."""

    def make(defense, releases=1, known=True):
        overrides = [f'grid.defenses=["{defense}"]', f"grid.threat.releases={releases}"]
        overrides.append(f"grid.threat.defense_known={str(known).lower()}")
        _, _, clients, plan = prepare(grid_file, Registry([MASK]), overrides=overrides)
        [block] = plan.cells[0].blocks(plan.images)
        return clients, block, clients.release(block)

    return make


def single(clients, block, own, turn):
    """The release number `turn` of the block's first client, computed alone."""
    chain = clients.chain(block.cell.defense)
    parts = block.cell.seed, digest_of(own.truth[0], own.labels[0]), *(("release", turn) if turn else ())
    rng = torch.Generator().manual_seed(stream("client", *parts))
    return chain.update(own.task, own.params, Batch(own.truth[0].float() / 255, own.labels[0]), rng)


def test_the_first_of_several_releases_is_the_one_of_a_client_that_is_seen_once(sent):
    clients, block, own = sent(NOISE)
    first, second = (single(clients, block, own, turn) for turn in (0, 1))
    assert all(torch.equal(own.updates[name][0], u) for name, u in first.items())
    assert all(not torch.equal(u, first[name]) for name, u in second.items())
    assert own.digest == digest_of_update(own.updates)


def test_an_update_is_the_mean_of_its_releases_and_its_noise_smaller_by_the_root_of_their_number(sent):
    clients, block, own = sent(NOISE, releases=4)
    every = [single(clients, block, own, turn) for turn in range(4)]
    for name, u in own.updates.items():
        assert torch.equal(u[0], torch.stack([one[name].double() for one in every]).mean(0).float())
    seen = observe(own, block.cell.threat)
    assert seen.defense.noise_std == 0.1 / 2
    assert seen.each is None
    _, _, plain = sent("none")
    noise = torch.cat([(own.updates[name] - u).flatten() for name, u in plain.updates.items()])
    assert noise.std().item() == pytest.approx(0.05, rel=0.05)


def test_a_client_without_noise_releases_the_same_every_time(sent):
    for defense in ("none", "gradient_pruning(ratio=0.9)"):
        _, block, once = sent(defense)
        _, again, often = sent(defense, releases=7)
        assert all(torch.equal(u, often.updates[name]) for name, u in once.updates.items())
        assert often.each is None
        assert (once.digest == often.digest, block.client_key == again.client_key) == (False, False)


def test_many_releases_of_dp_sgd_approach_the_clipped_gradient(sent):
    def distance(noise, releases):
        _, _, own = sent(f"dp_sgd(noise_multiplier={noise})", releases)
        return torch.cat([u.flatten(1) for u in own.updates.values()], 1)

    clipped = distance(0.0, 1)
    errors = [float((distance(0.1, count) - clipped).norm()) for count in (1, 16, 64)]
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.1)
    assert errors[2] == pytest.approx(errors[0] / 8, rel=0.1)


def test_releases_that_a_surrogate_looks_at_are_all_kept_and_the_attack_s_mismatch_is_their_mean(sent):
    clients, block, own = sent("random_mask", releases=3)
    assert {name: tuple(u.shape[:2]) for name, u in own.each.items()} == dict.fromkeys(own.params, (4, 3))
    assert all(torch.equal(own.each[name][0, 1], u) for name, u in single(clients, block, own, 1).items())
    seen = observe(own, block.cell.threat)
    attack, images, labels = EuclideanAdam(), torch.rand(own.truth.shape), own.labels
    alone = []
    for turn in range(3):
        of_one = replace(seen, updates={name: u[:, turn] for name, u in seen.each.items()}, each=None)
        alone.append(attack.objective(of_one, images, labels))
    torch.testing.assert_close(attack.objective(seen, images, labels), torch.stack(alone).mean(0))
    assert attack.objective(seen, own.truth.float() / 255, labels).max() < 1e-9
    assert observe(own, ThreatModel(releases=3)).each is None  # without the surrogate the mean is all there is


def test_an_observation_cut_joined_and_moved_keeps_all_its_releases(sent):
    _, block, own = sent("random_mask", releases=3)
    seen = observe(own, block.cell.threat)
    together = joined([seen[:1], seen[1:]])
    assert all(torch.equal(u, seen.each[name]) for name, u in together.each.items())
    assert {u.dtype for u in seen.to("cpu", torch.float64).each.values()} == {torch.float64}


def test_more_releases_than_memory_holds_are_refused_before_they_are_made():
    turns = []

    def updates():
        while True:
            rng = generator_of("client", turn=len(turns))
            turns.append(0)
            yield {"w": torch.rand(1, 10, generator=rng)}

    with pytest.raises(
        UnsupportedPair, match=r"at each of 100 releases, which differ, and 1,000 entries .* lower threat"
    ):
        released(updates(), 100, each=True, most=999)
    assert len(turns) == 2
    assert released(updates(), 100, each=False, most=0).each is None


def test_a_running_mean_of_one_update_is_that_update():
    mean, update = RunningMean(), {"w": torch.tensor([-0.0, 0.1])}
    mean.add(update)
    assert mean.value is update


def test_the_black_box_shows_a_client_as_often_as_the_attacked_ones(sent):
    clients, block, own = sent(NOISE, releases=4)
    box = clients._black_box(block.cell, own, observe(own, block.cell.threat))
    assert box.releases == 4
    asked = own.truth[:2], own.labels[:2], [1, 2]
    plain = OwnBlackBox(Chain((NoDefense(),)), box.task, box.params).release(*asked).updates
    for chain, noise in ((replace(box, releases=1), 0.1), (box, 0.05)):
        found = chain.release(*asked).updates
        errors = torch.cat([(u - plain[name]).flatten() for name, u in found.items()])
        assert errors.std().item() == pytest.approx(noise, rel=0.05)


def test_one_release_leaves_ids_keys_plans_and_configurations_as_they_are(grid_file):
    plain, *_, plan = prepare(grid_file)
    asked, *_, same = prepare(grid_file, overrides=["grid.threat.releases=1"])
    assert [cell.id for cell in plan.cells] == [cell.id for cell in same.cells]
    assert to_toml(plain) == to_toml(asked)
    assert "releases" not in to_toml(plain)
    _, _, _, more = prepare(grid_file, overrides=["grid.threat.releases=[1, 4]"])
    ids = [cell.id for cell in more.cells]
    assert ids[: len(plan.cells)] == [cell.id for cell in plan.cells]
    assert len(set(ids)) == 2 * len(plan.cells)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("0", r"grid\.threat\.releases\[0\] must be at least 1, got 0"),
        ("10001", r"grid\.threat\.releases\[0\] must be at most 10,000, got 10001"),
        ("2.5", r"grid\.threat\.releases\[0\].* valid integer, got 2\.5"),
        ("true", r"grid\.threat\.releases\[0\].* valid integer, got True"),
    ],
)
def test_a_number_of_releases_that_makes_no_sense_is_refused(grid_file, value, words):
    with pytest.raises(ConfigurationError, match=words):
        load_config(grid_file, [f"grid.threat.releases={value}"])


def test_a_threat_model_refuses_a_number_of_releases_that_makes_no_sense():
    for wrong in (0, 10_001, 1.5, True, "2"):
        with pytest.raises(ValueError, match="releases must be a whole number from 1 to 10,000, got"):
            ThreatModel(releases=wrong)


def test_a_grid_of_one_and_four_releases_runs_is_told_apart_and_goes_on_where_it_stopped(grid_file, tmp_path):
    overrides = ["grid.threat.releases=[1, 4]", "grid.threat.defense_known=true", "grid.controls=false"]
    overrides += ['grid.attacks=["linear_layer", "grey_image"]', 'grid.defenses=["none", "gaussian_noise(std=0.1)"]']
    asked = prepare(grid_file, overrides=overrides)
    text = describe_plan(asked[3], asked[1], asked[2], Store(tmp_path / "none"))
    assert "not estimated" not in text
    done = run(grid_file, output=tmp_path / "run", overrides=overrides)
    frame = done.frame()
    assert done.failed == 0
    assert set(frame["releases"]) == {1, 4}
    noisy = frame[(frame["defense_parameters"] == '[{"std": 0.1}]') & ~frame["control"]]
    norms = noisy.groupby("releases")["update_norm"].mean()
    assert norms[4] < 0.85 * norms[1]
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert {cell.get("releases", 1) for cell in plan["cells"]} == {1, 4}
    assert sum("releases" in cell for cell in plan["cells"]) == len(plan["cells"]) / 2
    for text in (render_standings(frame), render_scores(frame)):
        assert text.count(", 4 releases") == 1
        assert "1 releases" not in text
    record = tmp_path / "run/blocks" / f"{plan['cells'][-1]['blocks'][0]['id']}.json"
    before = record.read_bytes()
    record.unlink()
    run(grid_file, output=tmp_path / "run", overrides=overrides)
    mine = lambda text: [(i["mse"], i["update_norm"]) for i in json.loads(text)["images"]]
    assert mine(record.read_bytes()) == mine(before)
