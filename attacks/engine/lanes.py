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
    """One iteration, in `forms` that are equal functions of `arguments(start, evidence)`, the plain one first.

    It is run `iterations` times for every lane, always with the same argument number `fixed`. The forms take and return
    tensors nested in tuples and dicts. `state_bytes` is what the loop keeps of a lane beside the arguments; `precision`
    is that of the network in these forms.
    """

    forms: dict[str, Callable[..., Any]]
    arguments: Callable[[Lanes, Lanes], tuple[Any, ...]]
    fixed: int
    iterations: int
    state_bytes: int = 0
    precision: Precision = "float32"


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
