"""Sending only the largest entries of the update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.func import vmap

from defenses.defense import Defense
from defenses.surrogate import Surrogate
from defenses.task import Task, Update, squared_norm


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
        return self._pruned(update)

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        return vmap(self._pruned)(updates)

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(predict=self._pruned, keep=_nonzero, penalty=self._excess)

    def _excess(self, predicted: Update, observed: Update) -> Tensor:
        """The squared excess of the prediction over the smallest entry kept, where an entry was pruned."""
        kept = _nonzero(observed)
        whole = _norm(observed)
        # What the kept entries make up is no measure where it is next to nothing.
        own = _norm({name: p * kept[name] for name, p in predicted.items()}).clamp_min(1e-3 * _norm(predicted))
        smallest = {name: torch.where(kept[name] > 0, o.abs(), whole).amin() for name, o in observed.items()}
        if self.scope == "model":
            smallest = dict.fromkeys(smallest, torch.stack(list(smallest.values())).amin())
        excess = {
            name: ((1 - kept[name]) * (p / own).abs() - smallest[name] / whole).clamp_min(0)
            for name, p in predicted.items()
        }
        return squared_norm(excess)

    def _pruned(self, update: Update) -> Update:
        if self.scope == "layer":
            return {name: u * self._kept(u.flatten()).view_as(u) for name, u in update.items()}
        kept = self._kept(torch.cat([u.flatten() for u in update.values()]))
        masks = kept.split([u.numel() for u in update.values()])
        return {name: u * m.view_as(u) for (name, u), m in zip(update.items(), masks, strict=True)}

    def _kept(self, entries: Tensor) -> Tensor:
        """1 where an entry of the flat tensor is kept, else 0."""
        # The small constant undoes binary rounding: .9 of 10 entries is 9, not 8.
        removed = min(math.floor(self.ratio * len(entries) + 1e-6), len(entries) - 1)
        kept, size = len(entries) - removed, entries.detach().abs()
        smallest = size.topk(kept).values[-1]  # a third of the time of sorting them all
        above, equal = size > smallest, size == smallest
        # Of equal entries the first are kept.
        return (above | (equal & (equal.cumsum(0) <= kept - above.sum()))).to(entries.dtype)


def _nonzero(update: Update) -> Update:
    return {name: (u != 0).to(u.dtype) for name, u in update.items()}


def _norm(update: Update) -> Tensor:
    # A zero has no direction: without the small constant its norm has no derivative.
    return (squared_norm(update) + 1e-30).sqrt()
