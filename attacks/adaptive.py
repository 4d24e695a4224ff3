"""What an attack that knows the defense changes in its objective."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.distances import Distance, cosine_distance
from defenses.client import Update
from defenses.surrogate import Surrogate

NOISE_PRIOR = 1.0
"""Inverse scale of the Laplace prior on differences of neighbouring pixels, in normalised space; tuned on
`cifar100-samples`, never on images that are scored."""
FAINTEST_SIGNAL = 0.01
"""The least part of the released update's squared norm that is taken for signal: no estimate of it is below 0."""


def adaptive_distance(distance: Distance, surrogate: Surrogate, predicted: Update, observed: Update) -> Tensor:
    """The distance on the coordinates that were kept, and what the others say all the same.

    `predicted` and `observed` are in the same units, one lane each.
    """
    if surrogate.keep is None:
        return distance(predicted, observed)
    kept = surrogate.keep(observed)
    own = {name: p * kept[name] for name, p in predicted.items()}
    value = distance(own, {name: o * kept[name] for name, o in observed.items()})
    if surrogate.penalty is None:
        return value
    # The penalty is in squared distances of updates of norm 1; 1 - cosine is half of one.
    unit = 0.5 if distance is cosine_distance else _square(observed)
    return value + unit * surrogate.penalty(predicted, observed)


def noise_prior_weight(surrogate: Surrogate, observed: Update, noise_std: float, pixels: int) -> Tensor:
    """What has to be added to the total-variation weight of the cosine objective for the noise in the update, a scalar.

    The most likely image minimises |p - o|^2 / 2s^2 + k n TV(x) with prediction p, observation o, noise of deviation s,
    n pixels and a Laplace prior of inverse scale k on pixel differences. At fixed norms the first term is
    |p| |o| (1 - cosine) / s^2, so that beside 1 - cosine the prior weighs k n s^2 / (|p| |o|). Of |o|^2 the noise makes
    up about s^2 for each coordinate kept; the rest estimates |p|^2.
    """
    square = _square(observed)
    kept = {name: torch.ones_like(o) for name, o in observed.items()}
    if surrogate.keep is not None:
        kept = surrogate.keep(observed)
    coordinates = torch.stack([mask.sum() for mask in kept.values()]).sum()
    signal = (1 - coordinates * noise_std**2 / square).clamp_min(FAINTEST_SIGNAL)
    return NOISE_PRIOR * pixels * noise_std**2 / (square * signal.sqrt())


def _square(update: Update) -> Tensor:
    return torch.stack([u.square().sum() for u in update.values()]).sum()
