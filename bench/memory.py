"""How many trials fit into memory at once."""

from __future__ import annotations

import os

import torch
from torch import nn

from defenses.client import Params, Task

SHARE = 0.4
"""Part of the memory that a chunk may fill."""
COPIES = 8
"""Tensors of the size of each activation that second derivatives keep alive; a cautious guess, to be measured."""


def trials_that_fit(task: Task, params: Params, restarts: int, device: torch.device) -> int:
    """Trials per chunk, from the activations of one forward pass and the memory that the machine has in all.

    What is free at the moment does not enter, so that a run that is resumed is cut the same way.
    """
    floats = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal floats
        floats += output.numel() if isinstance(output, torch.Tensor) else 0

    handles = [m.register_forward_hook(count) for m in task.model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            task.logits(params, torch.zeros(1, *task.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    weights = sum(p.numel() for p in params.values())
    steps = task.schedule.steps
    lane = 4 * steps * (COPIES * floats * task.schedule.images + 4 * weights)
    return max(1, int(SHARE * _total(device) / (lane * restarts)))


def _total(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
