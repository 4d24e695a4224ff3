"""How an attack is run changes how long it takes, not what it finds."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import grad_and_value, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.engine.compilation import EXPECTED_SPEEDUP, SECONDS_PER_OPERATION, WARM, Costs
from attacks.engine.descent import Adam, descend
from attacks.engine.execution import Execution, announce, current, executing, listening, record
from attacks.engine.lanes import Step
from attacks.engine.program import Program
from attacks.engine.solve import is_out_of_memory, solve
from attacks.floors.prior_only import PriorOnly
from attacks.matching.distances import cosine_distance, squared_distance
from attacks.matching.problem import MatchingProblem
from attacks.matching.simulation import loss_of
from attacks.observation import joined
from attacks.optimisation.euclidean import Euclidean
from attacks.optimisation.euclidean_adam import EuclideanAdam
from attacks.optimisation.inverting_gradients import InvertingGradients
from attacks.threat import ThreatModel
from defenses.schedule import Schedule
from defenses.task import Batch


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy(lanes):
    """Starts and evidence of a problem whose lanes all differ."""
    return {"images": draw(lanes, 2, 3)}, {"target": draw(lanes, 2, 3, seed=1), "weight": draw(lanes, seed=2).exp()}


def distance_to_target(x, evidence):
    return evidence["weight"] * (x["images"] - evidence["target"]).cosh().sum()


def toy_descent(execution=None, lanes=5, iterations=9, objective=distance_to_target, gradients=None):
    """What the toy's lanes find, and the one choice that it took."""
    with executing(execution or Execution()) as choices:
        found = descend(objective, *toy(lanes), Adam(iterations, 0.05), signed=False, box=None, gradients=gradients)
    assert len(choices) == 1
    return found, choices[0]


def assert_equal(found, expected, tolerance=1e-12):
    for a, b in (
        (found.objective, expected.objective),
        (found.start, expected.start),
        *((found.variables[n], expected.variables[n]) for n in expected.variables),
        *((found.trace[i], expected.trace[i]) for i in expected.trace),
    ):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    assert found.trace.keys() == expected.trace.keys()


def same_bytes(found, expected):
    return (
        all(torch.equal(found.variables[n], expected.variables[n]) for n in expected.variables)
        and torch.equal(found.objective, expected.objective)
        and torch.equal(found.start, expected.start)
        and all(torch.equal(found.trace[i], expected.trace[i]) for i in expected.trace)
    )


@pytest.fixture
def traced(monkeypatch):
    """Descents of any length are traced."""
    monkeypatch.setattr("attacks.engine.choice.SHORT", 0)


@pytest.fixture(params=["as it is", "traced"])
def either_way(request, monkeypatch):
    """A step run as it is, and a traced one."""
    if request.param == "traced":
        monkeypatch.setattr("attacks.engine.choice.SHORT", 0)


# Forms of the gradient


def slopes(problem, form, lanes):
    return vmap(problem.gradients[form])(problem.start(list(range(lanes)), 1), problem.evidence(1))


def assert_forms_agree(problem, other, lanes):
    (found, value), (expected, plain) = slopes(problem, other, lanes), slopes(problem, "double_backward", lanes)
    assert torch.allclose(value, plain, rtol=1e-12)
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        assert float(slope.abs().max()) > 0
        assert float((found[name] - slope).abs().max() / slope.abs().max()) < 1e-12


@pytest.mark.parametrize("distance", [cosine_distance, squared_distance], ids=["cosine", "squared"])
@pytest.mark.parametrize("labels", ["known", "joint"])
def test_forward_over_reverse_is_the_gradient_of_double_backward(case, labels, distance):
    threat = ThreatModel(labels=labels)
    seen = case(dataset="digits", trials=2, schedule=Schedule(images=2), threat=threat, dtype=torch.float64)
    assert_forms_agree(MatchingProblem(seen.observation, distance, tv_weight=1e-2), "forward_over_reverse", 2)


def test_forward_over_reverse_is_exact_through_relu_batch_norm_and_max_pooling(case):
    seen = case(model="convnet64", dataset="digits", trials=2, dtype=torch.float64, width=4)
    for i, layer in enumerate(m for m in seen.task.model.modules() if isinstance(m, nn.BatchNorm2d)):
        layer.running_mean.copy_(draw(*layer.running_mean.shape, seed=i) / 4)
        layer.running_var.copy_(draw(*layer.running_var.shape, seed=i + 50).exp())
    assert_forms_agree(MatchingProblem(seen.observation, cosine_distance), "forward_over_reverse", 2)


@pytest.mark.parametrize("labels", ["known", "joint"])
def test_checkpointed_is_the_gradient_of_double_backward_over_local_steps(case, labels):
    schedule = Schedule(images=4, epochs=2, batch_size=2, learning_rate=0.5)
    threat = ThreatModel(labels=labels)
    seen = case(dataset="digits", trials=2, schedule=schedule, threat=threat, dtype=torch.float64)
    assert_forms_agree(MatchingProblem(seen.observation, squared_distance, tv_weight=1e-2), "checkpointed", 2)


def test_the_memory_of_checkpointed_hardly_grows_with_the_local_steps(case):
    def peak(form, epochs):
        schedule = Schedule(images=64, epochs=epochs, learning_rate=0.1)
        seen = case(model="mlp", dataset="digits", trials=1, schedule=schedule, hidden=[4])
        problem = MatchingProblem(seen.observation, cosine_distance)
        step = vmap(problem.gradients[form])
        example = problem.start([0], 1), problem.evidence(1)
        return Program(step, example, fixed=1, recomputes=form == "checkpointed").peak_bytes

    plain, checkpointed = (peak(form, 3) - peak(form, 1) for form in ("double_backward", "checkpointed"))
    assert plain > 0
    assert checkpointed < plain / 4


def test_an_attack_finds_the_same_in_either_form(case):
    seen = case(dataset="digits", trials=2, dtype=torch.float64).observation
    attack = InvertingGradients(iterations=5, signed=False)
    found = []
    for form in ("double_backward", "forward_over_reverse"):
        with executing(Execution(gradient=form)) as choices:
            found.append(attack.reconstruct(seen, [0, 1]))
        assert [c.gradient for c in choices] == [form]
    assert torch.allclose(found[0].images, found[1].images, atol=1e-9)
    assert torch.allclose(found[0].objective, found[1].objective, rtol=1e-9)


def test_a_form_that_a_problem_does_not_have_gives_the_plain_one():
    _, choice = toy_descent(Execution(gradient="checkpointed"))
    assert choice.gradient == "double_backward"


# A weight per lane


def with_other_weights(seen, seed):
    """The same clients under other weights."""
    generator = torch.Generator().manual_seed(seed)
    params = {n: p + 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in seen.params.items()}
    sent = [seen.task.gradient(params, Batch(x, y)) for x, y in zip(seen.images, seen.labels, strict=True)]
    updates = {n: torch.stack([u[n] for u in sent]) for n in params}
    return replace(seen.observation, params=params, updates=updates)


@pytest.mark.parametrize(
    ("form", "epochs"), [("double_backward", 0), ("forward_over_reverse", 0), ("checkpointed", 2)], ids=str
)
def test_lanes_with_weights_of_their_own_equal_each_observation_alone(case, form, epochs):
    schedule = Schedule(images=1, epochs=epochs, learning_rate=0.1)
    seen = case(dataset="digits", trials=2, schedule=schedule, dtype=torch.float64)
    observations = [seen.observation, with_other_weights(seen, 1)]
    together = joined(observations)
    assert together.own_weights
    assert together.trials == 4
    attack = InvertingGradients(iterations=3, signed=False)
    with executing(Execution(gradient=form)):
        whole = attack.reconstruct(together, [0, 1, 2, 3])
        alone = [attack.reconstruct(o, [2 * i, 2 * i + 1]) for i, o in enumerate(observations)]
    for name in ("images", "objective", "start"):
        expected = torch.cat([getattr(a, name) for a in alone])
        assert torch.allclose(getattr(whole, name), expected, rtol=1e-12, atol=1e-12)
    # The weights matter: under those of the first the second's lanes start elsewhere.
    blind = attack.reconstruct(replace(observations[1], params=seen.params), [2, 3])
    assert not torch.allclose(blind.start, alone[1].start, rtol=1e-3)


def test_observations_under_equal_weights_share_them(case):
    seen = case(dataset="digits", trials=2).observation
    together = joined([seen[:1], replace(seen[1:], params={n: p.clone() for n, p in seen.params.items()})])
    assert not together.own_weights
    assert together.params is seen.params
    assert all(torch.equal(together.updates[n], seen.updates[n]) for n in seen.updates)


# Chunks of lanes


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 5, 9, None])
def test_chunks_give_what_one_chunk_gives_in_the_order_of_the_lanes(lanes, either_way):
    found, choice = toy_descent(Execution(lanes=lanes))
    assert choice.lanes == 5
    assert choice.chunk == {1: 1, 2: 2, 3: 3, 4: 3}.get(lanes, 5)
    start, evidence = toy(5)
    assert found.objective.shape == (5,)
    for lane in range(5):
        one = slice(lane, lane + 1)
        alone = descend(
            distance_to_target,
            *({n: t[one] for n, t in tensors.items()} for tensors in (start, evidence)),
            Adam(9, 0.05),
            signed=False,
            box=None,
        )
        cut = replace(
            found,
            variables={"images": found.variables["images"][one]},
            objective=found.objective[one],
            start=found.start[one],
            trace={i: value[one] for i, value in found.trace.items()},
        )
        assert_equal(cut, alone)


@pytest.mark.parametrize(
    "attack",
    [
        InvertingGradients(iterations=4, restarts=2),
        EuclideanAdam(iterations=4, restarts=2),
        Euclidean(iterations=2),
        PriorOnly(iterations=4),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_every_attack_in_chunks_equals_the_attack_in_one(case, attack):
    seen = case(dataset="digits", trials=3, dtype=torch.float64).observation
    whole = attack.reconstruct(seen, [0, 1, 2])
    with executing(Execution(lanes=2)) as choices:
        parts = attack.reconstruct(seen, [0, 1, 2])
    assert choices[0].chunk == 2
    assert torch.allclose(parts.images, whole.images, atol=1e-12)
    assert torch.allclose(parts.objective, whole.objective, rtol=1e-12)
    assert torch.equal(parts.labels, whole.labels)
    for i, value in whole.trace.items():
        assert torch.allclose(parts.trace[i], value, rtol=1e-12)


def test_lanes_are_cut_to_what_fits_into_memory(traced):
    whole, all_lanes = toy_descent(lanes=12)
    found, choice = toy_descent(Execution(memory=all_lanes.peak_bytes // 3), lanes=12)
    assert choice.peak_bytes <= all_lanes.peak_bytes // 3
    assert 1 < choice.chunk <= 4
    assert_equal(found, whole)


def test_a_single_lane_runs_even_where_it_does_not_fit(traced):
    found, choice = toy_descent(Execution(memory=1), lanes=3)
    assert choice.chunk == 1
    assert_equal(found, toy_descent(lanes=3)[0])


def test_a_short_descent_is_traced_only_where_memory_is_scarce():
    assert toy_descent(Execution(memory=10**9))[1].peak_bytes is None
    assert toy_descent(Execution(memory=1))[1].chunk == 1


def test_every_chunk_runs_the_same_number_of_lanes_and_the_filling_is_dropped():
    sizes = []

    def loop(step, start, evidence, tell):
        sizes.append(len(start["images"]))
        return descend(distance_to_target, start, evidence, Adam(1), signed=False, box=None)

    seen = {}
    with executing(Execution(lanes=2)):
        descend(distance_to_target, *toy(5), Adam(1), signed=False, box=None)
        with listening(lambda done, total: seen.update({done: total})):
            descend(distance_to_target, *toy(5), Adam(3), signed=False, box=None)
    assert list(seen) == [2, 4, 6, 8, 10, 12, 13, 14, 15]
    assert set(seen.values()) == {15}
    step = Step({"plain": distance_to_target}, lambda start, evidence: (start, evidence), fixed=1, iterations=1)
    with executing(Execution(lanes=2)):
        found = solve(step, loop, *toy(5))
    assert sizes == [2, 2, 2]
    assert len(found.objective) == 5


# Out of memory


class Scarce(TorchDispatchMode):
    """An operation on more lanes than `limit` finds no memory, from the time that `after` others did."""

    def __init__(self, limit, after=0, error=None):
        super().__init__()
        self.limit, self.left = limit, after
        self.error = error or torch.OutOfMemoryError("out of memory, says the test")
        self.refused = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.cosh.default and type(args[0]) is torch.Tensor and args[0].device.type == "cpu":
            self.left -= 1
            if len(args[0]) > self.limit and self.left < 0:
                self.refused += 1
                raise self.error
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("after", [0, 4], ids=["at once", "in the middle"])
@pytest.mark.parametrize(("lanes", "limit", "chunk"), [(8, 4, 4), (7, 2, 2), (5, 1, 1), (6, 5, 3)])
def test_out_of_memory_halves_the_chunk_and_goes_on(lanes, limit, chunk, after, either_way):
    whole, _ = toy_descent(lanes=lanes)
    with Scarce(limit, after) as scarce:
        found, choice = toy_descent(lanes=lanes)
    assert scarce.refused > 0
    assert choice.chunk == chunk
    assert choice.lanes == lanes
    assert_equal(found, whole)


@pytest.mark.parametrize("execution", [Execution(mode="auto"), Execution(gradient="auto")], ids=["mode", "gradient"])
def test_out_of_memory_while_measuring_halves_the_chunk_too(execution, traced):
    plain = grad_and_value(distance_to_target)
    whole, _ = toy_descent(lanes=8)
    with Scarce(2) as scarce:
        found, choice = toy_descent(execution, lanes=8, gradients={"plain": plain, "other": plain})
    assert scarce.refused > 0
    assert choice.chunk == 2
    assert_equal(found, whole)


def test_chunks_that_were_done_before_memory_ran_out_are_kept(either_way):
    """Nine iterations and one evaluation of the result: the second chunk fails."""
    whole, _ = toy_descent(lanes=8)
    heard = []
    with Scarce(2, after=14), listening(lambda done, total: heard.append(done)):
        found, choice = toy_descent(Execution(lanes=4), lanes=8)
    assert choice.chunk == 2
    assert_equal(found, whole)
    assert heard.count(9 * 4) == 1  # the first chunk's last iteration
    assert heard[-1] == 9 * 8


def test_a_single_lane_without_memory_fails_and_leaves_no_choice(either_way):
    with executing(Execution()) as choices, Scarce(0), pytest.raises(torch.OutOfMemoryError):
        descend(distance_to_target, *toy(3), Adam(2), signed=False, box=None)
    assert choices == []


def test_any_other_error_is_not_taken_for_a_lack_of_memory(either_way):
    with Scarce(0, error=RuntimeError("shapes differ")) as scarce, pytest.raises(RuntimeError, match="shapes differ"):
        toy_descent()
    assert scarce.refused == 1


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator: can't allocate memory"))


# As it is, traced, compiled


@pytest.mark.parametrize("attack", [InvertingGradients(iterations=6), Euclidean(iterations=1)], ids=["adam", "lbfgs"])
def test_a_short_descent_and_a_traced_one_give_identical_bytes(case, attack, monkeypatch):
    seen = case(dataset="digits", trials=2).observation
    found, peaks = [], []
    for short in (10**6, 0):
        monkeypatch.setattr("attacks.engine.choice.SHORT", short)
        with executing(Execution()) as choices:
            found.append(attack.reconstruct(seen, [3, 4]))
        peaks.append(choices[0].peak_bytes)
    assert peaks[0] is None  # as it is
    assert peaks[1] > 0  # traced
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].objective, found[1].objective)
    assert all(torch.equal(found[0].trace[i], found[1].trace[i]) for i in found[1].trace)


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_a_compiled_step_equals_the_eager_one_to_1e_5():
    eager, _ = toy_descent(iterations=1)
    found, choice = toy_descent(Execution(mode="compile", lanes=3), iterations=1)
    assert choice.execution == "compile", choice.why
    assert choice.compile_seconds > 0
    assert_equal(found, eager, 1e-5)


# Choosing by measurement


class Compiler:
    """Stands in for Inductor, with a clock: compiling takes 5 s, an eager step 10 ms, a compiled one `milliseconds`."""

    def __init__(self, monkeypatch):
        self.now, self.milliseconds, self.error = 0.0, 1.0, None
        self.compiled, self.digests, self.fast_steps = [], [], 0
        call = Program.__call__

        def timed(program, *arguments):
            fast = program.run in self.compiled
            self.fast_steps += fast
            self.now += (self.milliseconds if fast else 10.0) / 1e3
            return call(program, *arguments)

        monkeypatch.setattr("attacks.engine.choice.SHORT", 0)
        monkeypatch.setattr("attacks.engine.choice.compile_program", self.compile)
        monkeypatch.setattr("attacks.engine.choice.time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(Program, "__call__", timed)

    def compile(self, program, leaves):
        if self.error is not None:
            raise self.error
        self.now += 5.0
        module = program.graph_module
        self.compiled.append(lambda *tensors: module(*tensors))
        self.digests.append(program.digest)
        return self.compiled[-1], 5.0


@pytest.fixture
def compiler(monkeypatch):
    return Compiler(monkeypatch)


@pytest.fixture
def digest(compiler):
    """Of the toy's program."""
    toy_descent(Execution(mode="compile"))
    compiler.compiled.clear()
    compiler.fast_steps = 0
    return compiler.digests[0]


def promise(path, digest, seconds, speedup):
    path.write_text(json.dumps({digest: {"seconds": seconds, "speedup": speedup}}), encoding="utf-8")
    return path


def test_auto_stays_eager_when_little_time_is_left_and_says_why(compiler):
    plain, _ = toy_descent()
    found, choice = toy_descent(Execution(mode="auto"))
    assert compiler.compiled == []
    assert choice.execution == "eager"
    assert choice.milliseconds == pytest.approx(10)
    assert choice.compile_seconds is None
    assert choice.why.startswith("eager 10 ms; 0 s left, compiling would take")
    assert same_bytes(found, plain)


def test_auto_weighs_all_chunks_together(compiler, tmp_path):
    """9 iterations of 10 ms are .09 s of one chunk and .45 s of five; twice as fast they save .045 and .225 s."""
    costs = tmp_path / "costs.json"
    for lanes in (1, 5):
        toy_descent(Execution(mode="compile", lanes=lanes))
    assert len(set(compiler.digests)) == 2
    costs.write_text(json.dumps({digest: {"seconds": 0.15, "speedup": 2} for digest in compiler.digests}))
    chosen = {lanes: toy_descent(Execution(mode="auto", lanes=lanes, costs=costs))[1].execution for lanes in (5, 1)}
    assert chosen == {5: "eager", 1: "compile"}


def test_auto_compiles_what_the_costs_file_promises_to_gain(compiler, digest, tmp_path):
    plain, _ = toy_descent()
    costs = promise(tmp_path / "costs.json", digest, seconds=0.01, speedup=9)
    found, choice = toy_descent(Execution(mode="auto", costs=costs))
    assert len(compiler.compiled) == 1
    assert compiler.fast_steps >= 10  # the descent's own and those that were measured
    assert choice.execution == "compile"
    assert choice.milliseconds == pytest.approx(1)
    assert choice.compile_seconds == pytest.approx(5, abs=0.1)
    assert choice.why.startswith("eager 10 ms, compile")
    assert "1 ms after 5 s" in choice.why
    learnt = json.loads(costs.read_text())[digest]
    assert learnt == {"seconds": pytest.approx(5, abs=0.1), "speedup": pytest.approx(10)}
    assert same_bytes(found, plain)
    # 5 s for .09 s: what was learnt holds from now on.
    assert toy_descent(Execution(mode="auto", costs=costs))[1].execution == "eager"
    assert len(compiler.compiled) == 1


def test_auto_compiles_what_comes_back_often_enough(compiler, digest, tmp_path):
    """Each descent of .09 s would save .045 s of the .1 s that compiling takes."""
    costs = promise(tmp_path / "costs.json", digest, seconds=0.1, speedup=2)
    chosen = [toy_descent(Execution(mode="auto", costs=costs))[1].execution for _ in range(3)]
    assert chosen == ["eager", "eager", "compile"]
    assert "missed" not in json.loads(costs.read_text())[digest]


def test_auto_keeps_eager_when_the_compiled_program_is_slower(compiler, digest, tmp_path):
    costs = promise(tmp_path / "costs.json", digest, seconds=0.01, speedup=9)
    compiler.milliseconds = 20.0
    found, choice = toy_descent(Execution(mode="auto", costs=costs))
    assert len(compiler.compiled) == 1
    assert compiler.fast_steps == 4  # measured, and no more
    assert choice.execution == "eager"
    assert choice.milliseconds == pytest.approx(10)
    assert "20 ms after 5 s" in choice.why
    assert json.loads(costs.read_text())[digest]["speedup"] <= 1
    assert same_bytes(found, toy_descent()[0])
    # Never again, however long the descent.
    with executing(Execution(mode="auto", costs=costs)) as choices:
        descend(distance_to_target, *toy(5), Adam(5000, 0.05), signed=False, box=None)
    assert choices[0].execution == "eager"
    assert len(compiler.compiled) == 1


def test_auto_goes_on_when_compiling_fails_and_names_the_reason(compiler, digest, tmp_path):
    costs = promise(tmp_path / "costs.json", digest, seconds=0.01, speedup=9)
    compiler.error = RuntimeError("no working C++ compiler found\nand a long story")
    found, choice = toy_descent(Execution(mode="auto", costs=costs))
    assert choice.execution == "eager"
    assert choice.why.startswith("eager 10 ms; ")
    assert "failed: no working C++ compiler found" in choice.why
    assert "long story" not in choice.why
    assert same_bytes(found, toy_descent()[0])


def test_compile_goes_on_eagerly_when_compiling_fails_and_names_the_reason(compiler):
    compiler.error = OSError()
    found, choice = toy_descent(Execution(mode="compile"))
    assert choice.execution == "eager"
    assert choice.why == "as asked, but compiling failed: OSError"
    assert choice.compile_seconds is None
    assert same_bytes(found, toy_descent()[0])


def test_of_several_forms_auto_takes_the_one_that_is_clearly_faster(compiler, monkeypatch):
    """Here a step takes as many milliseconds as it has operations."""
    call = Program.__call__

    def timed(program, *arguments):
        compiler.now += program.operations
        return call(program, *arguments)

    monkeypatch.setattr(Program, "__call__", timed)
    plain = grad_and_value(distance_to_target)

    def padded(operations):
        def gradient(x, evidence):
            slope, value = plain(x, evidence)
            for i in range(operations):
                value = value + (x["images"].sum() * i).sin() * 0
            return slope, value

        return gradient

    long, middle, short = padded(30), padded(28), plain
    take = lambda forms: toy_descent(Execution(gradient="auto"), gradients=forms)[1].gradient
    assert take({"long": long, "short": short}) == "short"
    assert take({"short": short, "long": long}) == "short"
    assert take({"long": long, "middle": middle}) == "long"  # within the margin the plain one stays
    assert take({"long": long, "middle": middle, "short": short}) == "short"


# What compiling cost


def program(size):
    return Program(lambda x, y: (x * y).sum() + size, (draw(size), draw(size)), fixed=1)


def test_costs_are_guessed_at_first_and_remembered_for_each_program(tmp_path):
    path = tmp_path / "new folder" / "costs.json"
    first, second = program(3), program(4)
    guess = (SECONDS_PER_OPERATION * first.operations, EXPECTED_SPEEDUP, 0)
    assert Costs(path).expected(first) == guess
    Costs(path).remember(first, 12.5, 1.5)
    Costs(path).remember(second, 3.5, 0.75)
    assert Costs(path).expected(first) == pytest.approx((12.5 * WARM, 1.5, 0))
    assert Costs(path).expected(second) == pytest.approx((3.5 * WARM, 0.75, 0))
    Costs(path).remember(first, 2.0, 2.5)
    assert Costs(path).expected(first) == (2.0, 2.5, 0)
    assert Costs(path).expected(second) == pytest.approx((3.5 * WARM, 0.75, 0))
    assert [p.name for p in path.parent.iterdir()] == ["costs.json"]


def test_costs_without_a_file_are_forgotten():
    first = program(3)
    Costs(None).remember(first, 12.5, 1.5)
    assert Costs(None).expected(first)[1] == EXPECTED_SPEEDUP


@pytest.mark.parametrize("content", [b"", b'{"a": {"seconds"', b"\xff\xfe\x00", b"not json"])
def test_a_broken_costs_file_is_as_good_as_none_and_is_replaced(tmp_path, content):
    path, first = tmp_path / "costs.json", program(3)
    path.write_bytes(content)
    assert Costs(path).expected(first)[1] == EXPECTED_SPEEDUP
    Costs(path).remember(first, 12.5, 1.5)
    assert Costs(path).expected(first) == pytest.approx((12.5 * WARM, 1.5, 0))


def test_what_was_missed_adds_up_until_the_program_is_compiled(tmp_path):
    path, first = tmp_path / "costs.json", program(3)
    guess = Costs(path).expected(first)[0]
    Costs(path).miss(first, 2.5)
    Costs(path).miss(first, 1.25)
    assert Costs(path).expected(first) == (guess, EXPECTED_SPEEDUP, 3.75)
    Costs(path).remember(first, 12.5, 1.5)
    assert Costs(path).expected(first) == pytest.approx((12.5 * WARM, 1.5, 0))
    Costs(path).miss(first, 0.5)
    assert Costs(path).expected(first) == pytest.approx((12.5 * WARM, 1.5, 0.5))


def test_costs_that_cannot_be_written_are_forgotten_without_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    first = program(3)
    for path in (tmp_path / "file" / "costs.json", tmp_path):
        Costs(path).remember(first, 12.5, 1.5)
        assert Costs(path).expected(first)[1] == EXPECTED_SPEEDUP


# Precision


def test_in_bfloat16_images_and_objective_stay_float32_and_close(case):
    seen = case(dataset="digits", trials=2).observation
    attack = InvertingGradients(iterations=1, signed=False, learning_rate=1e-2)
    plain = attack.reconstruct(seen, [0, 1])
    with executing(Execution(precision="bfloat16")) as choices:
        low = attack.reconstruct(seen, [0, 1])
    assert choices[0].precision == "bfloat16"
    assert low.images.dtype == low.objective.dtype == low.start.dtype == torch.float32
    assert not torch.equal(low.start, plain.start)
    assert torch.allclose(low.start, plain.start, rtol=0.03)
    assert torch.allclose(low.objective, plain.objective, rtol=0.03)
    # Adam's first step is as long for every pixel: those whose gradient has another sign are few.
    assert float(((low.images - plain.images).abs() > 1e-3).float().mean()) < 0.05


def test_the_cross_entropy_of_a_bfloat16_network_is_in_float32(case):
    seen = case(dataset="digits", trials=1)
    loss = loss_of(seen.task, "bfloat16")(seen.params, seen.images[0], seen.labels[0])
    assert loss.dtype == torch.float32
    assert float(loss) != float(loss.bfloat16())
    assert float(loss) == pytest.approx(float(seen.task.loss(seen.params, seen.images[0], seen.labels[0])), rel=0.03)


# Who hears of a choice


def test_a_choice_is_announced_before_the_first_iteration_and_recorded_after_the_last(either_way):
    events = []
    with (
        executing(Execution(lanes=2), heard=events.append) as choices,
        listening(lambda done, total: events.append(("iteration", done, len(choices)))),
    ):
        for _ in range(2):
            descend(distance_to_target, *toy(4), Adam(2), signed=False, box=None)
    iterations = lambda before: [("iteration", done, before) for done in (2, 4, 6, 8)]
    assert events == [choices[0], *iterations(0), choices[1], *iterations(1)]


def test_outside_of_executing_nothing_is_recorded_and_everything_runs_eagerly():
    heard = []
    with executing(Execution(mode="compile", lanes=1), heard=heard.append) as choices:
        pass
    descend(distance_to_target, *toy(2), Adam(2), signed=False, box=None)
    assert choices == heard == []
    assert current() == Execution() == Execution(mode="eager", gradient="double_backward", precision="float32")


def test_the_innermost_executing_hears():
    choice = toy_descent()[1]
    told = []
    with executing(Execution(lanes=3), heard=lambda c: told.append("outer")) as outer:
        with executing(Execution(lanes=2), heard=lambda c: told.append("inner")) as inner:
            assert current().lanes == 2
            announce(choice)
            record(choice)
        assert current().lanes == 3
        assert (inner, outer) == ([choice], [])
        announce(choice)
        record(choice)
    assert (inner, outer) == ([choice], [choice])
    assert told == ["inner", "outer"]


def test_an_error_ends_executing():
    with pytest.raises(ZeroDivisionError), executing(Execution(lanes=2)):
        raise ZeroDivisionError
    assert current() == Execution()
