"""Analytic recovery: exact where the layer sees the image, honest elsewhere."""

import pytest
import torch
from torch import nn

from attacks.analytic.linear_layer import LinearLayer, inputs_behind
from attacks.attack import UnsupportedPair
from bench.trial.metrics import assign
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.schedule import Schedule
from defenses.task import Classifier, Normalise, Task


@pytest.mark.parametrize(("dataset", "trials"), [("cifar10-samples", 20), ("imagenet-samples", 2)])
def test_on_an_mlp_every_image_is_recovered_exactly(case, dataset, trials):
    seen = case("mlp", dataset, trials=trials)
    found = LinearLayer().reconstruct(seen.observation, list(range(trials)))
    assert found.recovered == "images"
    assert float((found.images - seen.images).abs().max()) < 1e-5


def test_in_float64_the_error_is_under_1e_12(case):
    seen = case("mlp", trials=3, dtype=torch.float64)
    found = LinearLayer().reconstruct(seen.observation, [0, 1, 2])
    assert float((found.images - seen.images).abs().max()) < 1e-12


def test_images_of_a_batch_are_found_where_one_is_alone_in_a_row(case):
    seen = case("mlp", trials=2, schedule=Schedule(images=4), dtype=torch.float64)
    found = LinearLayer().reconstruct(seen.observation, [0, 1])
    for guess, truth in zip(found.images, seen.images, strict=True):
        matched = guess[assign(guess, truth)]
        assert float((matched - truth).abs().flatten(1).amax(1).median()) < 1e-9


def test_rows_with_zero_bias_gradient_are_skipped():
    weight = torch.tensor([[2.0, 4.0], [7.0, 7.0], [1.0, 2.0]])
    bias = torch.tensor([2.0, 0.0, 1.0])
    assert inputs_behind(weight, bias, 1).tolist() == [[1.0, 2.0]]
    assert inputs_behind(weight, bias, 2)[0].tolist() == [1.0, 2.0]
    assert torch.isfinite(inputs_behind(weight, torch.zeros(3), 2)).all()
    assert torch.isfinite(inputs_behind(weight, torch.zeros(3), 1)).all()


def test_under_noise_the_estimate_is_the_weighted_one():
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(6, 4, generator=rng), torch.randn(6, generator=rng)
    expected = (bias[:, None] * weight).sum(0) / bias.square().sum()
    assert torch.allclose(inputs_behind(weight, bias, 1)[0], expected, atol=1e-6)


def test_weighting_the_rows_beats_the_largest_row_under_noise(case):
    seen = case("mlp", trials=4, defense=(GaussianNoise(std=1e-3),))
    found = LinearLayer().reconstruct(seen.observation, [0, 1, 2, 3])
    name = "network.1"
    weight, bias = (seen.observation.updates[f"{name}.{kind}"] for kind in ("weight", "bias"))
    row = bias.abs().argmax(1)
    single = weight[torch.arange(4), row] / bias[torch.arange(4), row][:, None]
    single = seen.task.denormalise(single.view_as(seen.images)).clamp(0, 1)
    assert (found.images - seen.images).square().mean() < (single - seen.images).square().mean()


def test_behind_convolutions_it_says_features_and_recovers_them(case):
    seen = case("lenet-zhu", trials=3)
    found = LinearLayer(iterations=300).reconstruct(seen.observation, [0, 1, 2])
    true = LinearLayer().features(seen.task, seen.params, seen.images.flatten(0, 1)).view(3, 1, -1)
    assert found.recovered == "features"
    assert float(((found.features - true).norm(dim=-1) / true.norm(dim=-1)).max()) < 1e-4
    grey = torch.full_like(seen.images, 0.5)
    assert (found.images - seen.images).square().mean() < (grey - seen.images).square().mean()


def test_several_local_steps_mix_the_inputs(case):
    seen = case("resnet20", trials=2, schedule=Schedule(images=1, epochs=3, learning_rate=1e-3))
    attack = LinearLayer(iterations=2)
    found = attack.reconstruct(seen.observation, [0, 1])
    true = attack.features(seen.task, seen.params, seen.images.flatten(0, 1)).view(2, 1, -1)
    error = (found.features - true).norm(dim=-1) / true.norm(dim=-1)
    assert torch.isfinite(found.images).all()
    assert (error > 1e-4).all()


def test_a_network_without_a_linear_layer_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    task = Task(Classifier(Normalise((0.5,), (0.5,)), network), 3, (1, 8, 8))
    with pytest.raises(UnsupportedPair, match="fully connected layer"):
        LinearLayer().check(task, "known")


def test_a_layer_that_sees_patches_is_refused():
    network = nn.Sequential(nn.Flatten(2), nn.Linear(16, 4), nn.Flatten(), nn.Linear(4, 3, bias=False))
    task = Task(Classifier(Normalise((0.5,), (0.5,)), network), 3, (1, 4, 4))
    with pytest.raises(UnsupportedPair, match="whole image"):
        LinearLayer().check(task, "known")


def test_the_objective_at_the_truth_does_not_depend_on_the_order_of_the_batch(case):
    seen = case("lenet-zhu", trials=1, schedule=Schedule(images=4))
    attack = LinearLayer(iterations=1, tv_weight=0.0)
    turned = torch.tensor([2, 0, 3, 1])
    ordered = attack.objective(seen.observation, seen.images, seen.labels)
    other = attack.objective(seen.observation, seen.images[:, turned], seen.labels[:, turned])
    assert torch.allclose(ordered, other)
