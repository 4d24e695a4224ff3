"""Starting points: every trial and restart has its own seeded draw, whatever else runs beside it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from attacks.lanes import Lanes


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
