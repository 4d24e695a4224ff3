"""The batched L-BFGS walks like torch's, lane by lane."""

import pytest
import torch
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.engine.execution import listening
from attacks.engine.lbfgs import LBFGS, InverseHessian, minimise
from attacks.matching.distances import squared_distance
from attacks.matching.problem import MatchingProblem
from attacks.optimisation.euclidean import Euclidean

SEARCHES = pytest.mark.parametrize("line_search", ["none", "strong_wolfe"])


def values_of_torch(objective, start, evidence, settings):
    """What torch.optim.LBFGS sees of one lane, without the points that a step evaluates though the last one did."""
    x = start.clone().requires_grad_()
    search = None if settings.line_search == "none" else settings.line_search
    optimiser = torch.optim.LBFGS(
        [x], settings.learning_rate, settings.inner_steps, history_size=settings.history, line_search_fn=search
    )
    values, points = [], []

    def closure():
        optimiser.zero_grad()
        value = objective({"images": x}, evidence)
        value.backward()
        # Every step evaluates where it starts, known or not.
        if len(points) != begun or not any(torch.equal(x, point) for point in points):
            values.append(value.item())
        points.append(x.detach().clone())
        return value

    for _ in range(settings.outer_steps):
        begun = len(points)
        optimiser.step(closure)
    return torch.tensor(values, dtype=x.dtype)


@pytest.fixture
def walk(monkeypatch):
    """The objective of every lane at every tick (lanes, ticks)."""
    monkeypatch.setattr("attacks.engine.lbfgs.log_spaced", lambda ticks: set(range(ticks)))

    def values(objective, start, evidence, settings):
        trace = minimise(objective, start, evidence, settings).trace
        return torch.stack([trace[tick] for tick in range(len(trace) - 1)], dim=1)  # the last is the best, not a tick

    return values


@SEARCHES
def test_every_lane_of_gradient_matching_follows_torch_for_two_outer_steps(case, walk, line_search):
    seen = case(trials=3, dtype=torch.float64)
    problem = MatchingProblem(seen.observation, squared_distance)
    start, evidence = problem.start([0, 1, 2], 1), problem.evidence(1)
    settings = LBFGS(outer_steps=2, line_search=line_search)
    found = walk(problem.objective, start, evidence, settings)
    for lane, values in enumerate(found):
        own = {name: value[lane] for name, value in evidence.items()}
        expected = values_of_torch(problem.objective, start["images"][lane], own, settings)
        assert len(expected) >= 40
        assert torch.allclose(values[: len(expected)], expected[: len(values)], rtol=1e-6)


def chained_rosenbrock(variables, evidence):
    x = variables["images"]
    return (evidence["bend"] * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


VALLEYS = {"bend": torch.tensor([0.0, 1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)}


def scattered(lanes):
    return torch.randn(lanes, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@SEARCHES
@pytest.mark.parametrize("history", [3, 100])
@pytest.mark.parametrize(("outer_steps", "inner_steps"), [(1, 1), (30, 1), (12, 2), (8, 5), (3, 20)])
def test_lanes_of_unlike_curvature_follow_torch_to_their_end(walk, line_search, history, outer_steps, inner_steps):
    settings = LBFGS(outer_steps=outer_steps, inner_steps=inner_steps, history=history, line_search=line_search)
    start = scattered(5)
    found = walk(chained_rosenbrock, {"images": start}, VALLEYS, settings)
    lengths = set()
    for lane, values in enumerate(found):
        expected = values_of_torch(chained_rosenbrock, start[lane], {"bend": VALLEYS["bend"][lane]}, settings)
        lengths.add(len(expected))
        # Valleys amplify a rounding error tenfold every few evaluations, in torch as here.
        n = min(len(expected), len(values), 30)
        assert torch.allclose(values[:n], expected[:n], rtol=1e-6, atol=1e-12)
        if len(expected) <= min(30, values.numel() - 1):
            assert (values[len(expected) :] == values[-1]).all()  # it rests where torch ended
    assert len(lengths) > 1 or outer_steps * inner_steps < 30


def quadratic(variables, evidence):
    return ((variables["x"] - evidence["target"]) ** 2 * evidence["curvature"]).sum()


@SEARCHES
def test_lanes_finish_alone_and_at_the_minimum(line_search):
    evidence = {
        "target": torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        "curvature": torch.tensor([[1.0] * 5, [1, 2, 3, 4, 5], [10, 0.1, 1, 1, 1]], dtype=torch.float64),
    }
    start = {"x": torch.zeros(3, 5, dtype=torch.float64)}
    found = minimise(quadratic, start, evidence, LBFGS(outer_steps=20, line_search=line_search))
    assert torch.allclose(found.variables["x"], evidence["target"], atol=1e-4)


def waves(variables, evidence):
    x = variables["images"]
    return (0.02 * x**2 + evidence["height"] * (evidence["pitch"] * x).sin()).sum()


@pytest.mark.parametrize(("seed", "learning_rate"), [(1, 0.3), (2, 30.0)])  # long growth, long zooms
def test_eighty_searches_over_waves_take_the_turns_that_torch_takes(walk, seed, learning_rate):
    rng = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, dtype=torch.float64, generator=rng)
    start, evidence = 20 * draw(80, 2) - 10, {"height": 2 * draw(80), "pitch": 0.5 + 4 * draw(80)}
    settings = LBFGS(outer_steps=1, learning_rate=learning_rate, line_search="strong_wolfe")
    found = walk(waves, {"images": start}, evidence, settings)
    compared = 0
    for lane, values in enumerate(found):
        own = {name: value[lane] for name, value in evidence.items()}
        expected, nudged = (values_of_torch(waves, start[lane] * (1 + e), own, settings) for e in (0, 2e-16))
        # A turn can hang on one rounding; then torch does not agree with itself either.
        n = min(len(expected), len(nudged), len(values))
        apart = ~torch.isclose(expected[:n], nudged[:n], rtol=1e-8, atol=1e-9)
        n = int(apart.int().argmax()) if apart.any() else n
        assert torch.allclose(values[:n], expected[:n], rtol=1e-6, atol=1e-9)
        compared += n
    assert compared > 80 * 10


def barrier(variables, evidence):
    x = variables["images"]
    return (x - x.log()).sum()


@SEARCHES
def test_a_lane_that_leaves_the_real_numbers_stops_at_its_best_point_and_hurts_no_other(walk, line_search):
    settings = LBFGS(outer_steps=3, line_search=line_search)
    start = torch.tensor([[0.01, 0.1, 5, 9], [0.5, 0.9, 2, 3]], dtype=torch.float64)
    evidence = {"unused": torch.zeros(2)}
    found = walk(barrier, {"images": start}, evidence, settings)
    for values, own in zip(found, start, strict=True):
        expected = values_of_torch(barrier, own, {}, settings)
        real = len(expected) if expected.isfinite().all() else int(expected.isfinite().int().argmin())
        assert torch.allclose(values[:real], expected[:real], rtol=1e-6)
    assert not found[0].isfinite().all()
    assert found[1].isfinite().all()
    best = minimise(barrier, {"images": start}, evidence, settings)
    assert torch.equal(best.objective[0], found[0].nan_to_num(nan=float("inf")).min())
    assert torch.allclose(barrier({"images": best.variables["images"][0]}, {}), best.objective[0])
    ticks = []
    with listening(lambda done, total: ticks.append(done)):
        minimise(barrier, {"images": start[:1]}, {"unused": torch.zeros(1)}, LBFGS(30, line_search=line_search))
    assert max(ticks) < 60  # nothing is left to do
    alone = minimise(barrier, {"images": start[1:]}, {"unused": torch.zeros(1)}, settings)
    assert torch.allclose(best.variables["images"][1:], alone.variables["images"], rtol=1e-9)


def test_a_search_comes_back_from_an_infinite_trial_as_torch_does(walk):
    wall = lambda variables, evidence: (variables["images"].exp() - variables["images"]).sum()
    settings = LBFGS(outer_steps=2, learning_rate=2960, line_search="strong_wolfe")
    start = torch.tensor([[-20.0] * 4, [-19.0, -18, -20, -21]], dtype=torch.float64)
    found = walk(wall, {"images": start}, {"unused": torch.zeros(2)}, settings)
    for values, own in zip(found, start, strict=True):
        expected = values_of_torch(wall, own, {}, settings)
        assert expected[1].isinf()
        assert expected[2:10].isfinite().all()
        assert torch.allclose(values[:10], expected[:10], rtol=1e-6)


class NoWaiting(TorchDispatchMode):
    """Refuses whatever makes the host wait for a device: reading a number, or a result whose shape is in the data."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "item", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert not name.startswith(self.waits), name
        if name.startswith(("index", "_unsafe_index")):
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            assert not any(i is not None and i.dtype == torch.bool for i in indices), "boolean indexing"
        return func(*args, **(kwargs or {}))


@SEARCHES
def test_nothing_waits_for_the_device_between_two_checks(line_search):
    settings = LBFGS(outer_steps=1, inner_steps=7, history=3, line_search=line_search)  # ends before the first check
    with NoWaiting():
        found = minimise(chained_rosenbrock, {"images": scattered(5)}, VALLEYS, settings)
    assert (found.objective < found.start).any()
    with pytest.raises(AssertionError), NoWaiting():
        minimise(chained_rosenbrock, {"images": scattered(5)}, VALLEYS, LBFGS(outer_steps=2, line_search=line_search))


def test_an_unknown_line_search_is_refused():
    with pytest.raises(ValueError, match="strong_wolfe"):
        Euclidean(line_search="armijo")


@SEARCHES
@pytest.mark.parametrize("outer_steps", [1, 3])
def test_the_best_iterate_comes_with_its_own_objective(line_search, outer_steps):
    """Nothing is clamped here, which would change the objective."""
    settings = LBFGS(outer_steps=outer_steps, line_search=line_search)
    found = minimise(chained_rosenbrock, {"images": scattered(5)}, VALLEYS, settings)
    again = vmap(chained_rosenbrock)(found.variables, VALLEYS)
    assert torch.allclose(again, found.objective, rtol=1e-12)
    assert (found.objective < found.start).all()


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
    memory = InverseHessian.empty(draw(), history=4)
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
