"""Gaussian noise on the released update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from defenses.defense import Defense
from defenses.surrogate import Surrogate
from defenses.task import Task, Update


@dataclass(frozen=True)
class GaussianNoise(Defense):
    """Add independent Gaussian noise of standard deviation `std` to every entry of the update.

    A heuristic: without clipping there is no guarantee (Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019,
    section 5.1). `std` is in units of the released update, so strengths compare within one protocol only.
    """

    std: float

    def __post_init__(self) -> None:
        if not 0 <= self.std < float("inf"):
            raise ValueError(f"std must be at least 0 and finite, got {self.std}")

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u + self.std * torch.randn(u.shape, generator=rng, dtype=u.dtype) for name, u in update.items()}

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        sent = [self.transform(task, {name: u[i] for name, u in updates.items()}, rng) for i, rng in enumerate(rngs)]
        return {name: torch.stack([each[name] for each in sent]) for name in updates}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(noise_std=self.std)
