"""DP-SGD is what Opacus would send: clipped per example, noised once, averaged."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample.utils import wrap_model
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F

from defenses.chain import Chain
from defenses.noise.dp_sgd import DpSgd
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Batch, Classifier, Normalise, Task


def norm(update):
    return torch.stack([u.square().sum() for u in update.values()]).sum().sqrt()


def difference(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def per_example(task, params, batch):
    """Clip-free gradients of every example, by vmap over torch.func.grad."""
    one = lambda p, x, y: task.loss(p, x[None], y[None])
    return vmap(grad(one), in_dims=(None, 0, 0))(params, batch.images, batch.labels)


@pytest.fixture
def normed():
    """A float64 task of convolution, GroupNorm and linear layer, with a batch of five; its parameters."""
    return normed_task()


def normed_task(images=5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)]
        batch = Batch(torch.rand(images, 1, 6, 6, dtype=torch.float64), torch.arange(images) % 3)
    model = Classifier(Normalise((0.5,), (0.25,)), nn.Sequential(*layers)).eval().double()
    task = Task(model, 3, (1, 6, 6), Schedule(images=images))
    return task, {name: p.detach() for name, p in model.named_parameters()}, batch


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_one_by_one_by_opacus_and_by_vmap_every_example_has_the_same_gradient(normed):
    """Convolution, norm and linear layer: our client on batches of one, Opacus' grad_sample, and vmap(grad)."""
    task, params, batch = normed
    alone = [one_image(task, params, batch[i : i + 1], DpSgd(1e12, 0.0)) for i in range(len(batch))]
    wrapped = wrap_model(normed_task()[0].model.train(), grad_sample_mode="hooks", loss_reduction="sum")
    F.cross_entropy(wrapped(batch.images), batch.labels, reduction="sum").backward()
    recorded = {name.removeprefix("_module."): p.grad_sample for name, p in wrapped.named_parameters()}
    mapped = per_example(task, params, batch)
    for name in params:
        assert torch.allclose(torch.stack([a[name] for a in alone]), mapped[name], rtol=1e-10, atol=1e-13), name
        assert torch.allclose(recorded[name], mapped[name], rtol=1e-10, atol=1e-13), name


def one_image(task, params, batch, defense):
    """What the client sends of a batch of one."""
    task = Task(task.model, task.classes, task.input_shape, Schedule(images=1))
    return defense.share(task, params, batch, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("clip", [1e-4, 0.3, 2.0])
def test_no_example_has_a_longer_gradient_than_the_clip_norm_and_short_ones_are_left(normed, clip):
    task, params, batch = normed
    whole = per_example(task, params, batch)
    for i in range(len(batch)):
        own = norm({name: g[i] for name, g in whole.items()})
        sent = norm(one_image(task, params, batch[i : i + 1], DpSgd(clip, 0.0)))
        assert sent <= clip
        # Opacus adds 1e-6 to every norm that it divides by.
        assert float(sent) == pytest.approx(min(float(own), clip), rel=1e-5)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(2, 5),
    left_out=st.integers(0, 4),
    clip=st.floats(1e-3, 10),
    brightness=st.floats(0, 100),
)
def test_one_example_more_moves_the_clipped_sum_by_at_most_the_clip_norm(seed, images, left_out, clip, brightness):
    """Sensitivity, whatever the example: also one far outside of the unit range."""
    task, params, batch = normed_task(images)
    rng, i = torch.Generator().manual_seed(seed), left_out % images
    pixels = torch.rand(batch.images.shape, generator=rng, dtype=torch.float64)
    pixels[i] *= brightness
    batch = Batch(pixels, torch.randint(0, 3, (images,), generator=rng))
    rest = [k for k in range(images) if k != i]

    def clipped_sum(part):
        of = Task(task.model, 3, task.input_shape, Schedule(images=len(part)))
        return {n: len(part) * u for n, u in DpSgd(clip, 0.0).share(of, params, part, rng).items()}

    with_it, without = clipped_sum(batch), clipped_sum(batch[torch.tensor(rest)])
    assert norm({name: with_it[name] - without[name] for name in params}) <= clip * (1 + 1e-9)


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


@pytest.mark.parametrize("batch_size", [None, 2])
def test_neutral_strengths_equal_no_defense_in_a_chain(make_task, batch_size):
    """With local batches of two the last of three images is a batch by itself, and its gradient a mean over one."""
    task, params, batch = make_task(Schedule(images=3, epochs=2, batch_size=batch_size, learning_rate=0.1))
    send = lambda part: Chain((part,)).update(task, params, batch, torch.Generator().manual_seed(0))
    assert difference(send(DpSgd(1e12, 0.0)), send(NoDefense())) < 1e-12
