"""What batch-norm layers see of a batch: their inputs, and the statistics of them that a client may send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from defenses.client import Params, Task

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(model: nn.Module) -> dict[str, nn.Module]:
    """The batch-norm layers of a model by name; empty for a model without."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BATCH_NORMS)}


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
    """What t clients send of their batches (t b c h w) in [0, 1]: of every batch-norm layer's input, its moments.

    Named "<layer>.mean" and "<layer>.variance", each (t, channels). They are those of one forward pass in eval mode
    under `params`: with local steps, of the whole batch under the weights that the client received. No defense changes
    them.
    """
    sent: dict[str, list[Tensor]] = {}
    for batch in images:
        with batch_norm_inputs(task.model) as inputs, torch.no_grad():
            task.logits(params, batch)
        for name, values in inputs.items():
            for what, moment in zip(("mean", "variance"), moments(values), strict=True):
                sent.setdefault(f"{name}.{what}", []).append(moment)
    return {name: torch.stack(each) for name, each in sent.items()}
