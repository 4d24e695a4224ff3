"""Lanes: trials and restarts that run side by side, their seeded starting points, and the step run for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.engine.execution import Precision

Lanes = dict[str, Tensor]
"""Variable or evidence name -> (lanes, ...)."""


@dataclass(frozen=True)
class Step:
    """One iteration of a descent, to be run over and over."""

    forms: dict[str, Callable[..., Any]]
    """Equal functions of the arguments, the plain one first, of tensors nested in tuples and dicts."""
    arguments: Callable[[Lanes, Lanes], tuple[Any, ...]]
    """Makes the forms' arguments of the start and the evidence of all lanes."""
    fixed: int
    """The number of the argument that stays the same in every iteration."""
    iterations: int
    state_bytes: int = 0
    """Bytes that the loop keeps of a lane beside the arguments."""
    precision: Precision = "float32"
    """The precision of the network in these forms."""


def lanes_at(tensors: Lanes, index: Tensor, lanes: int) -> Lanes:
    """The lanes with these numbers; all `lanes` of them are in order."""
    if len(index) == lanes:
        return tensors
    return {name: t[index.to(t.device)] for name, t in tensors.items()}


def normal_starts(shapes: dict[str, tuple[int, ...]], seeds: list[int], restarts: int, like: Tensor) -> Lanes:
    """Standard normal (trials x restarts, *shape) for every name, on the device and in the type of `like`.

    Drawn on the CPU in float32, so that a start is the same on every device and in every precision.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    draws: dict[str, list[Tensor]] = {name: [] for name in shapes}
    for seed in seeds:
        rng = Generator().manual_seed(seed)
        for _ in range(restarts):
            for name, shape in shapes.items():
                draws[name].append(torch.randn(shape, generator=rng))
    return {name: torch.stack(drawn).to(like) for name, drawn in draws.items()}
