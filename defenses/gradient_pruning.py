"""Sending only the largest entries of the update."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor

from defenses.client import Defense, Task, Update


@dataclass(frozen=True)
class GradientPruning(Defense):
    """Set the `ratio` of entries that are smallest in magnitude to zero.

    `scope = "layer"` prunes each parameter tensor by itself, "model" all of them together (Zhu et al.,
    "Deep Leakage from Gradients", NeurIPS 2019, section 5.2; Lin et al., "Deep Gradient Compression", ICLR 2018).
    Of n entries floor(ratio n) are removed and at least one is kept; among equal magnitudes the earlier entry,
    in row-major order and order of the parameters, is kept.
    """

    ratio: float
    scope: Literal["layer", "model"] = "layer"

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio must lie in [0, 1), got {self.ratio}; 0 shares the whole gradient")

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        if self.scope == "layer":
            return {name: u * self._kept(u.flatten()).view_as(u) for name, u in update.items()}
        kept = self._kept(torch.cat([u.flatten() for u in update.values()]))
        masks = kept.split([u.numel() for u in update.values()])
        return {name: u * m.view_as(u) for (name, u), m in zip(update.items(), masks, strict=True)}

    def _kept(self, entries: Tensor) -> Tensor:
        """1 where an entry of the flat tensor is kept, else 0."""
        # The small constant undoes binary rounding: .9 of 10 entries is 9, not 8.
        removed = min(math.floor(self.ratio * len(entries) + 1e-6), len(entries) - 1)
        largest_first = entries.abs().argsort(descending=True, stable=True)
        mask = torch.zeros_like(entries)
        mask[largest_first[: len(entries) - removed]] = 1
        return mask
