"""The likeliest candidate: known rates, the defense's own prediction, and nothing but what the server has."""

from dataclasses import replace

import pytest
import torch
from scipy import integrate, stats
from torch import nn

from attacks.attack import UnsupportedPair
from attacks.matching.candidates import most_likely
from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.price.certificates import identification_bound
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain
from defenses.compression.gradient_pruning import GradientPruning
from defenses.noise.dp_sgd import DpSgd
from defenses.schedule import Schedule
from defenses.task import Batch, Classifier, Normalise, Task

THREAT = ThreatModel(labels="recovered", defense_known=True)
CANDIDATES = 20


def highest_is_its_own(candidates, distance):
    """P(Z_0 + d > Z_1, ..., Z_{n-1}) of standard normals: the rate of the best guess among orthogonal signals."""
    density = lambda z: stats.norm.pdf(z - distance) * stats.norm.cdf(z) ** (candidates - 1)
    return integrate.quad(density, -12, distance + 12, points=[0, distance])[0]


def orthogonal_task():
    """A linear model with zero weights: the gradients of images of one bright pixel each are orthogonal, of norm .71.

    The 20 candidates (n c h w) have the label 0.
    """
    model = Classifier(Normalise((0.0,), (1.0,)), nn.Sequential(nn.Flatten(), nn.Linear(CANDIDATES, 2, bias=False)))
    params = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    images = torch.eye(CANDIDATES).view(CANDIDATES, 1, 4, 5)
    return Task(model.eval(), 2, (1, 4, 5)), params, images


@pytest.mark.parametrize(("multiplier", "published"), [(0.5, 0.559), (1.0, 0.226), (2.0, 0.116)])
def test_among_orthogonal_gradients_the_best_guess_has_its_known_rate_below_the_bound(multiplier, published):
    """2,000 releases; the rate by integration has to lie in their 99.9% interval."""
    trials, clip = 2000, 0.5
    task, params, images = orthogonal_task()
    labels = torch.zeros(CANDIDATES, dtype=torch.long)
    quiet = Chain((DpSgd(clip, 0.0),))
    clean = [quiet.update(task, params, Batch(x[None], labels[:1]), torch.Generator()) for x in images]
    rng = torch.Generator().manual_seed(0)
    private = torch.randint(CANDIDATES, (trials,), generator=rng)
    sent = {name: torch.stack([clean[i][name] for i in private]) for name in params}
    noisy = {name: u + multiplier * clip * torch.randn(u.shape, generator=rng) for name, u in sent.items()}
    defense = Chain((DpSgd(clip, multiplier),)).simulation(task)
    seen = Observation(task, params, noisy, None, THREAT, defense=defense)
    found = most_likely(seen, images.expand(trials, *images.shape), labels.expand(trials, -1))
    expected = highest_is_its_own(CANDIDATES, 1 / multiplier)
    right = stats.binomtest(int((found == private).sum()), trials).proportion_ci(0.999, method="exact")
    assert right.low < expected < right.high
    assert expected == pytest.approx(published, abs=0.003)
    assert expected < identification_bound(CANDIDATES, multiplier)


def pool_of(own, trials, candidates=5):
    """The first images of a case as every trial's candidates, with their labels."""
    images, labels = own.images.flatten(0, 1)[:candidates], own.labels.flatten()[:candidates]
    return images.expand(trials, *images.shape), labels.expand(trials, -1)


CLIENTS = {
    "FedSGD, none": {},
    "FedSGD, dp_sgd": {"defense": (DpSgd(1.0, 1e-3),)},
    "FedAvg": {"defense": (LocalEpochs(3, learning_rate=0.05),)},
    "FedAvg, dp_sgd": {"defense": (LocalEpochs(3, learning_rate=0.05), DpSgd(1.0, 1e-3))},
    "nobody simulates it": {"defense": (DpSgd(1.0, 1e-3), GradientPruning(0.5))},
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_nearly_without_noise_the_private_image_is_always_found(case, client):
    own = case("lenet-zhu", trials=5, threat=THREAT, **client)
    found = most_likely(own.observation, *pool_of(own, 5))
    assert found.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("client", ["FedSGD, dp_sgd", "FedAvg, dp_sgd", "nobody simulates it"])
def test_the_other_images_of_a_batch_are_part_of_every_prediction(case, client):
    """Three images a client; the first of each is one of five candidates, the other two are known."""
    own = case("lenet-zhu", trials=5, schedule=Schedule(images=3), threat=THREAT, **CLIENTS[client])
    images, labels = own.images[:, 0], own.labels[:, 0]
    candidates, named = images.expand(5, *images.shape), labels.expand(5, -1)
    others = Batch(own.images[:, 1:], own.labels[:, 1:])
    assert most_likely(own.observation, candidates, named, others).tolist() == [0, 1, 2, 3, 4]
    swapped = Batch(others.images.roll(1, 0), others.labels.roll(1, 0))
    assert most_likely(own.observation, candidates, named, swapped).tolist() != [0, 1, 2, 3, 4]


def test_the_clipping_is_part_of_every_prediction(case):
    """All releases are far shorter than any gradient: without the clipping the shortest gradient is nearest to all."""
    own = case("lenet-zhu", trials=4, defense=(DpSgd(1e-3, 0.0),), threat=THREAT)
    unclipped = replace(own.observation, defense=Chain((DpSgd(1e12, 0.0),)).simulation(own.task))
    candidates, labels = pool_of(own, 4, 4)
    assert most_likely(own.observation, candidates, labels).tolist() == [0, 1, 2, 3]
    assert most_likely(unclipped, candidates, labels).unique().numel() == 1


def test_equal_candidates_are_answered_with_the_first(case):
    own = case("lenet-zhu", trials=1, defense=(DpSgd(1.0, 0.1),), threat=THREAT)
    other = torch.zeros_like(own.images)
    for order, first in (([0, 1, 1, 0], 1), ([1, 1, 1, 1], 0), ([0, 0, 0, 1], 3)):
        candidates = torch.cat([own.images if mine else other for mine in order], dim=1)
        labels = own.labels.expand(1, 4)
        assert most_likely(own.observation, candidates, labels).tolist() == [first]


def test_the_labels_of_the_candidates_count(case):
    own = case("lenet-zhu", trials=1, threat=THREAT)
    candidates = own.images.expand(1, 10, *own.task.input_shape)
    assert most_likely(own.observation, candidates, torch.arange(10)[None]).tolist() == own.labels[0].tolist()


def test_the_same_question_has_the_same_answer_and_nothing_is_drawn(case):
    own = case("lenet-zhu", trials=5, defense=(DpSgd(1.0, 2.0),), threat=THREAT)
    before = torch.get_rng_state()
    answers = [most_likely(own.observation, *pool_of(own, 5)).tolist() for _ in range(2)]
    alone = [most_likely(own.observation[i : i + 1], *pool_of(own, 1)).item() for i in range(5)]
    assert answers == [alone, alone]
    assert torch.equal(before, torch.get_rng_state())


def test_what_does_not_fit_is_refused_with_the_next_step(case):
    own = case("lenet-zhu", trials=2, threat=THREAT)
    candidates, labels = pool_of(own, 2, 2)
    for wrong, message in (
        ((candidates[:, :1], labels[:, :1]), "at least 2 images a trial, got 1; add rivals"),
        ((candidates, labels[:, :1]), r"labels must be \(t n\) = \(2, 2\).*got \(2, 1\)"),
        ((candidates[:1], labels), r"shape \(t n c h w\) = \(2, 'n', 3, 32, 32\), got \(1, 2"),
        (((candidates * 255).to(torch.uint8), labels), r"floats in \[0, 1\].*uint8"),
        ((candidates, labels, Batch(candidates, labels)), r"others must be images \(2, 0, 3, 32, 32\)"),
    ):
        with pytest.raises(ValueError, match=message):
            most_likely(own.observation, *wrong)
    several = case("lenet-zhu", trials=2, schedule=Schedule(images=3), threat=THREAT)
    with pytest.raises(UnsupportedPair, match="update of 3 images holds 2 beside the private one; hand them over as"):
        most_likely(several.observation, candidates, labels)
    weights = {name: p.expand(2, *p.shape) for name, p in own.params.items()}
    with pytest.raises(UnsupportedPair, match="weights of their own; observe those of each model apart"):
        most_likely(replace(own.observation, params=weights, own_weights=True), candidates, labels)
