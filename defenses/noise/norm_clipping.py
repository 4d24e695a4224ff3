"""Clipping the norm of the released update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.func import vmap

from defenses.defense import Defense
from defenses.surrogate import Surrogate
from defenses.task import Task, Update


@dataclass(frozen=True)
class NormClipping(Defense):
    """Scale the update down to a Euclidean norm of at most `clip_norm`.

    `scope = "model"` clips the whole update at once, "layer" each parameter tensor by itself
    (Geyer et al., "Differentially Private Federated Learning: A Client Level Perspective", 2017). Clipping the
    whole update only rescales it: an attack that matches directions sees the same evidence.
    """

    clip_norm: float
    scope: Literal["model", "layer"] = "model"

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm < float("inf"):
            raise ValueError(f"clip_norm must be positive and finite, got {self.clip_norm}")

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return self.clipped(update)

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        return vmap(self.clipped)(updates)

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(predict=self.clipped)

    def clipped(self, update: Update) -> Update:
        """The update at its new norm."""
        if self.scope == "model":
            whole = torch.linalg.vector_norm(torch.cat([u.flatten() for u in update.values()]))
            return {name: u * self._factor(whole) for name, u in update.items()}
        return {name: u * self._factor(torch.linalg.vector_norm(u)) for name, u in update.items()}

    def _factor(self, norm: Tensor) -> Tensor:
        return self.clip_norm / norm.clamp_min(self.clip_norm)  # with a slope even where the norm is zero
