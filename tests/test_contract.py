"""What every attack and every defense promises, asked of each one that the registry knows."""

import random
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.attack import UnsupportedPair
from attacks.threat import ThreatModel
from bench.clients import observe
from bench.registry import Registry
from bench.runs import prepare
from bench.specs import MethodSpec
from defenses.client import Batch, role_of
from defenses.schedule import Schedule

# A built-in without a row here fails; so does a row without a method.
ATTACKS = {
    "absolute_matching": {"iterations": 3},
    "class_mean": {},
    "dataset_mean": {},
    "euclidean": {"iterations": 1, "history": 5},
    "euclidean_adam": {"iterations": 3, "restarts": 2},
    "gaussian_likelihood": {"iterations": 3, "restarts": 2},
    "grey_image": {},
    "inverting_gradients": {"iterations": 3, "restarts": 2},
    "label_rule": {},
    "leak_reader": {},
    "linear_layer": {"iterations": 3},
    "prior_only": {"iterations": 3},
    "see_through_gradients": {"iterations": 3, "group_size": 2},
}
DEFENSES = {
    "dp_sgd": {"clip_norm": 0.5, "noise_multiplier": 0.1},
    "gaussian_noise": {"std": 0.1},
    "gradient_pruning": {"ratio": 0.5, "scope": "model"},
    "in_pairs": {},
    "larger_batch": {"examples": 2},
    "local_epochs": {"epochs": 2, "batch_size": 1, "learning_rate": 0.1},
    "mix_up": {"weight": 0.7},
    "none": {},
    "noop": {},
    "norm_clipping": {"clip_norm": 0.1, "scope": "layer"},
    "planted_leak": {},
    "sign_compression": {"scale": 2.0},
    "zeros": {},
}
REGISTRY = Registry(sorted((Path(__file__).parent / "plugins").glob("*.py")))
GRID = """
[grid]
dataset = "{dataset}"
models = [{model}]
images = 4
attacks = ["grey_image", "inverting_gradients(iterations=1)"]
defenses = ["{defense}"]
"""
SETTINGS = {
    "mlp": ("digits", '{ name = "mlp", hidden = [16] }'),
    "lenet": ("mnist-samples", '"lenet-zhu"'),
}


def attack_of(name):
    return REGISTRY.build("attack", MethodSpec.of(name, ATTACKS[name]))


def defense_of(name):
    return REGISTRY.build("defense", MethodSpec.of(name, DEFENSES[name]))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """What two clients of two images sent under a defense, or four of one, and the class means."""
    folder = tmp_path_factory.mktemp("grids")

    @cache
    def release(setting, defense):
        dataset, model = SETTINGS[setting]
        path = folder / "grid.toml"
        path.write_text(GRID.format(dataset=dataset, model=model, defense=defense))
        _, _, clients, plan = prepare(path)
        [block] = plan.cells[0].blocks(4)
        means = clients.class_means(block.cell.setting)
        own = clients.release(block)
        return own, means

    return release


@pytest.fixture(scope="module")
def observed(released):
    """An observation in float64, and one seed per trial."""

    def observation(setting, defense="none", **threat):
        own, means = released(setting, defense)
        seen = observe(own, ThreatModel(**threat), means).to("cpu", torch.float64)
        return seen, [11 + trial for trial in range(seen.trials)]

    return observation


@pytest.fixture
def global_state():
    """A function that gives the state of every global generator."""
    return lambda: (torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state()))


def reconstructed(attack, seen, seeds):
    """The reconstruction; skips the test where the attack says that it is not possible."""
    try:
        attack.check(seen.task, seen.threat.labels)
        return attack.reconstruct(seen, list(seeds))
    except UnsupportedPair as reason:
        pytest.skip(f"not possible: {reason}")


def tensors_of(found):
    named = {"images": found.images, "labels": found.labels, "objective": found.objective, "start": found.start}
    named |= {"features": found.features, **{f"trace[{i}]": value for i, value in found.trace.items()}}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


@pytest.mark.parametrize(("kind", "table"), [("attack", ATTACKS), ("defense", DEFENSES)])
def test_every_method_has_a_row_here_and_every_row_a_method(kind, table):
    assert {entry.name for entry in REGISTRY.entries(kind)} == table.keys()


@pytest.mark.parametrize("name", [*ATTACKS, *DEFENSES])
def test_a_method_names_its_source_or_says_that_it_is_a_heuristic_or_control(name):
    text = REGISTRY.cls("attack" if name in ATTACKS else "defense", name).__doc__
    assert re.search(r"\b(19|20)\d\d\b|heuristic|control", text), text


def applied(name, own, seed, dtype=torch.float32):
    """What a defense makes of fixed arguments, by calling its own method, and these arguments."""
    defense, rng = defense_of(name), torch.Generator().manual_seed(seed)
    task = replace(own.task, model=own.task.model.to(dtype), schedule=Schedule(images=2))
    params = {key: p.to(dtype) for key, p in own.params.items()}
    batch = Batch(own.truth[0].to(dtype) / 255, own.labels[0])
    role = role_of(type(defense))
    if role == "schedule":
        task = replace(task, schedule=defense.schedule(task.schedule))
        return task.schedule, {}
    if role == "share":
        given = {**params, "images": batch.images, "labels": batch.labels}
        copies = {key: value.clone() for key, value in given.items()}
        update = defense.share(task, params, batch, rng)
    else:
        given = {key: u.to(dtype) for key, u in task.gradient(params, batch).items()}
        copies = {key: value.clone() for key, value in given.items()}
        update = defense.transform(task, given, rng)
    return update, {key: (copies[key], value) for key, value in given.items()}


@pytest.fixture
def two_images(released):
    own = released("lenet", "larger_batch(examples=2)")[0]
    yield own
    own.task.model.to(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_keeps_names_shapes_and_type_stays_finite_and_writes_nowhere(two_images, name, dtype):
    update, given = applied(name, two_images, seed=0, dtype=dtype)
    if isinstance(update, Schedule):
        assert update == applied(name, two_images, seed=1)[0]
        return
    assert list(update) == list(two_images.params)
    for key, p in two_images.params.items():
        assert (update[key].shape, update[key].dtype) == (p.shape, dtype)
        assert torch.isfinite(update[key]).all()
        assert not update[key].requires_grad
    for key, (before, after) in given.items():
        assert torch.equal(before, after), key


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defense_draws_from_its_generator_alone(two_images, name, global_state):
    torch.manual_seed(0)
    first, _ = applied(name, two_images, seed=5)
    torch.manual_seed(1)
    before = global_state()
    again, _ = applied(name, two_images, seed=5)
    assert global_state() == before
    if isinstance(first, Schedule):
        assert first == again
    else:
        assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("name", [n for n in DEFENSES if role_of(type(defense_of(n))) == "transform"])
def test_a_transform_of_an_update_of_zeros_is_finite(two_images, name):
    zeros = {key: torch.zeros_like(p) for key, p in two_images.params.items()}
    update = defense_of(name).transform(two_images.task, zeros, torch.Generator().manual_seed(0))
    assert all(torch.isfinite(u).all() for u in update.values())


@pytest.mark.parametrize("name", [n for n in DEFENSES if role_of(type(defense_of(n))) == "share"])
def test_a_share_honours_the_schedule(two_images, name):
    """Two local steps of a tiny learning rate move twice as far as one gradient times that rate."""
    defense, own, rate = defense_of(name), two_images, 1e-5
    if hasattr(defense, "noise_multiplier"):
        defense = replace(defense, noise_multiplier=0.0)
    own.task.model.to(torch.float64)
    params = {key: p.double() for key, p in own.params.items()}
    batch = Batch(own.truth[0].double() / 255, own.labels[0])
    gradient, moved = (
        defense.share(replace(own.task, schedule=schedule), params, batch, torch.Generator().manual_seed(0))
        for schedule in (Schedule(images=2), Schedule(images=2, epochs=2, learning_rate=rate))
    )
    for key, g in gradient.items():
        assert torch.allclose(moved[key] / (2 * rate), g, rtol=1e-2, atol=1e-2), key


CLIENTS = {
    "gradient": ("larger_batch(examples=2)", True),
    "weight difference": ("larger_batch(examples=2) | local_epochs(epochs=2, batch_size=1, learning_rate=0.1)", True),
    "unknown schedule": ("larger_batch(examples=2) | local_epochs(epochs=2, batch_size=1, learning_rate=0.1)", False),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("labels", ["known", "recovered", "joint"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_answers_with_images_in_the_unit_range_and_possible_labels(observed, name, client, labels, setting):
    defense, known = CLIENTS[client]
    seen, seeds = observed(setting, defense, labels=labels, schedule_known=known)
    attack = attack_of(name)
    found = reconstructed(attack, seen, seeds)
    t, b = 2, 2
    assert tuple(found.images.shape) == (t, b, *seen.task.input_shape)
    assert torch.isfinite(found.images).all()
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert (tuple(found.labels.shape), found.labels.dtype) == ((t, b), torch.long)
    assert found.labels.min() >= 0
    assert found.labels.max() < seen.task.classes
    for what, values in tensors_of(found).items():
        if what not in ("images", "labels", "features"):
            assert tuple(values.shape) == (t,), what
            assert torch.isfinite(values).all(), what
    if found.objective is not None:
        assert found.start is not None
        assert torch.equal(found.trace[0], found.start)
    assert (found.features is not None) == (found.recovered == "features")
    asked = attack.objective(seen, found.images, found.labels)
    if asked is not None:
        assert found.objective is not None
        assert tuple(asked.shape) == (t,)
        assert torch.isfinite(asked).all()
    if found.features is not None:
        true = attack.features(seen.task, seen.params, found.images.flatten(0, 1))
        assert true.view(t, b, -1).shape == found.features.shape
    if labels == "known" and not attack.recovers_labels:
        assert torch.equal(found.labels.sort(dim=1).values, seen.labels)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_s_images_have_the_type_of_the_weights(observed, name):
    seen, seeds = observed("mlp")
    assert attack_of(name).reconstruct(seen, seeds).images.dtype == torch.float64


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_depends_on_its_seeds_alone_and_touches_nothing(observed, name, setting, global_state):
    seen, seeds = observed(setting, "larger_batch(examples=2)", labels="recovered")
    attack, model = attack_of(name), seen.task.model
    watched = {**seen.updates, **{f"p.{k}": p for k, p in seen.params.items()}, **dict(model.named_buffers())}
    before = {key: tensor.clone() for key, tensor in watched.items()}
    torch.manual_seed(0)
    first = tensors_of(reconstructed(attack, seen, seeds))
    torch.manual_seed(1)
    state = global_state()
    again = tensors_of(attack.reconstruct(seen, list(seeds)))
    assert global_state() == state
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(torch.equal(before[key], watched[key]) for key in before)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("labels", ["known", "recovered", "joint"])
@pytest.mark.parametrize("name", ATTACKS)
def test_trials_attacked_together_equal_trials_attacked_one_by_one(observed, name, labels, setting):
    """To 1e-8 in float64; for signed steps too, since these only flip where a gradient is zero to that precision."""
    seen, seeds = observed(setting, "larger_batch(examples=2)", labels=labels)
    together = tensors_of(reconstructed(attack_of(name), seen, seeds))
    for trial, seed in enumerate(seeds):
        alone = tensors_of(attack_of(name).reconstruct(seen[trial : trial + 1], [seed]))
        assert alone.keys() == together.keys()
        for what, value in alone.items():
            assert torch.allclose(value[0].double(), together[what][trial].double(), rtol=1e-8, atol=1e-8), what


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(
    "name",
    [
        "inverting_gradients",
        "gaussian_likelihood",
        "linear_layer",
        "prior_only",
        "absolute_matching",
        "see_through_gradients",
    ],
)
def test_an_attack_in_a_box_gives_its_answer_the_objective_that_the_referee_is_told(observed, name, setting):
    seen, seeds = observed(setting, "larger_batch(examples=2)")
    attack = attack_of(name)
    found = reconstructed(attack, seen, seeds)
    if found.objective is None:
        pytest.skip("an exact recovery has no objective")
    assert torch.allclose(attack.objective(seen, found.images, found.labels), found.objective, rtol=1e-8)


@pytest.mark.parametrize("name", [n for n in ATTACKS if attack_of(n).control])
def test_a_control_does_not_look_at_the_update(observed, name):
    seen, seeds = observed("mlp", labels="recovered")
    blind = replace(seen, updates={key: torch.full_like(u, float("nan")) for key, u in seen.updates.items()})
    found, blindly = attack_of(name).reconstruct(seen, seeds), attack_of(name).reconstruct(blind, seeds)
    assert torch.equal(found.images, blindly.images)
    assert torch.equal(found.labels, blindly.labels)
