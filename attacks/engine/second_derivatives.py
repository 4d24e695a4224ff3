"""Layers written so that their second derivatives are cheap; every rewriting is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor, is_functorch_wrapped_tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def strided_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
) -> Tensor:
    """A convolution (n c h w) of this stride, as one of stride 1 on the pixels of each stride x stride square.

    The squares become channels (pixel unshuffle; Shi et al., CVPR 2016, run backwards) and the kernel is cut the same
    way, padded with zeros. Gradients of a strided convolution with few channels are several times slower.
    """
    kernel = tuple(-(-k // stride) * stride for k in weight.shape[2:])
    rows, columns = (
        ((side + 2 * pad - own) // stride) * stride + whole
        for side, pad, own, whole in zip(x.shape[-2:], padding, weight.shape[2:], kernel, strict=True)
    )
    (above, left), (height, width) = padding, x.shape[-2:]
    padded = F.pad(x, (left, columns - width - left, above, rows - height - above))
    whole = F.pad(weight, (0, kernel[1] - weight.shape[3], 0, kernel[0] - weight.shape[2]))
    return F.conv2d(F.pixel_unshuffle(padded, stride), F.pixel_unshuffle(whole, stride), bias)


class CheapSecondDerivatives(TorchFunctionMode):
    """Inside this block networks compute the same function from operators that differentiate twice at low cost.

    Large kernels with a stride become kernels of stride 1, batch norm in eval mode a scale and a shift, global average
    pooling a mean, and hard sigmoids, whose derivative torch cannot differentiate, and swishes clamps.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replaced = _REPLACEMENTS.get(func)
        result = NotImplemented if replaced is None else replaced(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if result is NotImplemented else result


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    (down, right), pads = _pair(stride), padding if isinstance(padding, str) else _pair(padding)
    # Kernels under 5 would grow by more than the stride costs: 3x3 becomes 4x4, 1x1 2x2.
    small = min(weight.shape[2:]) < 5
    if down != right or down == 1 or groups != 1 or _pair(dilation) != (1, 1) or small or isinstance(pads, str):
        return NotImplemented
    # Nothing is gained where every lane has a kernel of its own, which would be cut anew each time, unless it sees so
    # few channels that torch is slowest.
    if input.dim() != 4 or (weight.shape[1] >= 8 and _is_mapped(weight)):
        return NotImplemented
    return strided_convolution(input, weight, bias, down, pads)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        return NotImplemented
    shape = [-1] + [1] * (input.dim() - 2)
    value = (input - running_mean.view(shape)) * torch.rsqrt(running_var + eps).view(shape)
    value = value if weight is None else value * weight.view(shape)
    return value if bias is None else value + bias.view(shape)


def _adaptive_average(input: Tensor, output_size: Any) -> Tensor:
    return input.mean((-2, -1), keepdim=True) if _pair(output_size) == (1, 1) else NotImplemented


# Both leave the input as it is even where they are asked to write over it: its value is needed for second derivatives.
def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return (input / 6 + 0.5).clamp(0, 1)


def _hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    return input * (input / 6 + 0.5).clamp(0, 1)


def _is_mapped(tensor: Tensor) -> bool:
    """True if `torch.func.vmap` runs over this tensor, under whatever else torch.func has wrapped it in."""
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return True
        tensor = get_unwrapped(tensor)
    return False


def _pair(value: Any) -> tuple[Any, Any]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return (values[0], values[-1])


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    torch.conv2d: _conv2d,
    F.batch_norm: _batch_norm,
    F.adaptive_avg_pool2d: _adaptive_average,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
}
