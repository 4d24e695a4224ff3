"""Objectives, schedules and knowledge in gradient matching."""

import math

import pytest
import torch

from attacks.engine.descent import Adam, descend
from attacks.matching.distances import cosine_distance, squared_distance
from attacks.matching.priors import total_variation
from attacks.matching.problem import MatchingProblem
from attacks.matching.simulation import simulated_update
from attacks.observation import Observation, gradient_scale
from attacks.optimisation.euclidean import Euclidean
from attacks.optimisation.euclidean_adam import EuclideanAdam
from attacks.optimisation.inverting_gradients import InvertingGradients
from attacks.threat import ThreatModel
from defenses.noise.norm_clipping import NormClipping
from defenses.schedule import Schedule
from defenses.task import Batch, local_training


def test_cosine_distance_of_known_angles():
    east, north = (
        {"a": torch.tensor([1.0, 0.0]), "b": torch.zeros(1)},
        {"a": torch.tensor([0.0, 2.0]), "b": torch.zeros(1)},
    )
    both = {"a": torch.tensor([3.0, 3.0]), "b": torch.zeros(1)}
    assert float(cosine_distance(east, east)) == pytest.approx(0, abs=1e-6)
    assert float(cosine_distance(east, north)) == pytest.approx(1)
    assert float(cosine_distance(east, both)) == pytest.approx(1 - math.sqrt(0.5), abs=1e-6)
    assert float(cosine_distance(east, {n: -v for n, v in east.items()})) == pytest.approx(2)


def test_the_cosine_is_over_all_parameters_at_once_not_a_mean_over_layers():
    predicted = {"large": torch.tensor([100.0]), "small": torch.tensor([1.0])}
    observed = {"large": torch.tensor([100.0]), "small": torch.tensor([-1.0])}
    assert float(cosine_distance(predicted, observed)) == pytest.approx(1 - 9999 / 10001, abs=1e-6)


def test_an_update_of_zeros_gives_a_finite_objective_and_gradient():
    zeros = {"a": torch.zeros(3)}
    x = torch.ones(3, requires_grad=True)
    value = cosine_distance({"a": x}, zeros)
    (slope,) = torch.autograd.grad(value, [x])
    assert value.item() == 1
    assert torch.isfinite(slope).all()


def test_squared_distance_is_the_sum_over_entries():
    assert float(squared_distance({"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([0.0, 4.0])})) == 5


def test_total_variation_of_known_images():
    ramp = torch.arange(4.0).expand(1, 1, 3, 4)  # one step to the right everywhere, none downwards
    assert float(total_variation(ramp)) == 1
    assert float(total_variation(torch.full((2, 3, 8, 8), 0.7))) == 0
    checker = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    assert float(total_variation(checker)) == 2


@pytest.mark.parametrize("schedule", [Schedule(images=2), Schedule(images=2, epochs=3, learning_rate=0.1)])
def test_the_simulated_update_of_the_truth_is_the_client_s(case, schedule):
    seen = case(trials=1, schedule=schedule, dtype=torch.float64)
    batch = Batch(seen.images[0], seen.labels[0])
    sent = local_training(seen.task, seen.params, batch, torch.Generator(), seen.task.gradient)
    simulated = simulated_update(seen.task, seen.params, *(batch.images, batch.labels))
    assert max(float((sent[n] - simulated[n]).abs().max()) for n in sent) < 1e-12


@pytest.mark.parametrize("attack", [InvertingGradients(tv_weight=0.0), Euclidean(), EuclideanAdam()])
def test_a_known_schedule_is_unrolled(case, attack):
    seen = case(trials=1, schedule=Schedule(images=2, epochs=4, learning_rate=0.5), dtype=torch.float64)
    assert float(attack.objective(seen.observation, seen.images, seen.labels)) < 1e-12


def test_with_several_local_batches_no_order_is_the_truth_s(case):
    schedule = Schedule(images=4, epochs=1, batch_size=2, learning_rate=0.1)
    seen = case(trials=1, schedule=schedule)
    attack = InvertingGradients(iterations=2)
    assert attack.objective(seen.observation, seen.images, seen.labels) is None
    found = attack.reconstruct(seen.observation, [0])
    assert sorted(found.labels.flatten().tolist()) == sorted(seen.labels.flatten().tolist())


def test_an_unknown_schedule_is_matched_as_one_gradient_of_the_same_norm(case):
    known = case(trials=2, schedule=Schedule(images=1, epochs=4, learning_rate=0.5), dtype=torch.float64)
    seen = known.observation
    one = type(seen.task)(seen.task.model, 10, (3, 32, 32), Schedule())
    blind = Observation(one, seen.params, seen.updates, seen.labels, ThreatModel(schedule_known=False), scale=None)
    scale = gradient_scale(blind)
    assert ((scale > 0.2) & (scale < 20)).all()  # learning rate x steps is 2
    problem = MatchingProblem(blind, squared_distance)
    assert float(problem.at(known.images, known.labels).max()) > 1e-9
    moved = Euclidean(iterations=2).reconstruct(blind, [0, 1])
    assert (moved.objective < moved.start).all()


def test_a_weight_difference_is_divided_by_learning_rate_times_steps(case):
    """Unscaled, the gradient of a tiny difference lies under L-BFGS' tolerance and nothing ever moves."""
    seen = case(trials=1, schedule=Schedule(images=1, epochs=2, learning_rate=1e-6), dtype=torch.float64)
    found = Euclidean(iterations=2).reconstruct(seen.observation, [0])
    assert float(found.objective) < 0.9 * float(found.start)


def test_clipping_the_whole_gradient_changes_nothing_for_the_cosine(case):
    plain = case(trials=1, dtype=torch.float64)
    clipped = case(trials=1, dtype=torch.float64, defense=(NormClipping(clip_norm=1e-3),))
    attack = InvertingGradients(iterations=5)
    found = [attack.reconstruct(c.observation, [3]).images for c in (plain, clipped)]
    assert torch.allclose(*found, atol=1e-9)


def test_joint_labels_are_optimised_from_a_random_start(case):
    seen = case(trials=4, threat=ThreatModel(labels="joint"))
    found = EuclideanAdam(iterations=60).reconstruct(seen.observation, [0, 1, 2, 3])
    assert found.labels.shape == (4, 1)
    assert (found.labels == seen.labels).sum() >= 3


def test_joint_descent_signs_images_only(case):
    seen = case(trials=1, threat=ThreatModel(labels="joint"), dtype=torch.float64)
    problem = MatchingProblem(seen.observation, cosine_distance, tv_weight=1e-4)
    before, evidence = problem.start([0], 1), problem.evidence(1)
    after = descend(problem.objective, before, evidence, Adam(1), signed=True, box=None).variables
    moved = (after["images"] - before["images"]).abs()
    assert torch.allclose(moved, torch.full_like(moved, 0.1), atol=1e-6)
    assert (after["logits"] != before["logits"]).all()
