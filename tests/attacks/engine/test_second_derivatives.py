"""Layers under `CheapSecondDerivatives` compute what torch's own compute, and so do their derivatives."""

import pytest
import torch
from torch import nn
from torch.func import grad, vmap
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from attacks.engine.second_derivatives import CheapSecondDerivatives


class Operations(TorchDispatchMode):
    """Every operation that torch runs inside the block: its name and its arguments."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))

    @property
    def names(self):
        return [name for name, _ in self.seen]

    @property
    def strides(self):
        """Of every convolution, the distinct numbers of its stride."""
        return [set(args[3]) for name, args in self.seen if name == "convolution"]


def operations(function, *inputs):
    with CheapSecondDerivatives(), Operations() as seen:
        function(*inputs)
    return seen


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def derivatives(function, *inputs):
    """The value of a function of tensors, the gradient of a curved sum over it, and the slope of that gradient."""
    leaves = [t.clone().requires_grad_() for t in inputs]
    value = function(*leaves)
    probe = draw(*value.shape, seed=1)
    first = torch.autograd.grad((value.square() * probe + value).sum(), leaves, create_graph=True)
    along = sum((g * draw(*g.shape, seed=2 + i)).sum() for i, g in enumerate(first))
    return [t.detach() for t in (value, *first, *torch.autograd.grad(along, leaves))]


def rewritten(function, *inputs):
    with CheapSecondDerivatives():
        return derivatives(function, *inputs)


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) <= 1e-12 * (1 + float(b.abs().max()))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        ((16, 16), (5, 5), 2, (2, 2)),  # LeNet
        ((17, 17), (7, 7), 2, (3, 3)),  # the stem of a ResNet
        ((15, 12), (5, 5), 2, (0, 0)),
        ((13, 18), (6, 6), 2, (1, 2)),
        ((14, 11), (6, 6), 3, (2, 0)),
        ((19, 16), (7, 7), 4, (2, 2)),
        ((23, 23), (11, 11), 4, (2, 2)),  # AlexNet's stem, on a small image
        ((16, 13), (5, 7), 2, (2, 3)),
        ((13, 15), (7, 5), 3, (3, 2)),
        ((12, 17), (5, 6), 4, (0, 3)),
        ((16, 16), (5, 5), 4, (0, 0)),  # pixels at the edge that no kernel reaches
        ((5, 7), (5, 7), 3, (0, 0)),  # one output
        ((4, 3), (7, 5), 2, (3, 2)),  # a kernel larger than the image
        ((9, 9), (5, 5), 7, (1, 1)),  # a stride beyond the kernel
    ],
)
def test_a_strided_convolution_equals_torch_s_in_value_gradient_and_second_derivative(
    side, kernel, stride, padding, bias
):
    inputs = [draw(2, 3, *side), draw(4, 3, *kernel, seed=5)] + [draw(4, seed=6)] * bias
    function = lambda x, w, b=None: F.conv2d(x, w, b, stride, padding)
    assert_equal(rewritten(function, *inputs), derivatives(function, *inputs))
    assert operations(function, *inputs).strides == [{1}]


def test_a_convolution_layer_with_arguments_by_name_is_rewritten_too():
    layer = nn.Conv2d(3, 4, 5, stride=2, padding=2, dtype=torch.float64)
    by_name = lambda x: F.conv2d(input=x, weight=layer.weight, bias=layer.bias, stride=(2, 2), padding=2)
    assert_equal(rewritten(by_name, draw(1, 3, 9, 9)), derivatives(layer, draw(1, 3, 9, 9)))
    assert operations(layer, draw(1, 3, 9, 9)).strides == [{1}]


KEPT = {
    "stride 1": (lambda x, w: F.conv2d(x, w, padding=2), 5, 1),
    "dilation": (lambda x, w: F.conv2d(x, w, stride=2, dilation=2), 5, 1),
    "groups": (lambda x, w: F.conv2d(x, w, stride=2, groups=2), 5, 2),
    "unequal strides": (lambda x, w: F.conv2d(x, w, stride=(2, 3)), 5, 1),
    "padding valid": (lambda x, w: F.conv2d(x, w, stride=2, padding="valid"), 5, 1),
    "padding same": (lambda x, w: F.conv2d(x, w, padding="same"), 5, 1),
    "kernel of 3": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), 3, 1),
    "kernel of 1": (lambda x, w: F.conv2d(x, w, stride=2), 1, 1),
    "one side of 4": (lambda x, w: F.conv2d(x, w[..., :4], stride=2), 5, 1),
    "one image alone": (lambda x, w: F.conv2d(x[0], w, stride=2), 5, 1),
}


@pytest.mark.parametrize(("function", "kernel", "groups"), KEPT.values(), ids=KEPT)
def test_other_convolutions_are_left_as_they_are(function, kernel, groups):
    inputs = draw(2, 4, 16, 16), draw(6, 4 // groups, kernel, kernel, seed=1)
    with Operations() as plain:
        expected = function(*inputs)
    with CheapSecondDerivatives():
        found = function(*inputs)
    assert torch.equal(found, expected)
    assert operations(function, *inputs).names == plain.names


@pytest.mark.parametrize(("channels", "strides"), [(3, {1}), (8, {2})])
def test_kernels_of_each_lane_are_rewritten_only_for_few_channels(channels, strides):
    inputs = draw(5, 2, channels, 9, 9), draw(5, 4, channels, 5, 5, seed=1)
    function = vmap(lambda x, w: F.conv2d(x, w, stride=2, padding=2))
    assert_equal(rewritten(function, *inputs), derivatives(function, *inputs))
    assert operations(function, *inputs).strides == [strides]
    nested = vmap(grad(lambda w, x: F.conv2d(x, w, stride=2).sum()))
    assert operations(nested, *reversed(inputs)).strides[0] == strides


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 7), (2, 3, 5, 6)], ids=["vectors", "sequences", "images"])
def test_batch_norm_in_eval_mode_equals_torch_s_in_value_gradient_and_second_derivative(shape, affine):
    mean, variance = draw(3, seed=3), draw(3, seed=4).exp()
    inputs = [draw(*shape)] + [draw(3, seed=5), draw(3, seed=6)] * affine
    function = lambda x, w=None, b=None: F.batch_norm(x, mean, variance, w, b, eps=1e-3)
    assert_equal(rewritten(function, *inputs), derivatives(function, *inputs))
    assert "native_batch_norm" not in operations(function, *inputs).names


def test_the_layer_s_own_epsilon_counts():
    layer = nn.BatchNorm2d(3, eps=0.5, dtype=torch.float64).eval()
    with CheapSecondDerivatives():
        found = layer(draw(1, 3, 4, 4)).detach()
    assert_equal([found], [draw(1, 3, 4, 4) / 1.5**0.5])


def test_batch_norm_with_weight_or_bias_alone_takes_one_and_zero_for_the_other():
    """Torch's own has no second derivative then."""
    mean, variance, whole = draw(3, seed=3), draw(3, seed=4).exp(), torch.ones(3, dtype=torch.float64)
    norm = lambda x, weight=None, bias=None: F.batch_norm(x, mean, variance, weight, bias)
    inputs = draw(2, 3, 4, 4), draw(3, seed=5)
    alone = lambda x, p: norm(x, weight=p)
    assert_equal(rewritten(alone, *inputs), derivatives(lambda x, p: norm(x, p, 0 * whole), *inputs))
    alone = lambda x, p: norm(x, bias=p)
    assert_equal(rewritten(alone, *inputs), derivatives(lambda x, p: norm(x, whole, p), *inputs))


def test_batch_norm_in_train_mode_is_kept_and_still_moves_its_statistics():
    plain, other = (nn.BatchNorm2d(3, dtype=torch.float64) for _ in range(2))
    expected = plain(draw(4, 3, 5, 5))
    with CheapSecondDerivatives():
        found = other(draw(4, 3, 5, 5))
    assert torch.equal(found, expected)
    assert torch.equal(other.running_mean, plain.running_mean)
    assert float(other.running_mean.abs().min()) > 0


def test_batch_norm_without_running_statistics_is_kept():
    layer = nn.BatchNorm2d(3, track_running_stats=False, dtype=torch.float64).eval()
    assert_equal(rewritten(layer, draw(4, 3, 5, 5)), derivatives(layer, draw(4, 3, 5, 5)))
    assert "native_batch_norm" in operations(layer, draw(4, 3, 5, 5)).names


def test_eval_mode_without_statistics_is_torch_s_own_error():
    with CheapSecondDerivatives(), pytest.raises(RuntimeError, match="running_mean"):
        F.batch_norm(draw(4, 3), None, None)


@pytest.mark.parametrize("size", [1, (1, 1), 2, (1, 3), (None, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (3, 6, 6)], ids=["images", "one image"])
def test_adaptive_average_pooling_to_any_size_equals_torch_s(size, shape):
    function = lambda x: F.adaptive_avg_pool2d(x, size)
    assert_equal(rewritten(function, draw(*shape)), derivatives(function, draw(*shape)))


def test_pooling_to_one_pixel_is_a_mean_and_to_others_is_torch_s_own():
    assert operations(nn.AdaptiveAvgPool2d(1), draw(2, 3, 7, 7)).names == ["mean"]
    assert operations(nn.AdaptiveAvgPool2d((1, 2)), draw(2, 3, 7, 7)).names == ["_adaptive_avg_pool2d"]


POINTS = torch.tensor([-9.0, -3.0, -2.9, -1.0, 0.0, 0.3, 2.9, 3.0, 9.0], dtype=torch.float64)
INSIDE = (POINTS.abs() < 3).double()
HARD = {
    "hardsigmoid": (F.hardsigmoid, INSIDE / 6, 0 * INSIDE),
    "hardswish": (F.hardswish, INSIDE * (POINTS / 3 + 0.5) + (POINTS >= 3), INSIDE / 3),
}


@pytest.mark.parametrize(("function", "slope", "curvature"), HARD.values(), ids=HARD)
def test_hard_activations_equal_torch_s_and_now_differentiate_twice(function, slope, curvature):
    def slopes(x, create_graph=False):
        value = function(x)
        return value, torch.autograd.grad(value.sum(), x, create_graph=create_graph)[0]

    expected = slopes(POINTS.clone().requires_grad_())
    x = POINTS.clone().requires_grad_()
    with CheapSecondDerivatives():
        found = slopes(x, create_graph=True)
    assert_equal([found[0].detach()], [expected[0].detach()])
    assert torch.allclose(found[1].detach(), expected[1], rtol=1e-7, atol=0)  # torch's own sixth is in float32
    assert_equal([found[1].detach()], [slope])
    (second,) = torch.autograd.grad((found[1].square() / 2 + x).sum(), x)  # the slope of a line needs an x beside it
    assert_equal([second], [1 + slope * curvature])
    assert function.__name__ not in operations(function, POINTS).names


@pytest.mark.parametrize("layer", [nn.Hardsigmoid, nn.Hardswish], ids=lambda layer: layer.__name__)
def test_torch_func_takes_the_second_derivative_of_layers_with_hard_activations(layer):
    """Torch's own hard sigmoid has no derivative of its backward: mobilenet_v3 could not be attacked."""
    weight = draw(4, 4, seed=7) / 2
    loss = lambda w, x: layer()(x @ w).square().sum()
    mismatch = lambda x: torch.func.grad(loss)(weight, x).square().sum()
    x = draw(4)
    with CheapSecondDerivatives():
        found = torch.func.grad(mismatch)(x)
        step = 1e-6 * torch.eye(4, dtype=torch.float64)
        numeric = torch.stack([(mismatch(x + s) - mismatch(x - s)) / 2e-6 for s in step])
    assert torch.allclose(found, numeric, rtol=1e-6)


def test_outside_the_block_layers_are_torch_s_own():
    function = lambda x, w: F.conv2d(x, w, stride=2)
    inputs = draw(1, 3, 9, 9), draw(2, 3, 5, 5)
    assert operations(function, *inputs).strides == [{1}]
    with Operations() as seen:
        function(*inputs)
    assert seen.strides == [{2}]


@pytest.mark.parametrize("layer", [nn.Hardswish, nn.Hardsigmoid])
def test_hard_activations_that_write_over_their_input_differentiate_twice(layer):
    w, x = (torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))

    def slope(inplace):
        loss = lambda w, x: layer(inplace=inplace)(x @ w).square().sum()
        with CheapSecondDerivatives():
            return torch.func.grad(lambda x: torch.func.grad(loss)(w, x).square().sum())(x)

    assert torch.equal(slope(True), slope(False))
    assert slope(True).abs().max() > 0
