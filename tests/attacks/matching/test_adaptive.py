"""Attacks that know the defense: what they compare, how they weigh the prior, and what it gains them."""

import math
from dataclasses import replace

import pytest
import torch
from torch.func import vmap

from attacks.matching.distances import (
    FAINTEST_SIGNAL,
    NOISE_PRIOR,
    adapted,
    cosine_distance,
    gaussian_likelihood,
    noise_prior_weight,
    squared_distance,
)
from attacks.matching.problem import MatchingProblem
from attacks.optimisation.euclidean_adam import EuclideanAdam
from attacks.optimisation.inverting_gradients import InvertingGradients
from attacks.threat import ThreatModel
from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.compression.gradient_pruning import GradientPruning
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.surrogate import Simulation

KNOWN = ThreatModel(defense_known=True)
DEFENSES = {
    "pruning": (GradientPruning(0.9),),
    "pruning the model": (GradientPruning(0.99, scope="model"),),
    "clipping by layer": (NormClipping(0.1, scope="layer"),),
    "pruning and clipping": (GradientPruning(0.9), NormClipping(0.1)),
    "pruning the model and clipping by layer": (
        GradientPruning(0.99, scope="model"),
        NormClipping(0.1, scope="layer"),
    ),
    "dp_sgd": (LargerBatch(2), DpSgd(0.1, 0.0)),
    "dp_sgd, one image": (DpSgd(0.1, 0.0),),
    "dp_sgd, local steps": (LargerBatch(2), LocalEpochs(2, learning_rate=0.1), DpSgd(0.1, 0.0)),
    "pruning after local steps": (LocalEpochs(2, learning_rate=0.1), GradientPruning(0.9)),
}


@pytest.mark.parametrize("attack", [InvertingGradients(tv_weight=0.0), EuclideanAdam()], ids=["cosine", "euclidean"])
@pytest.mark.parametrize("defense", DEFENSES.values(), ids=DEFENSES)
def test_the_truth_explains_a_release_without_noise_when_the_defense_is_known(case, defense, attack):
    seen = case(trials=2, defense=defense, threat=KNOWN, dtype=torch.float64)
    blind = case(trials=2, defense=defense, dtype=torch.float64)
    # Opacus adds 1e-6 to every norm that it divides by.
    assert attack.objective(seen.observation, seen.images, seen.labels).max() < 1e-9
    plain = attack.objective(blind.observation, blind.images, blind.labels)
    only_rescaled = isinstance(attack, InvertingGradients) and defense == DEFENSES["dp_sgd, one image"]
    assert (plain.max() < 1e-9) if only_rescaled else (plain.min() > 1e-6)


FORMS = {**DEFENSES, "noise": (NormClipping(1.0), GaussianNoise(0.01))}


@pytest.mark.parametrize("defense", FORMS.values(), ids=FORMS)
def test_all_forms_of_the_gradient_agree_under_a_known_defense(case, defense):
    seen = case(trials=2, defense=defense, threat=KNOWN, dtype=torch.float64).observation
    problem = MatchingProblem(seen, cosine_distance, 1e-2)
    start, evidence = problem.start([1, 2], 1), problem.evidence(1)
    start = {name: v.double() for name, v in start.items()}
    forms = {name: vmap(form)(start, evidence) for name, form in problem.gradients.items()}
    plain, value = forms.pop("double_backward")
    by_example = seen.defense.gradient is not None and seen.task.schedule.sends_gradient
    assert len(forms) == (0 if by_example else 1)
    for gradient, own in forms.values():
        assert torch.allclose(own, value, rtol=1e-12)
        assert torch.allclose(gradient["images"], plain["images"], rtol=1e-9, atol=1e-12)


def test_a_defense_that_is_not_known_changes_nothing(case):
    blind = case(defense=(GradientPruning(0.9),)).observation
    assert blind.defense is None
    problem = MatchingProblem(blind, squared_distance)
    variables, evidence = problem.start([1, 2, 3], 1), problem.evidence(1)
    observed = {name: u[0] for name, u in blind.updates.items()}
    images = blind.task.denormalise(variables["images"][0])
    simulated = torch.func.grad(blind.task.loss)(blind.params, images, evidence["labels"][0])
    assert float(vmap(problem.objective)(variables, evidence)[0]) == pytest.approx(
        float(squared_distance(simulated, observed)), rel=1e-4
    )


def noisy(std):
    return Simulation(None, lambda update, observed: update, None, std)


def test_the_penalty_counts_as_much_as_the_distance_that_it_completes():
    """Of updates of norm 1 the squared distance is twice 1 - cosine; of others it grows with the norm's square."""
    east, north = {"a": torch.tensor([2.0, 0.0])}, {"a": torch.tensor([0.0, 2.0])}
    unit_square = torch.tensor(2.0)
    for distance in (cosine_distance, squared_distance, gaussian_likelihood(3.0), lambda p, o: squared_distance(p, o)):
        matched = distance(east, east)
        penalised = adapted(distance).penalised(matched, unit_square, east)
        assert float(penalised) == pytest.approx(float(distance(east, north)))


def test_a_penalty_joins_the_residual_whose_variance_is_profiled_out():
    predicted, observed, unknown = (
        {"a": torch.tensor([2.0, 1.0])},
        {"a": torch.tensor([1.0, 2.0])},
        gaussian_likelihood(0.0),
    )
    penalised = unknown.penalised(unknown(predicted, observed), torch.tensor(2.0), observed)
    assert float(penalised) == pytest.approx(0.5 * math.log((2 + 2 * 5) / 2))


def test_the_prior_s_weight_of_known_updates():
    """|o|^2 = 25 of 2 coordinates with noise of variance 4: 17 of it is signal."""
    observed = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    weight = lambda distance, std, scale=1.0: float(noise_prior_weight(distance, noisy(std), observed, scale, 100))
    assert weight(cosine_distance, 2.0) == pytest.approx(NOISE_PRIOR * 100 * 4 / (25 * (17 / 25) ** 0.5))
    assert weight(cosine_distance, 6.0, scale=3.0) == weight(cosine_distance, 2.0)
    drowned = NOISE_PRIOR * 100 * 100 / (25 * FAINTEST_SIGNAL**0.5)
    assert weight(cosine_distance, 10.0) == pytest.approx(drowned)
    assert weight(cosine_distance, 0.0) == 0
    assert weight(squared_distance, 2.0) == pytest.approx(NOISE_PRIOR * 2 * 100 * 4)
    assert weight(lambda p, o: p["a"].sum(), 2.0) == 0
    assert weight(gaussian_likelihood(4.0), 2.0) == 0, "its prior is weighed already"


def test_noise_raises_the_prior_of_each_lane_by_its_own_update(case):
    defense = (NormClipping(1.0), GaussianNoise(0.01))
    known = case(defense=defense, threat=KNOWN).observation
    blind = case(defense=defense).observation
    problems = [MatchingProblem(seen, cosine_distance, 1e-2) for seen in (known, blind)]
    start, evidence = problems[0].start([1, 2, 3], 1), problems[0].evidence(1)
    higher, lower = (vmap(problem.objective)(start, evidence) for problem in problems)
    variation = MatchingProblem(blind, None, 1.0)
    prior = vmap(variation.objective)({"images": start["images"]}, {"labels": evidence["labels"]})
    extra = [
        float(noise_prior_weight(cosine_distance, known.defense, {n: u[i] for n, u in known.updates.items()}, 1, 3072))
        for i in range(3)
    ]
    assert torch.allclose(higher - lower, torch.tensor(extra) * prior, rtol=1e-3)
    assert len(set(extra)) == 3


@pytest.mark.parametrize("distance", [cosine_distance, squared_distance, gaussian_likelihood(0.0)])
def test_an_update_of_zeros_gives_a_finite_objective_and_gradient(case, distance):
    seen = case(trials=1, defense=(GradientPruning(0.9),), threat=KNOWN).observation
    seen = replace(seen, updates={name: torch.zeros_like(u) for name, u in seen.updates.items()})
    problem = MatchingProblem(seen, distance, 1e-2)
    slope, value = vmap(problem.gradients["double_backward"])(problem.start([1], 1), problem.evidence(1))
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope["images"]).all()


@pytest.mark.parametrize(
    ("defense", "gain"), [((GradientPruning(0.99),), 2.0), ((NormClipping(1.0), GaussianNoise(0.01)), 2.0)]
)
def test_knowing_the_defense_pays(case, defense, gain):
    found = {}
    for threat in (ThreatModel(), KNOWN):
        seen = case(trials=3, defense=defense, threat=threat)
        attack = InvertingGradients(iterations=250, tv_weight=1e-2)
        images = attack.reconstruct(seen.observation, [1, 2, 3]).images
        found[threat] = float((-10 * (images - seen.images).square().mean((1, 2, 3, 4)).log10()).mean())
    assert found[KNOWN] > found[ThreatModel()] + gain
