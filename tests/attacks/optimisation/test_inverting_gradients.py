"""The paper's attack equals a plain loop, and its lanes do not touch each other."""

import pytest
import torch
from reference import invert, start_of

from attacks.engine.descent import Adam, descend
from attacks.optimisation.inverting_gradients import InvertingGradients
from bench.trial.identification import identify_in_pool
from bench.trial.metrics import quantise
from defenses.schedule import Schedule


def test_twenty_iterations_equal_a_plain_float64_loop_to_1e_8(case):
    seen = case(trials=2, dtype=torch.float64)
    attack = InvertingGradients(iterations=20, tv_weight=1e-2)
    found = attack.reconstruct(seen.observation, seeds=[11, 12])
    for lane, seed in enumerate((11, 12)):
        start = start_of(seed, (1, 3, 32, 32), torch.float64)
        update = {name: u[lane] for name, u in seen.observation.updates.items()}
        x, values = invert(seen.task, seen.params, update, seen.labels[lane], start, iterations=20, tv_weight=1e-2)
        assert float((found.images[lane] - seen.task.denormalise(x).clamp(0, 1)).abs().max()) < 1e-8
        for iteration, value in found.trace.items():
            if iteration < 20:
                assert float(value[lane]) == pytest.approx(values[iteration], abs=1e-10)


def test_every_reconstruction_is_nearest_to_its_own_real_image(case):
    seen = case(trials=4)
    found = InvertingGradients(iterations=100, tv_weight=1e-2).reconstruct(seen.observation, [0, 1, 2, 3])
    guess, truth = quantise(found.images[:, 0]), quantise(seen.images[:, 0])
    assert identify_in_pool(guess, truth, truth, torch.arange(4)).all()
    assert (found.objective < 0.5 * found.start).all()


def test_a_trial_attacked_alone_equals_the_same_trial_in_a_batch(case):
    """In float64, where the order of sums does not show; signs amplify what float32 rounds differently."""
    seen = case(trials=3, dtype=torch.float64)
    attack = InvertingGradients(iterations=10)
    together = attack.reconstruct(seen.observation, [5, 6, 7])
    for lane in range(3):
        alone = attack.reconstruct(seen.observation[lane : lane + 1], [5 + lane])
        assert torch.allclose(alone.images[0], together.images[lane], atol=1e-9)


def test_the_same_call_gives_the_same_bytes_and_one_step_agrees_across_chunks(case):
    seen = case(trials=4)
    step = InvertingGradients(iterations=1, signed=False)
    whole = step.reconstruct(seen.observation, [1, 2, 3, 4])
    assert torch.equal(whole.images, step.reconstruct(seen.observation, [1, 2, 3, 4]).images)
    halves = [
        step.reconstruct(seen.observation[s], seeds) for s, seeds in ((slice(0, 2), [1, 2]), (slice(2, 4), [3, 4]))
    ]
    parts = torch.cat([half.objective for half in halves])
    assert torch.allclose(parts, whole.objective, rtol=1e-5, atol=0)


def test_the_scale_of_the_update_does_not_matter(case):
    seen = case(trials=1, dtype=torch.float64).observation
    attack = InvertingGradients(iterations=5)
    scaled = {name: 1e-3 * u for name, u in seen.updates.items()}
    other = type(seen)(seen.task, seen.params, scaled, seen.labels, seen.threat)
    assert torch.allclose(attack.reconstruct(seen, [0]).images, attack.reconstruct(other, [0]).images)


def test_the_restart_with_the_lowest_objective_is_kept(case):
    seen = case(trials=2)
    attack = InvertingGradients(iterations=15, restarts=3)
    best = attack.reconstruct(seen.observation, [0, 1])
    problem = attack._problem(seen.observation)
    start, evidence = problem.start([0, 1], 3), problem.evidence(3)
    found = descend(problem.objective, start, evidence, attack._adam, signed=True, box=problem.box())
    assert torch.equal(best.objective, found.objective.view(2, 3).min(dim=1).values)
    images = seen.task.denormalise(found.variables["images"]).clamp(0, 1).view(2, 3, 1, 3, 32, 32)
    chosen = found.objective.view(2, 3).argmin(dim=1)
    assert torch.equal(best.images, images[torch.arange(2), chosen])


def test_an_undefined_restart_never_wins(case):
    seen = case(trials=1)
    attack = InvertingGradients(iterations=2, restarts=2)
    problem = attack._problem(seen.observation)
    start, evidence = problem.start([0], 2), problem.evidence(2)
    start["images"][0] = float("nan")
    found = descend(problem.objective, start, evidence, attack._adam, signed=True, box=problem.box())
    assert torch.isfinite(problem.best(found, evidence, 2).images).all()


def test_the_objective_at_the_truth_is_the_prior_alone(case):
    seen = case(trials=2, schedule=Schedule(images=2), dtype=torch.float64)
    attack = InvertingGradients(tv_weight=0.0)
    assert float(attack.objective(seen.observation, seen.images, seen.labels).abs().max()) < 1e-12


def test_pixels_stay_in_the_box(case):
    seen = case(trials=1)
    images = InvertingGradients(iterations=30, learning_rate=1.0).reconstruct(seen.observation, [0]).images
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_learning_rate_falls_at_the_stated_fractions():
    adam = Adam(iterations=80, learning_rate=1.0, milestones=(3 / 8, 5 / 8, 7 / 8))
    assert [adam.rate(i) for i in (0, 29, 30, 50, 70)] == pytest.approx([1, 1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"restarts": 0}, {"tv_weight": -1.0}, {"learning_rate": 0.0}])
def test_impossible_constants_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        InvertingGradients(**wrong)
