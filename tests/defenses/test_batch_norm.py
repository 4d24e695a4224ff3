"""A client in train mode: its batch-norm layers do what torch's do, under every derivative that attacks take."""

import pytest
import torch
from torch import nn
from torch.func import grad, jvp, vmap

from attacks.engine.program import Program
from bench.models.networks import resnet
from defenses.batch_norm import batch_norms, batch_statistics, in_mode
from defenses.schedule import Schedule
from defenses.task import Batch, Classifier, Normalise, Task


@pytest.fixture
def model():
    """A small residual network in float64, whose running statistics are not those at the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(Normalise((0.5,), (0.25,)), resnet((1, 8, 8), 4, blocks=1, width=2)).double()
    network(draw(8, 1, 8, 8))
    return network.eval()


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def task_of(model, images):
    return Task(model, 4, (1, 8, 8), Schedule(images=images))


def params_of(model):
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("images", [1, 3])
def test_a_client_in_train_mode_sends_the_gradient_of_torch_s_own_train_mode(model, images):
    batch = Batch(draw(images, 1, 8, 8, seed=1), torch.arange(images))
    sent = task_of(in_mode(model, "train"), images).gradient(params_of(model), batch)
    in_eval = task_of(model, images).gradient(params_of(model), batch)
    model.train()
    loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    assert list(sent) == [name for name, _ in model.named_parameters()]
    for mine, torchs, other in zip(sent.values(), expected, in_eval.values(), strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(mine, other)


def test_in_eval_mode_and_without_batch_norm_the_model_itself_is_used(model):
    plain = Classifier(Normalise((0.5,), (0.25,)), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    assert in_mode(model, "eval") is model
    assert in_mode(plain, "train") is plain


def test_the_model_in_train_mode_has_no_buffers_and_leaves_the_other_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = in_mode(model, "train")
    assert batch_norms(changed).keys() == batch_norms(model).keys()
    assert not list(changed.network.buffers())
    changed(draw(2, 1, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_both_forms_of_the_derivative_by_images_agree_mapped_and_traced(model):
    task, params = task_of(in_mode(model, "train"), 2), params_of(model)
    images, labels = draw(3, 2, 1, 8, 8), torch.tensor([0, 3])
    target = {name: draw(3, *p.shape, seed=2) for name, p in params.items()}

    def distance(images, target):
        found = grad(task.loss)(params, images, labels)
        return torch.stack([(found[name] - target[name]).square().sum() for name in found]).sum()

    def forward_over_reverse(images, target):
        found = grad(task.loss)(params, images, labels)
        along = {name: 2 * (found[name] - target[name]) for name in found}
        return grad(lambda x: jvp(lambda p: task.loss(p, x, labels), (params,), (along,))[1])(images)

    alone = torch.stack([grad(distance)(x, {n: t[i] for n, t in target.items()}) for i, x in enumerate(images)])
    mapped = vmap(grad(distance))
    for found in (
        mapped(images, target),
        vmap(forward_over_reverse)(images, target),
        Program(mapped, (images, target), fixed=1)(images, target),
    ):
        torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-11)


def test_statistics_that_a_client_in_train_mode_sends_normalise_its_layers(model):
    task, images = task_of(in_mode(model, "train"), 3), draw(1, 3, 1, 8, 8)
    sent = batch_statistics(task, params_of(model), images)
    model.train()
    for layer in batch_norms(model).values():
        layer.momentum = 1.0  # so that the running statistics become those of the batch
    model(images[0])
    for name, layer in batch_norms(model).items():
        torch.testing.assert_close(sent[f"{name}.mean"][0], layer.running_mean)


def test_one_value_a_channel_is_refused_with_the_way_out():
    network = Classifier(Normalise((0.5,), (0.25,)), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"more than one value a channel, got a batch of shape \(1, 4\); give the"):
        in_mode(network.eval(), "train")(torch.rand(1, 1, 2, 2))
