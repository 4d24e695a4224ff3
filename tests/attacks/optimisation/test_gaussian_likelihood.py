"""The negative log posterior as an objective."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal
from torch.func import grad, vmap

from attacks.engine.descent import Adam, descend
from attacks.engine.execution import Execution, executing
from attacks.matching.distances import gaussian_likelihood
from attacks.matching.problem import MatchingProblem
from attacks.observation import Observation, joined
from attacks.optimisation.gaussian_likelihood import GaussianLikelihood
from attacks.threat import ThreatModel
from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.compression.gradient_pruning import GradientPruning
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.surrogate import Simulation
from defenses.task import Batch, Classifier, Normalise, Task

KNOWN = ThreatModel(defense_known=True)
NOISY = (NormClipping(1.0), GaussianNoise(0.01))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def updates(seed):
    return {"a": draw(4, 5, seed=seed), "b": draw(7, seed=seed + 1)}


def test_the_mismatch_is_the_negative_log_density_of_gaussian_noise_per_coordinate_up_to_a_constant():
    observed, variance = updates(0), 0.3

    def density(predicted):
        return sum(Normal(predicted[n], variance**0.5).log_prob(observed[n]).sum() for n in observed) / 27

    distance = gaussian_likelihood(variance)
    first, second = updates(10), updates(20)
    assert float(distance(first, observed) - distance(second, observed)) == pytest.approx(
        float(density(second) - density(first)), rel=1e-12
    )
    assert distance(observed, observed) == 0


def test_an_unknown_variance_takes_its_most_likely_value():
    observed, predicted = updates(0), updates(10)

    def negative_log_density(std):
        return -sum(Normal(predicted[n], std).log_prob(observed[n]).sum() for n in observed) / 27

    found = gaussian_likelihood(0.0)(predicted, observed)
    constant = 0.5 + 0.5 * math.log(2 * math.pi)
    least = min(float(negative_log_density(std)) for std in torch.linspace(0.5, 4, 351, dtype=torch.float64))
    assert float(found) + constant == pytest.approx(least, abs=1e-4)


def test_pruned_coordinates_tell_nothing_of_an_unknown_variance():
    """Of both, zeros at the same places: the slope is that of the coordinates that were sent, each a 27th."""
    mask = {name: (u > 0.5).to(u.dtype) for name, u in updates(0).items()}
    observed, predicted = ({n: mask[n] * u for n, u in updates(seed).items()} for seed in (0, 10))
    sent = sum(int(m.sum()) for m in mask.values())
    square = sum((predicted[n] - observed[n]).square().sum() for n in mask)
    slope = grad(lambda p: gaussian_likelihood(0.0)(p, observed))(predicted)
    for name, g in slope.items():
        assert torch.allclose(g, sent / 27 * (predicted[name] - observed[name]) / square)
    # Who does not know of the pruning predicts all of them, and all of them count.
    dense = updates(10)
    whole = sum((dense[n] - observed[n]).square().sum() for n in dense)
    slope = grad(lambda p: gaussian_likelihood(0.0)(p, observed))(dense)
    assert torch.allclose(slope["a"], (dense["a"] - observed["a"]) / whole)


def test_the_objective_is_the_log_posterior_of_gaussian_noise_and_a_laplace_prior(case, monkeypatch):
    seen = case(dataset="digits", trials=2, defense=(GaussianNoise(0.01),), threat=KNOWN, dtype=torch.float64)
    coordinates = sum(p.numel() for p in seen.params.values())

    monkeypatch.setattr("attacks.matching.priors.SMALLEST_STEP", 0.0)

    def log_posterior(images, labels, observed):
        sent = seen.task.gradient(seen.params, Batch(images, labels))
        x = seen.task.normalise(images)
        prior = Laplace(torch.zeros((), dtype=torch.float64), 1.0)  # of every difference, as many as there are pixels
        steps = [x.diff(dim=-1), x.diff(dim=-2)]
        weighed = sum((prior.log_prob(d) - prior.log_prob(d * 0)).mean() * x.numel() for d in steps)
        return sum(Normal(sent[n], 0.01).log_prob(observed[n]).sum() for n in sent) + weighed

    attack, observed = GaussianLikelihood(), seen.observation.updates
    grey = torch.full_like(seen.images, 0.5)
    found = attack.objective(seen.observation, seen.images, seen.labels)
    found = found - attack.objective(seen.observation, grey, seen.labels)
    for i in range(2):
        own = {n: u[i] for n, u in observed.items()}
        expected = log_posterior(grey[i], seen.labels[i], own) - log_posterior(seen.images[i], seen.labels[i], own)
        assert float(found[i]) == pytest.approx(float(expected) / coordinates, rel=1e-9)


def test_the_objective_at_the_truth_is_about_a_half_whatever_the_noise(case):
    for std in (1e-3, 1.0):
        seen = case(trials=2, defense=(GaussianNoise(std),), threat=KNOWN)
        value = GaussianLikelihood(inverse_scale=0.0).objective(seen.observation, seen.images, seen.labels)
        assert torch.allclose(value, torch.full((2,), 0.5), atol=5 / (2 * 15826) ** 0.5)


@pytest.mark.parametrize("variance", [0.5, 0.0], ids=["known", "profiled"])
def test_the_gradient_at_the_truth_vanishes_without_noise(variance):
    observed = updates(0)
    slope = grad(gaussian_likelihood(variance))({n: u.clone() for n, u in observed.items()}, observed)
    assert max(float(s.abs().max()) for s in slope.values()) == 0
    off = grad(gaussian_likelihood(variance))(updates(10), observed)
    assert min(float(s.abs().min()) for s in off.values()) > 0


def test_the_gradient_at_the_truth_vanishes_in_expectation():
    """Its mean over n draws has 1 / n of the variance of one draw."""
    sent, draws, std = updates(0), 400, 0.1
    noisy = {n: u + std * draw(draws, *u.shape, seed=i + 50) for i, (n, u) in enumerate(sent.items())}
    slopes = vmap(grad(gaussian_likelihood(std**2)), in_dims=(None, 0))(sent, noisy)
    one = 1 / (std * 27)
    for slope in slopes.values():
        assert float(slope.std(dim=0).mean()) == pytest.approx(one, rel=0.1)
        assert float(slope.mean(dim=0).abs().max()) < 5 * one / draws**0.5


class Sum(nn.Module):
    """Logits (x . w, 0): the gradient by w is the image, times a factor that its label sets."""

    def __init__(self, pixels):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(pixels, dtype=torch.float64))

    def forward(self, x):
        total = x.flatten(1) @ self.weight
        return torch.stack([total, 0 * total], dim=1)


def test_the_most_probable_pair_of_pixels_of_a_linear_model_is_known(monkeypatch):
    """Two pixels observed through -x / 2 + noise: the Laplace prior draws the two together by 4 s^2 k b n / m each.

    With n = 2 pixels and m = 1 difference: d/dx of (x - y)^2 / 8 s^2 is k n, so that x moves by 4 s^2 k n.
    """
    monkeypatch.setattr("attacks.matching.priors.SMALLEST_STEP", 0.0)
    model = Classifier(Normalise((0.0,), (1.0,)), Sum(2)).double()
    task = Task(model, 2, (1, 1, 2))
    params = {name: p.detach() for name, p in model.named_parameters()}
    std, y = 0.1, torch.tensor([0.2, 0.9], dtype=torch.float64)
    noise = Simulation(None, lambda update, observed: update, None, std)
    labels = torch.zeros(1, 1, dtype=torch.long)
    seen = Observation(task, params, {"network.weight": -y[None] / 2}, labels, KNOWN, defense=noise)
    attack = GaussianLikelihood(inverse_scale=1.5)
    problem = attack._problem(seen)
    found = descend(
        problem.objective,
        problem.start([0], 1),
        problem.evidence(1),
        Adam(300, 0.1, milestones=(0.3, 0.6)),
        signed=False,
        box=None,
    )
    shift = 4 * std**2 * 1.5 * 2
    expected = torch.tensor([0.2 + shift, 0.9 - shift], dtype=torch.float64)
    assert torch.allclose(found.variables["images"].flatten(), expected, atol=1e-3)


CHAINS = {
    "noise": NOISY,
    "dp_sgd": (LargerBatch(2), DpSgd(0.1, 0.01)),
    "dp_sgd, local steps": (LargerBatch(2), LocalEpochs(2, learning_rate=0.1), DpSgd(0.1, 0.01)),
    "pruning and clipping": (GradientPruning(0.9), NormClipping(0.1)),
    "pruning": (GradientPruning(0.9),),
}


@pytest.mark.parametrize("defense", CHAINS.values(), ids=CHAINS)
def test_all_forms_of_the_gradient_agree(case, defense):
    seen = case(dataset="digits", trials=2, defense=defense, threat=KNOWN, dtype=torch.float64).observation
    problem = GaussianLikelihood()._problem(seen)
    start, evidence = problem.start([1, 2], 1), problem.evidence(1)
    forms = {name: vmap(form)(start, evidence) for name, form in problem.gradients.items()}
    plain, value = forms.pop("double_backward")
    assert bool(forms) != (defense == CHAINS["dp_sgd"])
    for gradient, own in forms.values():
        assert torch.allclose(own, value, rtol=1e-9)
        assert torch.allclose(gradient["images"], plain["images"], rtol=1e-6, atol=1e-12)


def test_the_noise_of_local_steps_is_told_in_the_scale_of_a_gradient(case):
    """The released update is divided by learning rate x steps before it is compared; so is the noise."""
    defense = (LargerBatch(2), LocalEpochs(2, learning_rate=0.1), DpSgd(1.0, 0.05))
    seen = case(dataset="digits", trials=2, defense=defense, threat=KNOWN)
    value = GaussianLikelihood(inverse_scale=0.0).objective(seen.observation, seen.images, seen.labels)
    assert torch.allclose(value, torch.full((2,), 0.5), atol=0.05)


@pytest.mark.parametrize("labels", ["known", "joint"])
def test_chunks_restarts_and_weights_of_their_own_change_nothing(case, labels):
    threat = replace(KNOWN, labels=labels)
    seen = case(dataset="digits", trials=2, defense=(NormClipping(1.0), GaussianNoise(0.1)), threat=threat)
    moved = {n: p * 1.01 for n, p in seen.params.items()}
    parts = [seen.observation, replace(seen.observation, params=moved)]
    attack = GaussianLikelihood(iterations=3, restarts=2)
    with executing(Execution(lanes=3)):
        whole = attack.reconstruct(joined(parts), [0, 1, 2, 3])
    alone = [attack.reconstruct(part, [2 * i, 2 * i + 1]) for i, part in enumerate(parts)]
    expected = torch.cat([found.objective for found in alone])
    assert torch.allclose(whole.objective, expected, rtol=1e-4)
    assert torch.allclose(whole.start, torch.cat([found.start for found in alone]), rtol=1e-5)


def test_without_the_prior_the_problem_weighs_none(case):
    problem = GaussianLikelihood(inverse_scale=0.0)._problem(case(defense=NOISY, threat=KNOWN).observation)
    assert isinstance(problem, MatchingProblem)
    assert problem.tv_weight == 0


@pytest.mark.parametrize(
    "arguments",
    [{"inverse_scale": -1.0}, {"inverse_scale": float("inf")}, {"restarts": 0}, {"iterations": 0}, {"orders": 0}],
)
def test_a_parameter_out_of_its_range_is_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        GaussianLikelihood(**arguments)
