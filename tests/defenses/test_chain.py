"""Chains apply their parts in order and catch a part that breaks its contract."""

from dataclasses import dataclass

import pytest
import torch

from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain, DefenseFault
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.none import NoDefense
from defenses.schedule import Schedule


def whole_norm(update):
    return float(torch.cat([u.flatten() for u in update.values()]).norm())


def test_transforms_follow_the_share_in_order(make_task):
    task, params, batch = make_task()
    send = lambda *parts: Chain(parts).update(task, params, batch, torch.Generator().manual_seed(0))
    clipped_last = send(NoDefense(), GradientPruning(ratio=0.5), NormClipping(clip_norm=1e-3))
    assert whole_norm(clipped_last) == pytest.approx(1e-3)
    pruned_last = send(NoDefense(), NormClipping(clip_norm=1e-3), GradientPruning(ratio=0.5))
    assert whole_norm(pruned_last) < 1e-3


def test_schedules_compose():
    chain = Chain((LargerBatch(examples=4), LocalEpochs(epochs=2, batch_size=2)))
    assert chain.schedule(Schedule()) == Schedule(images=4, epochs=2, batch_size=2)


def test_noise_has_its_standard_deviation_and_the_generator_decides(make_task):
    task, params, batch = make_task()
    send = lambda part, seed: Chain((part,)).update(task, params, batch, torch.Generator().manual_seed(seed))
    clean = send(NoDefense(), 0)
    noisy = send(GaussianNoise(std=0.3), 0)
    noise = torch.cat([(noisy[n] - clean[n]).flatten() for n in clean])
    assert float(noise.std()) == pytest.approx(0.3, rel=0.1)
    assert torch.equal(noisy["network.0.bias"], send(GaussianNoise(std=0.3), 0)["network.0.bias"])
    assert not torch.equal(noisy["network.0.bias"], send(GaussianNoise(std=0.3), 1)["network.0.bias"])


def test_clipping_a_layer_leaves_small_layers_alone(make_task):
    task, params, batch = make_task()
    clean = Chain((NoDefense(),)).update(task, params, batch, torch.Generator())
    norms = {n: float(u.norm()) for n, u in clean.items()}
    clip = sorted(norms.values())[1]
    sent = Chain((NormClipping(clip_norm=clip, scope="layer"),)).update(task, params, batch, torch.Generator())
    for name, n in norms.items():
        assert float(sent[name].norm()) == pytest.approx(min(n, clip))


@pytest.mark.parametrize(
    "parts",
    [
        (GaussianNoise(std=0.1), DpSgd()),
        (NoDefense(), DpSgd()),
        (GradientPruning(ratio=0.5), LargerBatch(examples=2)),
    ],
)
def test_other_orders_are_refused(parts):
    with pytest.raises(ValueError, match="schedules, then at most one share, then transforms"):
        Chain(parts)


def broken(method):
    """A defense whose transform is the given function."""
    return dataclass(frozen=True)(type("Broken", (Defense,), {"transform": lambda self, task, u, rng: method(u)}))()


def write(update):
    next(iter(update.values())).mul_(2)
    return update


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda u: None, "returned NoneType"),
        (lambda u: dict(list(u.items())[1:]), "other parameter names"),
        (lambda u: {n: v[..., :1] for n, v in u.items()}, "the parameter is"),
        (lambda u: {n: v * float("nan") for n, v in u.items()}, "infinite or undefined"),
        (lambda u: {n: (v > 0) for n, v in u.items()}, "bool"),
        (write, "wrote into its argument"),
    ],
)
def test_a_part_that_breaks_its_contract_is_named(make_task, rng, method, message):
    task, params, batch = make_task()
    with pytest.raises(DefenseFault, match=f"Broken.*{message}"):
        Chain((broken(method),)).update(task, params, batch, rng)


def test_a_share_that_writes_into_the_images_is_caught(make_task, rng):
    def share(self, task, params, batch, rng):
        batch.images.zero_()
        return task.gradient(params, batch)

    part = dataclass(frozen=True)(type("Eraser", (Defense,), {"share": share}))()
    with pytest.raises(DefenseFault, match="'images'"):
        Chain((part,)).update(*make_task(), rng)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda task, params: task.model.train(),
        lambda task, params: task.loss(dict(task.model.named_parameters()), torch.rand(1, 1, 8, 8).double(),
                                       torch.tensor([0])).backward(),
        lambda task, params: [p.data.zero_() for p in task.model.parameters()],
    ],
)  # fmt: skip
def test_what_a_part_does_to_its_model_never_reaches_the_next_client(make_task, rng, spoil):
    def share(self, task, params, batch, rng):
        assert not task.model.training
        assert all(p.grad is None for p in task.model.parameters())
        assert any(p.count_nonzero() for p in task.model.parameters())
        spoil(task, params)
        return {name: p.clone() for name, p in params.items()}

    part = dataclass(frozen=True)(type("Spoiler", (Defense,), {"share": share}))()
    task, params, batch = make_task()
    for _ in range(2):
        Chain((part,)).update(task, params, batch, rng)
    assert not task.model.training
    assert all(p.grad is None for p in task.model.parameters())


def test_a_fault_leaves_the_weights_as_they_were(make_task, rng):
    def share(self, task, params, batch, rng):
        for p in params.values():
            p.sub_(1)
        return params

    part = dataclass(frozen=True)(type("Poison", (Defense,), {"share": share}))()
    task, params, batch = make_task()
    before = {name: p.clone() for name, p in params.items()}
    with pytest.raises(DefenseFault, match="wrote into its argument"):
        Chain((part,)).update(task, params, batch, rng)
    assert all(torch.equal(before[name], p) for name, p in params.items())


def test_a_library_that_draws_globally_couples_nothing(make_task):
    task, params, batch = make_task()
    part = broken(lambda u: {n: v + torch.rand(()) for n, v in u.items()})
    send = lambda: Chain((part,)).update(task, params, batch, torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    first = send()
    assert torch.equal(first["network.4.bias"], send()["network.4.bias"])
    assert torch.equal(before, torch.get_rng_state())
