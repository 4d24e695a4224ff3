"""What an attack that knows the defense changes in its objective."""

from __future__ import annotations

from torch import Tensor

from attacks.distances import Distance, cosine_distance, relative_squared_distance, squared_distance
from defenses.client import Update, squared_norm
from defenses.surrogate import Simulation

NOISE_PRIOR = 1.0
"""Inverse scale of the Laplace prior on differences of neighbouring pixels, in normalised space; chosen of .1, .3, 1, 3
and 10 on `cifar100-samples`, never on images that are scored."""
FAINTEST_SIGNAL = 0.01
"""The least part of the released update's squared norm that is taken for signal, where its estimate is near or below 0:
at that, the prior has won anyway."""


def penalty_unit(distance: Distance, observed: Update) -> Tensor | float:
    """What a squared distance of updates of norm 1 is worth in this distance, of which 1 - cosine is half."""
    if distance is relative_squared_distance:
        return 1.0
    return 0.5 if distance is cosine_distance else squared_norm(observed)


def noise_prior_weight(
    distance: Distance, defense: Simulation, observed: Update, scale: float, pixels: int
) -> Tensor | float:
    """What has to be added to the total-variation weight for the noise in the observed update, a scalar.

    The most likely image minimises |p - o|^2 / 2s^2 + k n TV(x) with prediction p, observation o, noise of deviation s,
    n pixels and a Laplace prior of inverse scale k on pixel differences. Beside |p - o|^2 the prior then weighs 2 k n
    s^2. At fixed norms |p - o|^2 / 2s^2 changes as |p| |o| (1 - cosine) / s^2, so that beside 1 - cosine it weighs
    k n s^2 / (|p| |o|); of |o|^2 the noise makes up about s^2 for each coordinate, and the rest estimates |p|^2.
    `observed` is the released update divided by `scale`. Other distances have no such weight: 0.
    """
    variance = (defense.noise_std / scale) ** 2
    if distance is squared_distance:
        return 2 * NOISE_PRIOR * pixels * variance
    if distance is relative_squared_distance:
        return 2 * NOISE_PRIOR * pixels * variance / squared_norm(observed).clamp_min(1e-30)
    if distance is not cosine_distance:
        return 0.0
    square = squared_norm(observed).clamp_min(1e-30)
    coordinates = sum(o.numel() for o in observed.values())
    signal = (1 - coordinates * variance / square).clamp_min(FAINTEST_SIGNAL)
    return NOISE_PRIOR * pixels * variance / (square * signal.sqrt())
