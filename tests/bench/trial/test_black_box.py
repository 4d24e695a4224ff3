"""The client as its attackers run it: which one the threat model grants, and that it is the private one's like."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Generator

from bench.engines.blocks import GroupWork
from bench.engines.run import prepare
from bench.engines.work import Tools
from bench.plan.groups import Group
from bench.registry.registry import Registry
from bench.seeds import stream
from bench.trial.black_box import ForkedBlackBox, OwnBlackBox
from bench.trial.clients import observe
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.task import Batch

PUBLIC = ['grid.attacks=["posterior_mean"]', "grid.public=40", "grid.threat.public=true"]
LOCAL = "local_epochs(epochs=2,learning_rate=0.1) | gaussian_noise(std=0.1)"


def granted(grid_file, *overrides, plugins=(), blocks=1):
    """The black box that the grid's first cell is granted, its cell, and the release behind it."""
    _, registry, clients, plan = prepare(grid_file, Registry(plugins), overrides=[*PUBLIC, *overrides])
    cell = next(cell for cell in plan.cells if not cell.control)
    sent = clients.release(cell.blocks(plan.images)[0])
    return clients.observed(cell, registry.build("attack", cell.attack), [sent]), cell, sent


def names(black_box):
    return [type(part).__name__ for part in black_box.chain.parts]


@pytest.mark.parametrize(
    ("defense", "defense_known", "schedule_known", "parts", "epochs"),
    [
        ("gaussian_noise(std=0.1)", True, True, ["GaussianNoise"], 0),
        ("gaussian_noise(std=0.1)", True, False, ["GaussianNoise"], 0),  # one gradient has no schedule to hide
        ("gaussian_noise(std=0.1)", False, True, ["NoDefense"], 0),
        (LOCAL, True, True, ["LocalEpochs", "GaussianNoise"], 2),
        (LOCAL, True, False, ["NoDefense"], 0),  # the defense would tell the schedule
        (LOCAL, False, True, ["NoDefense"], 2),
        (LOCAL, False, False, ["NoDefense"], 0),
    ],
)
def test_the_black_box_is_the_defended_client_where_it_is_known_and_else_the_undefended_one_of_the_schedule_assumed(
    grid_file, defense, defense_known, schedule_known, parts, epochs
):
    known = [f"grid.threat.defense_known={str(defense_known).lower()}"]
    known += [f"grid.threat.schedule_known={str(schedule_known).lower()}"]
    seen, _, _ = granted(grid_file, f'grid.defenses=["{defense}"]', *known)
    assert names(seen.black_box) == parts
    assert seen.black_box.task.schedule.epochs == epochs
    assert seen.black_box.task is seen.task


def test_without_public_images_there_is_no_black_box(grid_file):
    _, registry, clients, plan = prepare(grid_file, overrides=["grid.threat.defense_known=true"])
    cell = plan.cells[0]
    seen = clients.observed(cell, registry.build("attack", cell.attack), [clients.release(cell.blocks(4)[0])])
    assert seen.black_box is None


@pytest.mark.parametrize("defense", ["none", "dp_sgd(clip_norm=0.1) | gradient_pruning(ratio=0.5)", LOCAL])
@pytest.mark.parametrize("together", [1, 2, 512])
def test_the_black_box_and_a_private_client_of_the_same_image_and_chance_send_the_same(grid_file, defense, together):
    seen, _, sent = granted(grid_file, f'grid.defenses=["{defense}"]', "grid.threat.defense_known=true")
    chain = seen.black_box.chain
    black_box = OwnBlackBox(chain, seen.task, seen.params, together=together)
    released = black_box.release(sent.truth[:3], sent.labels[:3], [7, 8, 9])
    assert released.batch_statistics is None
    for i, seed in enumerate([7, 8, 9]):
        rng = Generator().manual_seed(stream("black box", seed))
        private = chain.update(sent.task, sent.params, Batch(sent.truth[i].float() / 255, sent.labels[i]), rng)
        for name, u in private.items():
            torch.testing.assert_close(released.updates[name][i], u, rtol=0 if together == 1 else 1e-4, atol=1e-6)
            assert together > 1 or torch.equal(released.updates[name][i], u)


def test_batch_statistics_are_released_where_private_clients_send_them(grid_file):
    norms = ['grid.models=["resnet20(width=2)"]', 'grid.defenses=["larger_batch(examples=4)"]', "grid.images=8"]
    plugin = Path(__file__).parents[2] / "plugins" / "nearest_public.py"
    asked = ['grid.attacks=["nearest_public"]', 'grid.threat.batch_norm="batch"']
    seen, cell, sent = granted(grid_file, *norms, *asked, plugins=[plugin])
    released = seen.black_box.release(sent.truth, sent.labels, [1, 2])
    private = observe(sent, cell.threat).batch_statistics
    assert private.keys() == released.batch_statistics.keys()
    assert all(torch.equal(private[name], value) for name, value in released.batch_statistics.items())


def test_a_way_to_compute_many_clients_that_differs_from_the_single_one_is_noticed_and_not_used(grid_file, monkeypatch):
    noisy = ['grid.defenses=["gaussian_noise(std=0.1)"]', "grid.threat.defense_known=true"]
    assert granted(grid_file, *noisy)[0].black_box.together > 1
    monkeypatch.setattr(GaussianNoise, "transform_many", lambda self, task, updates, rngs: updates)
    seen, _, sent = granted(grid_file, *noisy)
    assert seen.black_box.together == 1
    noise = lambda seed: seen.black_box.release(sent.truth[:1], sent.labels[:1], [seed]).updates["network.1.weight"]
    assert float((noise(1) - noise(2)).std()) == pytest.approx(0.1 * 2**0.5, rel=0.1)


def test_a_network_that_cannot_be_computed_for_many_clients_is_computed_for_one_after_the_other(grid_file, monkeypatch):
    def refused(*arguments):
        raise RuntimeError("vmap: no batching rule")

    monkeypatch.setattr(NoDefense, "share_many", refused)
    seen, _, sent = granted(grid_file, 'grid.defenses=["none"]')
    assert seen.black_box.together == 1
    assert len(seen.black_box.release(sent.truth, sent.labels, range(4)).updates["network.1.weight"]) == 4


PLUGIN = """
from dataclasses import dataclass
import torch
from leakboard import Attack, Defense, Reconstruction

@dataclass(frozen=True)
class Running(Attack):
    needs_public = True

    def reconstruct(self, observation, seeds):
        public = observation.public
        sent = observation.black_box.release(public.images[:60, None], public.labels[:60, None], range(60))
        first = sent.updates["network.1.weight"].flatten(1)
        own = observation.updates["network.1.weight"].flatten(1)
        nearest = torch.cdist(own, first).argmin(1)
        return Reconstruction(public.images[nearest][:, None].float() / 255, observation.labels)

@dataclass(frozen=True)
class Choosy(Defense):
    above: float = 99.0

    def share(self, task, params, batch, rng):
        if batch.images.sum() > self.above:
            raise ValueError("too bright")
        return {name: p + self.above for name, p in task.gradient(params, batch).items()}
"""


@dataclass
class Silent:
    """Nobody who watches."""

    def training(self, item, done, total):
        pass

    def progress(self, work, done, total):
        pass


def test_a_plugin_that_fails_its_attackers_alone_is_an_error_with_its_line_and_never_a_pass(grid_file, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    line = PLUGIN.splitlines().index('            raise ValueError("too bright")') + 1
    registry = Registry([tmp_path / "mine.py"])
    overrides = ['grid.attacks=["running"]', "grid.public=60", "grid.threat.public=true", "grid.images=2"]
    overrides += ['grid.defenses=["choosy", "choosy(above=24.7)"]', "grid.threat.defense_known=true"]
    config, _, clients, plan = prepare(grid_file, registry, overrides=overrides)
    tools = Tools(registry, clients, config.engine, torch.device("cpu"))
    calm, choosy = (cell.blocks(2)[0] for cell in plan.cells if cell.attack.name == "running")
    seen = clients.observed(calm.cell, registry.build("attack", calm.cell.attack), [clients.release(calm)])
    assert isinstance(seen.black_box, ForkedBlackBox)
    [attacked] = GroupWork(Group([choosy])).outcomes(tools, lambda *_: None, Silent())
    clients.close()
    assert attacked.result["status"] == "error"
    assert attacked.result["reason"].startswith("BlackBoxFault: choosy(above=24.7): ValueError: too bright")
    assert attacked.result["reason"].endswith(f"mine.py:{line})")
