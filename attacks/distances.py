"""How far a simulated update is from the observed one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from defenses.client import Update, squared_norm

Distance = Callable[[Update, Update], Tensor]
"""Of the predicted and the observed update of one lane, a scalar."""


def cosine_distance(predicted: Update, observed: Update) -> Tensor:
    """1 - cosine over all parameters at once, in [0, 2] (Geiping et al., NeurIPS 2020, eq. 4); 1 if either is zero."""
    inner = _sum(p * o for p, o in _pairs(predicted, observed))
    predicted_square = _sum(p.square() for p in predicted.values()).clamp_min(_TINY)
    observed_square = _sum(o.square() for o in observed.values()).clamp_min(_TINY)
    return 1 - inner * (predicted_square.rsqrt() * observed_square.rsqrt())


def squared_distance(predicted: Update, observed: Update) -> Tensor:
    """Sum of squared differences over all parameters (Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019)."""
    return _sum((p - o).square() for p, o in _pairs(predicted, observed))


def relative_squared_distance(predicted: Update, observed: Update) -> Tensor:
    """The squared distance as a fraction of the observed update's squared norm: 1 where the prediction is zero.

    Weights of priors beside it then mean the same for every network, batch and protocol.
    """
    return squared_distance(predicted, observed) / squared_norm(observed).clamp_min(_TINY)


_TINY = 1e-30  # below the square of any float32 gradient that matters; its root is still representable


def _pairs(predicted: Update, observed: Update) -> list[tuple[Tensor, Tensor]]:
    return [(p, observed[name]) for name, p in predicted.items()]


def _sum(terms) -> Tensor:
    return torch.stack([term.sum() for term in terms]).sum()
