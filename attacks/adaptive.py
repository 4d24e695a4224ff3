"""What an attack that knows the defense changes in its objective."""

from __future__ import annotations

from torch import Tensor

from attacks.distances import Distance, Measure
from defenses.client import Update
from defenses.surrogate import Simulation

NOISE_PRIOR = 1.0
"""Inverse scale of the Laplace prior on differences of neighbouring pixels, in normalised space; chosen of .1, .3, 1, 3
and 10 on `cifar100-samples`, never on images that are scored."""


def adapted(distance: Distance | Measure) -> Distance:
    """The distance with what adapting needs: a plain function is told the defaults."""
    return distance if isinstance(distance, Distance) else Distance(distance)


def noise_prior_weight(
    distance: Distance | Measure, defense: Simulation, observed: Update, scale: float, pixels: int
) -> Tensor | float:
    """What has to be added to the total-variation weight for the noise in the observed update, a scalar.

    The most likely image minimises |p - o|^2 / 2s^2 + k n TV(x) with prediction p, observation o, noise of deviation s,
    n pixels and a Laplace prior of inverse scale k on pixel differences. The first term is in nats: beside a distance
    the prior weighs k n times what a nat is worth in it. `observed` is the released update divided by `scale`.
    """
    variance = (defense.noise_std / scale) ** 2
    return NOISE_PRIOR * pixels * adapted(distance).nat(observed, variance)
