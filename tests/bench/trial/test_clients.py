"""What a server gets to see, and what it cannot rebuild from it."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType

import pytest
import torch

from bench.data.dataset import digest_of
from bench.engines.run import prepare
from bench.registry.registry import Registry
from bench.seeds import stream
from bench.trial.clients import attack_seeds, observe, partition
from defenses.task import Batch


def released(grid_file, *overrides, index=0):
    _, _, clients, plan = prepare(grid_file, overrides=list(overrides))
    block = next(iter(plan.cells[index].blocks(plan.images)))
    return block, clients.release(block), clients


def tensors_in(value, seen):
    """Every tensor that can be reached from an object through its attributes, containers and closures."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, seen)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from tensors_in(item, seen)
    elif isinstance(value, partial):
        yield from tensors_in([value.func, value.args, value.keywords], seen)
    elif isinstance(value, MethodType):
        yield from tensors_in([value.__self__, value.__func__], seen)
    elif isinstance(value, FunctionType):
        yield from tensors_in([cell.cell_contents for cell in value.__closure__ or ()], seen)
    elif hasattr(value, "__dict__"):
        yield from tensors_in(vars(value), seen)


SEVERAL = "larger_batch(examples=4)"


@pytest.mark.parametrize("known", ["false", "true"])
@pytest.mark.parametrize("transform", ["", " | gradient_pruning(ratio=0.5)", " | dp_sgd(clip_norm=1.0)"])
def test_no_private_image_number_or_label_order_can_be_reached_from_an_observation(grid_file, known, transform):
    defense = [f'grid.defenses=["{SEVERAL}{transform}"]', f"grid.threat.defense_known={known}"]
    block, own, _ = released(grid_file, *defense, "grid.images=8", "grid.seeds=[3]")
    seen = observe(own, block.cell.threat)
    private = own.truth.float() / 255
    for tensor in tensors_in(seen, set()):
        for image in private.flatten(0, 1):
            assert tensor.numel() < image.numel() or not torch.isin(image, tensor.float()).all()
        assert tensor.shape != own.image_ids.shape or not torch.equal(tensor, own.image_ids)
        assert tensor.shape != own.labels.shape or not torch.equal(tensor, own.labels)
    assert torch.equal(seen.labels, own.labels.sort(dim=1).values)
    assert not torch.equal(seen.labels, own.labels)


@pytest.mark.parametrize("labels", ["recovered", "joint"])
def test_labels_that_the_threat_model_does_not_grant_are_not_in_the_observation(grid_file, labels):
    overrides = [f'grid.defenses=["{SEVERAL}"]', "grid.images=8", "grid.seeds=[3]", f'grid.threat.labels="{labels}"']
    block, own, _ = released(grid_file, *overrides)
    seen = observe(own, block.cell.threat)
    multisets = own.labels.sort(dim=1).values
    assert seen.labels is None
    for tensor in tensors_in(seen, set()):
        if tensor.shape == own.labels.shape:
            assert not torch.equal(tensor.sort(dim=1).values.long(), multisets)


def test_the_truth_is_the_dataset_s_own_images_whatever_the_defense_did(grid_file):
    """Nothing that a client makes of its images, noised or mixed, is what the referee scores against."""
    defenses = ['"none"', '"gaussian_noise(std=0.1)"', f'"{SEVERAL} | dp_sgd"', '"mix_up"', '"local_epochs(epochs=2)"']
    overrides = [f"grid.defenses=[{','.join(defenses)}]"]
    plugin = Path(__file__).parents[2] / "plugins/mix_up.py"
    _, _, clients, plan = prepare(grid_file, Registry([plugin]), overrides=overrides)
    for cell in plan.cells:
        own = clients.release(cell.blocks(plan.images)[0])
        data = clients.dataset(cell.setting)
        assert torch.equal(own.truth.flatten(0, 1), data.pixels(own.image_ids.flatten().tolist()))
        assert torch.equal(own.labels, data.labels[own.image_ids])


def test_weights_that_are_asked_for_are_those_that_client_and_server_use(grid_file, tmp_path, monkeypatch):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))
    used = {}
    for weights in ("untrained", 1):
        block, own, _ = released(grid_file, f"grid.weights=[{weights!r}]".replace("'", '"'))
        seen = observe(own, block.cell.threat)
        assert own.params.keys() == seen.params.keys()
        for name, p in own.params.items():
            assert torch.equal(p, own.weights.state[name])
            assert torch.equal(p, seen.params[name])
        batch = Batch(own.truth[0].float() / 255, own.labels[0])
        again = own.task.gradient(own.weights.state, batch)
        assert all(torch.equal(own.updates[name][0], g) for name, g in again.items())
        used[weights] = own.params
    assert all(not torch.equal(p, used[1][name]) for name, p in used["untrained"].items())


def test_a_client_with_batch_norm_computes_its_gradient_with_the_running_statistics(grid_file):
    """In train mode the statistics of one batch would enter the update, and the next client's model."""
    overrides = ['grid.models=["resnet20(width=4)"]', f'grid.defenses=["{SEVERAL}"]', 'grid.dataset="mnist-samples"']
    _, own, _ = released(grid_file, *overrides, "grid.images=8")
    batch = Batch(own.truth[0].float() / 255, own.labels[0])
    assert not any(module.training for module in own.task.model.modules())
    expected = own.task.gradient(own.params, batch)
    assert all(torch.allclose(own.updates[name][0], g, atol=1e-6) for name, g in expected.items())
    own.task.model.train()
    other = own.task.gradient(own.params, batch)
    assert not all(torch.allclose(own.updates[name][0], g, atol=1e-3) for name, g in other.items())


NORMED = [
    'grid.models=[{ name = "resnet20", width = 2 }]',
    'grid.defenses=["larger_batch(examples=4)"]',
    "grid.images=8",
]


@pytest.mark.parametrize("granted", ["running", "unknown", "batch"])
def test_of_the_private_batch_s_statistics_the_threat_model_grants_mean_and_variance_or_nothing(grid_file, granted):
    block, own, _ = released(grid_file, *NORMED, f'grid.threat.batch_norm="{granted}"')
    seen = observe(own, block.cell.threat)
    blind = replace(own, truth=torch.zeros_like(own.truth))
    other = observe(blind, block.cell.threat)
    if granted != "batch":
        assert seen.batch_statistics is None
        # Whatever else is observed does not come from the private images but through the update.
        assert all(getattr(other, field) is getattr(seen, field) for field in ("task", "params", "updates", "defense"))
        assert torch.equal(other.labels, seen.labels)
        return
    layers = [m for m in own.task.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    shapes = [tuple(s.shape) for s in seen.batch_statistics.values()]
    assert shapes == [(2, layer.num_features) for layer in layers for _ in ("mean", "variance")]
    inputs = own.task.model.network[0](own.task.normalise(own.truth[1].float() / 255))
    assert torch.allclose(seen.batch_statistics["network.1.mean"][1], inputs.mean((0, 2, 3)))
    assert torch.allclose(
        seen.batch_statistics["network.1.variance"][1], inputs.var((0, 2, 3), correction=0), rtol=1e-4
    )
    assert not torch.equal(other.batch_statistics["network.1.mean"], seen.batch_statistics["network.1.mean"])


REMEMBERING = """
from dataclasses import dataclass
from leakboard import Defense, Surrogate, local_training

@dataclass(frozen=True)
class Mine(Defense):
    def share(self, task, params, batch, rng):
        object.__setattr__(self, "mean", batch.images.mean(0))
        return local_training(task, params, batch, rng, task.gradient)

    def surrogate(self, task):
        return Surrogate(predict=self.same)

    def same(self, update):
        return update
"""


def test_what_a_defense_remembers_of_a_batch_does_not_reach_an_attacker_who_knows_it(grid_file, tmp_path):
    (tmp_path / "mine.py").write_text(REMEMBERING)
    overrides = ['grid.defenses=["mine"]', "grid.threat.defense_known=true"]
    _, _, clients, plan = prepare(grid_file, Registry([tmp_path / "mine.py"]), overrides=overrides)
    block = next(iter(plan.cells[0].blocks(plan.images)))
    own = clients.release(block)
    seen = observe(own, block.cell.threat)
    assert seen.defense is not None
    means = own.truth.float().mean(1) / 255
    assert not any(
        tensor.shape == mean.shape and torch.equal(tensor, mean) for tensor in tensors_in(seen, set()) for mean in means
    )


@pytest.mark.parametrize(("known", "granted"), [("false", False), ("true", True)])
def test_the_defense_is_in_the_observation_where_the_threat_model_says_so(grid_file, known, granted):
    defense = 'grid.defenses=["norm_clipping(clip_norm=1.0) | gaussian_noise(std=0.25)"]'
    block, own, _ = released(grid_file, defense, f"grid.threat.defense_known={known}")
    seen = observe(own, block.cell.threat)
    assert (seen.defense is not None) == granted
    assert not granted or seen.defense.noise_std == 0.25
    assert block.cell.audited


def test_an_observation_and_the_attack_s_seeds_do_not_rebuild_the_client_s_noise(grid_file):
    """Not from the seeds, and not from any stream over the image numbers and seeds that a server could guess."""
    defense = 'grid.defenses=["gaussian_noise(std=0.1)"]'
    block, noisy, clients = released(grid_file, defense)
    chain, name = clients.chain(block.cell.defense), "network.1.weight"
    private = Batch(noisy.truth[0].float() / 255, noisy.labels[0])
    clean = noisy.task.gradient(noisy.params, private)[name]
    sent_noise = (noisy.updates[name][0] - clean).flatten()

    def noise_of(seed):
        """What the defense adds when its generator starts from this seed."""
        sent = chain.update(noisy.task, noisy.params, private, torch.Generator().manual_seed(seed))
        return (sent[name] - clean).flatten()

    def alike(a, b):
        return abs(float(torch.nn.functional.cosine_similarity(a, b, dim=0)))

    true_seed = stream("client", 0, digest_of(noisy.truth[0], noisy.labels[0]))
    assert alike(sent_noise, noise_of(true_seed)) > 0.999  # who has the images can: the check is able to fail
    guesses = set(attack_seeds(block))
    for role, image, seed in itertools.product(("client", "attack", "model", "partition"), range(8), range(3)):
        guesses |= {stream(role, "digits", seed, image), stream(role, seed, image), stream(role, image)}
    assert max(alike(sent_noise, noise_of(guess)) for guess in guesses) < 0.3


def test_comparisons_are_paired(grid_file):
    """The same images, weights and standard noise, whatever the defense's strength."""
    grid = 'grid.defenses=["none",{name="gaussian_noise",std=[0.01,0.1]}]'
    _, _, clients, plan = prepare(grid_file, overrides=[grid])
    cells = {cell.defense_order: cell for cell in plan.cells}
    clean, weak, strong = (clients.release(cells[i].blocks(4)[0]) for i in range(3))
    assert torch.equal(clean.image_ids, strong.image_ids)
    for name, u in clean.updates.items():
        assert torch.allclose((weak.updates[name] - u) * 10, strong.updates[name] - u, atol=1e-5)


def test_images_are_dealt_to_clients_by_the_seed_and_each_once(grid_file):
    deal = {}
    for seed in (0, 1):
        block, own, _ = released(
            grid_file, 'grid.defenses=["larger_batch(examples=4)"]', "grid.images=48", f"grid.seeds=[{seed}]"
        )
        deal[seed] = own.image_ids
        assert own.image_ids.shape == (5, 4)
        assert sorted(own.image_ids.flatten().tolist()) == list(range(20))
        assert torch.equal(partition(block, "digits"), own.image_ids)
    assert not torch.equal(deal[0], deal[1])


def test_an_unknown_schedule_is_not_in_the_observation(grid_file):
    defense = 'grid.defenses=["local_epochs(epochs=7,learning_rate=0.123)"]'
    block, own, _ = released(grid_file, defense, "grid.threat.schedule_known=false")
    seen = observe(own, block.cell.threat)
    assert own.task.schedule.epochs == 7
    assert seen.task.schedule.sends_gradient
    assert seen.task.schedule.learning_rate != 0.123
    assert seen.scale is None


def test_a_defense_that_would_tell_the_schedule_is_not_known_without_it(grid_file):
    overrides = ['grid.defenses=["none","local_epochs(epochs=7) | dp_sgd"]', "grid.threat.schedule_known=false"]
    overrides.append("grid.threat.defense_known=[false,true]")
    _, _, clients, plan = prepare(grid_file, overrides=overrides)
    audited = {(cell.threat.defense_known, len(cell.defense)): cell.audited for cell in plan.cells}
    assert audited == {(False, 1): True, (True, 1): True, (False, 2): True, (True, 2): False}
    cell = next(cell for cell in plan.cells if not cell.audited)
    block = next(iter(cell.blocks(plan.images)))
    assert observe(clients.release(block), cell.threat).defense is None
