"""DP-SGD is what Opacus would send: clipped per example, noised once, averaged."""

import pytest
import torch
import torchvision
from torch import nn
from torch.func import grad, vmap

from defenses.chain import Chain
from defenses.client import Batch, Classifier, Normalise, Task
from defenses.dp_sgd import DpSgd
from defenses.none import NoDefense
from defenses.schedule import Schedule


def norm(update):
    return torch.stack([u.square().sum() for u in update.values()]).sum().sqrt()


def difference(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def per_example(task, params, batch):
    """Clip-free gradients of every example, by vmap over torch.func.grad."""
    one = lambda p, x, y: task.loss(p, x[None], y[None])
    return vmap(grad(one), in_dims=(None, 0, 0))(params, batch.images, batch.labels)


def test_without_clipping_and_noise_it_is_the_mean_gradient(make_task, rng):
    task, params, batch = make_task()
    sent = DpSgd(clip_norm=1e12, noise_multiplier=0.0).share(task, params, batch, rng)
    assert difference(sent, task.gradient(params, batch)) < 1e-12


def test_every_example_is_clipped_before_the_mean(make_task, rng):
    task, params, batch = make_task()
    each = per_example(task, params, batch)
    norms = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()
    clip = float(norms.sort().values[1])  # between the examples, so that clipping after the mean would differ
    factors = (clip / (norms + 1e-6)).clamp(max=1)
    expected = {name: torch.einsum("n,n...->...", factors, g) / len(batch) for name, g in each.items()}
    sent = DpSgd(clip_norm=clip, noise_multiplier=0.0).share(task, params, batch, rng)
    assert difference(sent, expected) < 1e-12
    assert norm(sent) <= clip


@pytest.mark.parametrize(("clip", "multiplier", "images"), [(0.5, 2.0, 1), (3.0, 0.7, 4)])
def test_noise_has_the_promised_standard_deviation(clip, multiplier, images):
    """600,000 entries: the estimate's own deviation is .1%, five times under the tolerance."""
    model = Classifier(Normalise((0.5,), (0.2,)), nn.Sequential(nn.Flatten(), nn.Linear(200, 3000))).eval()
    task = Task(model, 3000, (1, 10, 20), Schedule(images=images))
    params = {name: p.detach() for name, p in model.named_parameters()}
    batch = Batch(torch.rand(images, 1, 10, 20), torch.arange(images))
    quiet = DpSgd(clip, 0.0).share(task, params, batch, torch.Generator())
    sent = DpSgd(clip, multiplier).share(task, params, batch, torch.Generator().manual_seed(0))
    noise = torch.cat([(sent[name] - quiet[name]).flatten() for name in sent])
    expected = multiplier * clip / images
    assert float(noise.std()) == pytest.approx(expected, rel=0.005)
    assert abs(float(noise.mean())) < 5 * expected / len(noise) ** 0.5


def test_noise_comes_from_the_given_generator_alone(make_task):
    task, params, batch = make_task()
    send = lambda seed: DpSgd(1.0, 1.0).share(task, params, batch, torch.Generator().manual_seed(seed))
    before = torch.get_rng_state()
    assert difference(send(3), send(3)) == 0
    assert difference(send(3), send(4)) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_stays_off_while_opacus_records(make_task, rng):
    task, params, batch = make_task()  # has dropout .5
    sent = DpSgd(1e12, 0.0).share(task, params, batch, rng)
    assert difference(sent, task.gradient(params, batch)) < 1e-12
    assert not any(module.training for module in task.model.modules())


def test_every_local_step_is_clipped(make_task, rng):
    schedule = Schedule(images=4, epochs=3, batch_size=2, learning_rate=0.5)
    task, params, batch = make_task(schedule)
    sent = DpSgd(clip_norm=1e-3, noise_multiplier=0.0).share(task, params, batch, rng)
    assert 0 < norm(sent) <= 0.5 * 1e-3 * 6 * (1 + 1e-9)


def test_batch_norm_is_replaced_by_opacus_own_fix():
    model = Classifier(Normalise((0.5,), (0.2,)), nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True)))
    fixed = DpSgd().prepare(model.eval())
    assert isinstance(fixed.network[1], nn.GroupNorm)
    assert not fixed.network[2].inplace
    assert isinstance(model.network[1], nn.BatchNorm2d)
    assert not fixed.training


def test_a_layer_that_cannot_be_fixed_is_named():
    layer = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    model = Classifier(Normalise((0.5,), (0.2,)), nn.Sequential(nn.Conv2d(1, 4, 3), layer))
    with pytest.raises(ValueError, match=r"network\.1.*InstanceNorm2d"):
        DpSgd().prepare(model)


def test_residual_sums_in_place_give_the_same_per_example_gradients(rng):
    """torchvision's ResNet breaks Opacus' hooks; the other mode is used and checked against vmap(grad)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet._resnet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], None, False)
        batch = Batch(torch.rand(2, 3, 32, 32), torch.tensor([1, 7]))
    defense = DpSgd(clip_norm=0.1, noise_multiplier=0.0)
    model = defense.prepare(Classifier(Normalise((0.5,) * 3, (0.2,) * 3), network).eval())
    task = Task(model, 1000, (3, 32, 32), Schedule(images=2))
    params = {name: p.detach() for name, p in model.named_parameters()}
    each = per_example(task, params, batch)
    norms = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()
    assert (norms > 0.1).all()
    expected = {n: torch.einsum("n,n...->...", 0.1 / (norms + 1e-6), g) / 2 for n, g in each.items()}
    assert difference(defense.share(task, params, batch, rng), expected) < 1e-6


@pytest.mark.parametrize("wrong", [{"clip_norm": 0.0}, {"noise_multiplier": -1.0}, {"clip_norm": float("inf")}])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DpSgd(**wrong)


def test_neutral_strengths_equal_no_defense_in_a_chain(make_task):
    task, params, batch = make_task(Schedule(images=3, epochs=2, learning_rate=0.1))
    send = lambda part: Chain((part,)).update(task, params, batch, torch.Generator().manual_seed(0))
    assert difference(send(DpSgd(1e12, 0.0)), send(NoDefense())) < 1e-12
