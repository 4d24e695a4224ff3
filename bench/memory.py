"""How much memory attacks may fill, and what one trial of a network takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from defenses.client import Params, Task

SHARE = 0.4
"""Part of the memory that the lanes of an attack may fill; the rest is for what operations need inside."""
COPIES = 8
"""Tensors of the size of each activation that an attack with a loop of its own is taken to hold; a cautious guess."""


def budget(device: torch.device) -> int:
    """Bytes that the lanes of an attack may fill.

    What is free at the moment does not enter, so that a run that is resumed is cut the same way.
    """
    if device.type == "cuda":
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(SHARE * min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_limit()))


def _container_limit() -> float:
    """Bytes that the control group of this process may use; infinite without a limit."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text().replace("max", "inf"))
    except (OSError, ValueError):
        return float("inf")


def trials_that_fit(task: Task, params: Params, restarts: int, device: torch.device) -> int:
    """Trials per chunk of an attack whose steps the engine does not see, from the activations of a forward pass."""
    weights = sum(p.numel() for p in params.values())
    floats = COPIES * activations(task, params) * task.schedule.images
    return max(1, int(budget(device) / (4 * task.schedule.steps * (floats + 4 * weights) * restarts)))


def activations(task: Task, params: Params) -> int:
    """Numbers that the layers of the network put out for one image."""
    floats = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal floats
        floats += output.numel() if isinstance(output, torch.Tensor) else 0

    handles = [m.register_forward_hook(count) for m in task.model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            # A batch norm that takes the batch's statistics may not work on one.
            images = min(2, task.schedule.images)
            task.logits(params, torch.zeros(images, *task.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return floats // images
