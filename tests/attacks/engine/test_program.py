"""A program is its function, runs every operation once, and knows how much memory it needs."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.fx import Interpreter
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attacks.engine.program import Program, untraced
from attacks.matching.distances import cosine_distance
from attacks.matching.problem import MatchingProblem
from defenses.schedule import Schedule


class Operations(TorchDispatchMode):
    """The names of all operations that torch runs inside the block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def ran(program, *arguments):
    with Operations() as seen:
        program(*arguments)
    return seen.names


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(found, expected):
    found, expected = tree_leaves(found), tree_leaves(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def step_of(problem, form="double_backward"):
    """The gradient of every lane, and arguments of so many lanes."""
    example = lambda lanes: (problem.start(list(range(lanes)), 1), problem.evidence(1))
    return vmap(problem.gradients[form]), example


def matched(case, trials, **settings):
    return MatchingProblem(
        case(dataset="digits", trials=trials, **settings).observation, cosine_distance, tv_weight=1e-2
    )


def test_a_program_equals_its_function_for_other_inputs_than_the_example_s(case):
    problem = matched(case, 2, dtype=torch.float64)
    step, example = step_of(problem)
    variables, evidence = example(2)
    program = Program(step, (variables, evidence), fixed=1)
    for i in range(2):
        variables = {"images": draw(*variables["images"].shape, seed=i)}
        evidence = {n: v.flip(0) * (1 + i) if v.is_floating_point() else v.flip(0) for n, v in evidence.items()}
        found, expected = program(variables, evidence), untraced(step)(variables, evidence)
        for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_arguments_and_results_keep_their_nesting():
    function = lambda x, y: ({"sum": x["a"] + y[0]["b"], "pair": (x["a"], y[1])}, x["a"] * 2)
    program = Program(function, ({"a": draw(2)}, ({"b": draw(2)}, draw(3))), fixed=1)
    given = {"a": draw(2, seed=1)}, ({"b": draw(2, seed=2)}, draw(3, seed=3))
    found = program(*given)
    assert isinstance(found, tuple)
    assert isinstance(found[0]["pair"], tuple)
    assert list(found[0]) == ["sum", "pair"]
    assert_same(found, function(*given))


def test_making_a_program_computes_nothing():
    """The exponential of this example would take 8 TB."""
    vast = torch.zeros(1, dtype=torch.float64).expand(1_000_000, 1_000_000)
    program = Program(lambda x, y: x.exp().sum() + y, (vast, draw(1)), fixed=1)
    assert program.peak_bytes >= 8e12


def test_what_is_computed_twice_is_computed_once():
    def twice(x, y):
        return (x * y).sin() + (x * y).sin().cos(), (x * y).sin()

    program = Program(twice, (draw(3), draw(3)), fixed=1)
    given = draw(3, seed=1), draw(3, seed=2)
    assert sorted(ran(program, *given)) == ["add", "cos", "mul", "sin"]
    assert_same(program(*given), twice(*given))


def test_what_no_result_needs_is_not_computed():
    program = Program(lambda x, y: (x.exp(), x + y)[1], (draw(3), draw(3)), fixed=1)
    assert ran(program, draw(3), draw(3)) == ["add"]


def test_a_constant_is_handed_over_once_and_never_confused_with_its_equal():
    weight, other = draw(3, seed=8), draw(3, seed=9)
    function = lambda x, y: (x * weight).sum() + (x * weight).sum().exp() + (x * other).sum() + y
    program = Program(function, (draw(3), draw(1)), fixed=1)
    assert_same(program(draw(3, seed=1), draw(1)), function(draw(3, seed=1), draw(1)))
    assert sorted(ran(program, draw(3), draw(1))) == ["add", "add", "add", "exp", "mul", "mul", "sum", "sum"]


def test_recomputing_on_purpose_is_left_alone():
    function = lambda x, y: x.sin() + x.sin() + y
    assert ran(Program(function, (draw(3), draw(3)), fixed=1, recomputes=True), draw(3), draw(3)).count("sin") == 2


def test_random_operations_are_never_merged_and_draw_anew_every_time():
    drawn = lambda t: (torch.rand_like(t), torch.bernoulli(t), torch.rand(1000))
    function = lambda x, y: (drawn(x), drawn(x), drawn(y), drawn(y))
    given = torch.full((1000,), 0.5), torch.full((1000,), 0.5)
    program = Program(function, given, fixed=1)
    draws = tree_leaves([program(*given), program(*given)])
    assert len(draws) == 24
    assert len({t.numpy().tobytes() for t in draws}) == 24


def writes_twice(x, y):
    """Two equal copies; only one of them is written to."""
    first, second = x * 1, x * 1
    first.add_(y)
    return first + 0, second + 0


def writes_through_a_view(x, y):
    z = x + 0
    before = z.sum()
    z[0] += y[0]
    z[1:].mul_(2)
    return before, z.sum(), z.sum() * z


def writes_to_what_follows_from_the_fixed(x, y):
    total = y.exp()
    total += x
    return total * y.exp()


@pytest.mark.parametrize(
    "function", [writes_twice, writes_through_a_view, writes_to_what_follows_from_the_fixed], ids=lambda f: f.__name__
)
def test_a_function_that_writes_in_place_still_gives_what_it_gives(function):
    program = Program(function, (draw(3), draw(3)), fixed=1)
    fixed = draw(3, seed=1)
    for seed in range(3):
        assert_same(program(draw(3, seed=seed), fixed), function(draw(3, seed=seed), fixed))


def test_what_follows_from_the_fixed_argument_is_computed_once_for_each_new_one():
    def function(x, y):
        return x * y["a"].exp().sum() + y["b"].cos()

    program = Program(function, (draw(3), {"a": draw(3), "b": draw(3)}), fixed=1)
    first, second = ({"a": draw(3, seed=s), "b": draw(3, seed=s + 9)} for s in (1, 2))
    x = draw(3, seed=3)
    assert sorted(ran(program, x, first)) == ["add", "cos", "exp", "mul", "sum"]
    assert sorted(ran(program, 2 * x, dict(first))) == ["add", "mul"]  # the same tensors in another dict
    assert sorted(ran(program, x, second)) == ["add", "cos", "exp", "mul", "sum"]
    half = {"a": second["a"], "b": first["b"]}
    for fixed in (first, second, first, half, second, {n: t.clone() for n, t in first.items()}):
        assert_same(program(x, fixed), function(x, fixed))
        assert_same(program(-x, fixed), function(-x, fixed))


@pytest.mark.parametrize("fixed", [0, 1, 2])
def test_any_argument_may_be_the_fixed_one(fixed):
    function = lambda a, b, c: a["x"].exp() * b["x"].sin() - c["x"].cos() * a["y"]
    given = lambda seed: tuple({"x": draw(2, seed=seed + i), "y": draw(2, seed=seed + 5 + i)} for i in range(3))
    program = Program(function, given(0), fixed=fixed)
    kept = ("exp", "sin", "cos")[fixed]
    latest = given(1)
    assert ran(program, *latest).count(kept) == 1
    again = tuple(latest[i] if i == fixed else given(2)[i] for i in range(3))
    assert kept not in ran(program, *again)
    assert_same(program(*again), function(*again))


def test_one_as_an_integer_a_float_and_a_truth_value_are_not_confused():
    function = lambda x, y: (x * True, x * 1, x * 1.0, x * True, y.sum(0, keepdim=False), y.sum((0,), keepdim=True))
    given = torch.tensor([True, False]), torch.tensor([[1, 2], [3, 4]])
    assert_same(Program(function, given, fixed=1)(*given), function(*given))
    assert_same(Program(function, given, fixed=0)(*given), function(*given))


def test_precision_and_other_named_arguments_are_not_confused():
    function = lambda x, y: (
        x.sum(),
        x.sum(dtype=torch.float32),
        x.sum(0),
        x.sum(0, True),
        x.var(0),
        x.var(0, False),
        y,
    )
    given = draw(3, 3), draw(1)
    assert_same(Program(function, given, fixed=1)(*given), function(*given))


def test_programs_that_differ_in_weights_alone_share_their_digest_and_no_results():
    def made(seed, lanes=4, exponent=2):
        weight = draw(3, 3, seed=seed)
        return Program(lambda x, y: ((x @ weight) ** exponent).sum() + y, (draw(lanes, 3), draw(1)), fixed=1)

    first, second = made(1), made(2)
    assert first.digest == second.digest
    assert not torch.equal(first(draw(4, 3), draw(1)), second(draw(4, 3), draw(1)))
    assert len({first.digest, made(1, lanes=5).digest, made(1, exponent=3).digest}) == 3


class LiveBytes(Interpreter):
    """Runs a graph node by node; `peak` is the most bytes that its operations' results ever held together."""

    def __init__(self, module):
        super().__init__(module)
        self.peak = 0
        self.given = set()

    def run_node(self, n):
        result = super().run_node(n)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(result)}
        if n.op in ("placeholder", "get_attr"):
            self.given |= set(storages)
        for node, value in self.env.items():
            if node.users:  # What nobody uses is gone at once, but for the interpreter's books.
                storages |= {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(value)}
        self.peak = max(self.peak, sum(size for key, size in storages.items() if key not in self.given))
        return result


def tensors(value):
    return [t for t in tree_leaves(value) if isinstance(t, Tensor)]


def measured_bytes(program, arguments):
    run = LiveBytes(program.graph_module)
    run.run(*program.flat(arguments))
    return run.peak


def assert_counted(program, arguments, excess=1.05):
    """Some is counted too long where one operation gives several tensors, which need not end together; never less."""
    measured = measured_bytes(program, arguments)
    assert measured <= program.peak_bytes <= excess * measured


def test_the_peak_of_a_known_chain_is_what_lives_together():
    """8 kB each: two results live at any time, and views of either take nothing."""

    def chain(x, y):
        first = x * 2  # held: 1
        second = first.view(10, 100).t().exp()  # held: 2
        third = (second.flatten()[:1000] + 1).view(1000)  # a transposed flatten copies; then the sum
        return (third.view(10, 100) * y).sum()

    assert Program(chain, (draw(1000), draw(1)), fixed=1).peak_bytes == 16_000
    alone = Program(lambda x, y: x.exp().view(10, 100).t().unsqueeze(0) + y, (draw(1000), draw(1)), fixed=1)
    assert alone.peak_bytes == 16_000
    wide = Program(lambda x, y: x.exp() + x.sin() * x.cos() + y, (draw(1000), draw(1)), fixed=1)
    assert wide.peak_bytes in (24_000, 32_000)
    assert wide.peak_bytes == measured_bytes(wide, (draw(1000), draw(1)))


def test_arguments_and_what_follows_from_the_fixed_one_count_nothing():
    program = Program(lambda x, y: (x, y.exp()), (draw(1000), draw(1000)), fixed=1)
    assert program.peak_bytes == 0


@pytest.mark.parametrize("form", ["double_backward", "forward_over_reverse"])
def test_peak_bytes_are_what_a_run_node_by_node_holds(case, form):
    step, example = step_of(matched(case, 3), form)
    program = Program(step, example(3), fixed=1)
    assert_counted(program, example(3))


@pytest.mark.parametrize("form", ["double_backward", "checkpointed"])
def test_peak_bytes_never_fall_short_where_weights_move(case, form):
    """Gradients by weights, which come three at a time from a convolution, are most of what is held here."""
    problem = matched(case, 2, schedule=Schedule(images=1, epochs=2, learning_rate=0.1))
    step, example = step_of(problem, form)
    program = Program(step, example(2), fixed=1, recomputes=form == "checkpointed")
    assert_counted(program, example(2), excess=1.15)


def test_peak_bytes_are_right_where_a_function_writes_in_place():
    def function(x, y):
        z = x * 2
        z[:500].add_(1)
        z.mul_(3)
        return z.exp() + y

    program = Program(function, (draw(1000), draw(1)), fixed=1)
    assert program.peak_bytes == measured_bytes(program, (draw(1000), draw(1))) == 16_000


def test_the_peak_grows_linearly_with_the_lanes(case):
    peaks = []
    for lanes in (2, 4, 8):
        step, example = step_of(matched(case, lanes))
        peaks.append(Program(step, example(lanes), fixed=1).peak_bytes)
    assert peaks[1] > 1.5 * peaks[0]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.02)


def test_layers_are_rewritten_in_a_program_and_in_the_function_untraced():
    layer = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), nn.Hardswish(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
    layer = layer.double().eval()
    function = grad_and_value(lambda x, y: layer(x).square().sum() * y.sum())
    given = draw(2, 3, 12, 12), draw(1)
    program = Program(function, given, fixed=1)
    names = ran(program, *given)
    assert not {"native_batch_norm", "hardswish", "_adaptive_avg_pool2d"} & set(names)
    assert "pixel_unshuffle" in ran(untraced(function), *given)
    for found in (program(*given), untraced(function)(*given)):
        for a, b in zip(tree_leaves(found), tree_leaves(function(*given)), strict=True):
            assert torch.allclose(a, b, rtol=1e-12)
    assert ran(F.hardswish, given[1]) == ["hardswish"]
