"""The batched L-BFGS walks like torch's, lane by lane."""

import torch

from attacks.euclidean import Euclidean
from attacks.lbfgs import LBFGS, _Memory, minimise
from attacks.matching import MatchingProblem, squared_distance


def test_every_lane_follows_torch_for_forty_closures(case):
    seen = case(trials=3, dtype=torch.float64)
    problem = MatchingProblem(seen.observation, squared_distance)
    start, evidence = problem.start([0, 1, 2], 1), problem.evidence(1)
    found = minimise(problem.objective, start, evidence, LBFGS(outer_steps=2))
    for lane in range(3):
        own = {name: value[lane] for name, value in evidence.items()}
        x = start["images"][lane].clone().requires_grad_()
        optimiser = torch.optim.LBFGS([x])
        values = []

        def closure(x=x, own=own, optimiser=optimiser, values=values):
            optimiser.zero_grad()
            value = problem.objective({"images": x}, own)
            value.backward()
            values.append(value.item())
            return value

        for _ in range(2):
            optimiser.step(closure)
        assert len(values) == 40
        for tick in (1, 2, 4, 8, 16, 32):
            assert abs(float(found.trace[tick][lane]) / values[tick] - 1) < 1e-6


def quadratic(variables, evidence):
    return ((variables["x"] - evidence["target"]) ** 2 * evidence["curvature"]).sum()


def test_lanes_finish_alone_and_at_the_minimum():
    evidence = {
        "target": torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        "curvature": torch.tensor([[1.0] * 5, [1, 2, 3, 4, 5], [10, 0.1, 1, 1, 1]], dtype=torch.float64),
    }
    start = {"x": torch.zeros(3, 5, dtype=torch.float64)}
    found = minimise(quadratic, start, evidence, LBFGS(outer_steps=20))
    assert torch.allclose(found.variables["x"], evidence["target"], atol=1e-4)


def test_a_lane_that_leaves_the_real_numbers_keeps_its_best_iterate_and_hurts_no_other():
    def objective(variables, evidence):
        x = variables["x"]
        return torch.where(evidence["wild"] > 0, -x.exp().sum(), (x**2).sum())

    evidence = {"wild": torch.tensor([1.0, 0.0])}
    found = minimise(objective, {"x": torch.ones(2, 2)}, evidence, LBFGS(outer_steps=50))
    assert torch.isfinite(found.variables["x"]).all()
    assert torch.allclose(found.variables["x"][1], torch.zeros(2), atol=1e-4)


def test_the_best_iterate_comes_with_its_own_objective(case):
    seen = case(trials=2)
    attack = Euclidean(iterations=3)
    found = attack.reconstruct(seen.observation, [0, 1])
    problem = MatchingProblem(seen.observation, squared_distance)
    inside = (found.images > 0) & (found.images < 1)
    if inside.all():  # nothing was clamped
        again = problem.at(found.images, found.labels)
        assert torch.allclose(again, found.objective, rtol=1e-3)
    assert (found.objective <= found.start).all()


def two_loops(moves, changes, gradient):
    """-H gradient by the two loops of Nocedal & Wright, algorithm 7.4, for one lane."""
    q, alphas = -gradient, []
    for s, y in zip(reversed(moves), reversed(changes), strict=True):
        alphas.append((s @ q) / (y @ s))
        q = q - alphas[-1] * y
    r = q * (moves[-1] @ changes[-1]) / (changes[-1] @ changes[-1]) if moves else q
    for s, y, alpha in zip(moves, changes, reversed(alphas), strict=True):
        r = r + s * (alpha - (y @ r) / (y @ s))
    return r


def test_the_memory_s_direction_is_that_of_the_two_loops_as_pairs_come_and_go():
    rng = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(3, 40, dtype=torch.float64, generator=rng)
    memory = _Memory.empty(draw(), history=4)
    pairs = [[], [], []]
    for _ in range(12):
        gradient, y = draw(), draw()
        s = y + 0.5 * draw()
        wanted = torch.rand(3, generator=rng) > 0.4  # lanes remember at different times
        found = memory.direction(gradient, y, s, wanted)
        for lane in range(3):
            if wanted[lane]:
                pairs[lane] = [*pairs[lane], (s[lane], y[lane])][-4:]
            moves, changes = [p[0] for p in pairs[lane]], [p[1] for p in pairs[lane]]
            assert torch.allclose(found[lane], two_loops(moves, changes, gradient[lane]), rtol=1e-10, atol=1e-12)
