"""The inputs of batch-norm layers, the statistics of a batch, and layers that normalise by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from defenses.schedule import Mode
from defenses.task import Classifier, Params, Task


class NormOfTheBatch(nn.Module):
    """Batch norm in train mode, (n, channels, ...), of the same parameters; it counts nothing, so it has no buffers.

    Written out in plain operations: the derivative of the forward-mode derivative of torch's own operator is wrong
    (seen in torch 2.14), and attacks take it. Raises ValueError, as torch does, for one value a channel.
    """

    running_mean: None = None
    running_var: None = None

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = layer.weight, layer.bias, layer.eps

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.numel() == inputs.shape[1]:
            raise ValueError(
                f"batch norm in train mode needs more than one value a channel, got a batch of shape "
                f'{tuple(inputs.shape)}; give the client more images, or set client.mode = "eval"'
            )
        shape = [-1] + [1] * (inputs.dim() - 2)
        mean, variance = moments(inputs)
        value = (inputs - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        value = value if self.weight is None else value * self.weight.view(shape)
        return value if self.bias is None else value + self.bias.view(shape)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


RUNNING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH_NORMS = (*RUNNING, NormOfTheBatch)


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch-norm layers of a model by name; empty for a model without."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BATCH_NORMS)}


def in_mode(model: Classifier, mode: Mode) -> Classifier:
    """The model, in eval mode, as a client in this mode computes with it; a copy where that differs."""
    if mode == "eval" or not batch_norms(model):
        return model
    changed = deepcopy(model)
    for name, layer in batch_norms(changed).items():
        if isinstance(layer, RUNNING):
            changed.set_submodule(name, NormOfTheBatch(layer))
    return changed


@contextmanager
def batch_norm_inputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside the block, every call of the model leaves the inputs of its batch-norm layers in the dict, by name.

    Afterwards the model is as it was. The call may be traced, differentiated and mapped by torch.func.
    """
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: inputs.__setitem__(name, given[0])

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in batch_norms(model).items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (channels,) of a layer's input (n, channels, ...), over all but the channels."""
    flat = inputs.transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    # Written out: a second derivative of `var` is a program of its own.
    return mean, (flat - mean[:, None]).square().mean(1)


def batch_statistics(task: Task, params: Params, images: Tensor) -> dict[str, Tensor]:
    """The moments of every batch-norm layer's input that t clients send of their batches (t b c h w) in [0, 1].

    Named "<layer>.mean" and "<layer>.variance", each (t, channels). They are those of one forward pass in the client's
    mode under `params`: with local steps, of the whole batch under the weights that the client received. No defense
    changes them.
    """
    sent: dict[str, list[Tensor]] = {}
    for batch in images:
        with batch_norm_inputs(task.model) as inputs, torch.no_grad():
            task.logits(params, batch)
        for name, values in inputs.items():
            for what, moment in zip(("mean", "variance"), moments(values), strict=True):
                sent.setdefault(f"{name}.{what}", []).append(moment)
    return {name: torch.stack(each) for name, each in sent.items()}
