"""Distances between a simulated and the observed update, and their form for an attack that knows the defense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.surrogate import Simulation
from defenses.task import Update, squared_norm

FAINTEST_SIGNAL = 0.01
"""The least part of the released update's squared norm that is taken for signal, where its estimate is near or below 0:
at that, the prior has won anyway."""
NOISE_PRIOR = 1.0
"""Inverse scale of the Laplace prior on differences of neighbouring pixels, in normalised space; chosen of .1, .3, 1, 3
and 10 on `cifar100-samples`, never on images that are scored."""
_TINY = 1e-30
"""Below the square of any float32 gradient that matters; its root is still representable."""

Measure = Callable[[Update, Update], Tensor]
"""A scalar, from the predicted and the observed update of one lane."""


def _no_nat(observed: Update, variance: float) -> float:
    return 0.0


def _in_squares(value: Tensor, excess: Tensor, observed: Update) -> Tensor:
    return value + squared_norm(observed) * excess


@dataclass(frozen=True)
class Distance:
    """A measure of updates, with the two conversions that an attack on a known defense needs.

    A plain function of two updates has the defaults.
    """

    measure: Measure
    """The distance of the predicted from the observed update of one lane, a scalar."""
    nat: Callable[[Update, float], Tensor | float] = _no_nat
    """`nat(observed, variance)`: the worth in this distance of a nat of the log-likelihood of Gaussian noise of this
    variance in every coordinate. The prior is weighed by it; 0: nothing is known, or the prior is weighed already."""
    penalised: Callable[[Tensor, Tensor, Update], Tensor] = _in_squares
    """`penalised(value, excess, observed)`: the distance when a squared distance `excess` of updates of norm 1 comes on
    top of its own `value`."""

    def __call__(self, predicted: Update, observed: Update) -> Tensor:
        """The distance of one lane's updates, a scalar."""
        return self.measure(predicted, observed)


def gaussian_likelihood(variance: float) -> Distance:
    """The negative log-density of the observed update around the predicted one, per coordinate and up to a constant.

    Every coordinate has independent Gaussian noise of this `variance`, in the squared units of the updates that are
    compared: with N coordinates and r = p - o the value is |r|^2 / (2 N variance), about 1/2 at the truth in every
    network and at every noise. A variance of 0 says that it is not known; then it is profiled out. Of
    N/2 log(v) + |r|^2 / 2v the least over v lies at v = |r|^2 / N, where it is N/2 log(|r|^2 / N) + N/2 (Murphy & van
    der Vaart, "On Profile Likelihood", JASA 2000), so that the value is 1/2 log(|r|^2 / N): the closer the prediction,
    the less a prior counts beside it. Of the N coordinates the n that were pruned have no residual: then the value is
    (N - n) / 2N log(|r|^2 / (N - n)). What is left of v where the prediction is exact is the rounding of numbers.
    """
    if not 0 <= variance < float("inf"):
        raise ValueError(f"variance must be at least 0 and finite, got {variance}; 0 says that it is not known")
    if not variance:
        return Distance(_profile_likelihood, penalised=_in_likely_squares)
    unit = lambda observed: 0.5 / (variance * _coordinates(observed))  # noqa: E731
    return Distance(
        lambda predicted, observed: unit(observed) * _squared_distance(predicted, observed),
        penalised=lambda value, excess, observed: value + unit(observed) * squared_norm(observed) * excess,
    )


def _cosine_distance(predicted: Update, observed: Update) -> Tensor:
    inner = _sum(p * o for p, o in _pairs(predicted, observed))
    predicted_square = _sum(p.square() for p in predicted.values()).clamp_min(_TINY)
    observed_square = _sum(o.square() for o in observed.values()).clamp_min(_TINY)
    return 1 - inner * (predicted_square.rsqrt() * observed_square.rsqrt())


def _cosine_nat(observed: Update, variance: float) -> Tensor:
    """At fixed norms |p - o|^2 / 2s^2 changes as |p| |o| (1 - cosine) / s^2, with |p|^2 estimated from |o|^2.

    Of |o|^2 the noise makes up about s^2 for each coordinate, and the rest is the signal's.
    """
    square = squared_norm(observed).clamp_min(_TINY)
    signal = (1 - _coordinates(observed) * variance / square).clamp_min(FAINTEST_SIGNAL)
    return variance / (square * signal.sqrt())


def _squared_distance(predicted: Update, observed: Update) -> Tensor:
    return _sum((p - o).square() for p, o in _pairs(predicted, observed))


def _profile_likelihood(predicted: Update, observed: Update) -> Tensor:
    square, kept = _squared_distance(predicted, observed) + _rounding(observed), _compared(predicted, observed)
    return 0.5 * kept / _coordinates(observed) * (square / kept).log()


def _in_likely_squares(value: Tensor, excess: Tensor, observed: Update) -> Tensor:
    """The excess is one more residual of the same unknown variance: it goes into the logarithm."""
    # Whatever has a penalty predicts nothing for what was pruned.
    kept, all_of_them = _compared(observed, observed), _coordinates(observed)
    square = (2 * value * all_of_them / kept).exp() * kept
    return value + 0.5 * kept / all_of_them * (squared_norm(observed) * excess / square).log1p()


def _compared(predicted: Update, observed: Update) -> Tensor:
    """The number of coordinates that tell of the variance: not those that were pruned, 0 predicted and 0 observed."""
    told = [(p != 0) | (o != 0) for p, o in _pairs(predicted, observed)]
    return _sum(t.to(next(iter(observed.values())).dtype) for t in told).clamp_min(1)


def _rounding(observed: Update) -> Tensor:
    """Below this squared distance two updates differ by rounding alone."""
    return torch.finfo(next(iter(observed.values())).dtype).eps ** 2 * squared_norm(observed) + _TINY


def _coordinates(update: Update) -> int:
    return sum(u.numel() for u in update.values())


def _pairs(predicted: Update, observed: Update) -> list[tuple[Tensor, Tensor]]:
    return [(p, observed[name]) for name, p in predicted.items()]


def _sum(terms) -> Tensor:
    return torch.stack([term.sum() for term in terms]).sum()


cosine_distance = Distance(
    _cosine_distance, nat=_cosine_nat, penalised=lambda value, excess, observed: value + 0.5 * excess
)
"""1 - cosine over all parameters at once, in [0, 2] (Geiping et al., NeurIPS 2020, eq. 4); 1 if either is zero.

Of updates of norm 1 it is half the squared distance.
"""
squared_distance = Distance(_squared_distance, nat=lambda observed, variance: 2 * variance)
"""Sum of squared differences over all parameters (Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019)."""
relative_squared_distance = Distance(
    lambda predicted, observed: _squared_distance(predicted, observed) / squared_norm(observed).clamp_min(_TINY),
    nat=lambda observed, variance: 2 * variance / squared_norm(observed).clamp_min(_TINY),
    penalised=lambda value, excess, observed: value + excess,
)
"""The squared distance as a fraction of the observed update's squared norm: 1 where the prediction is zero.

Weights of priors beside it mean the same for every network, batch and protocol.
"""


def adapted(distance: Distance | Measure) -> Distance:
    """The distance with what adapting needs: a plain function is told the defaults."""
    return distance if isinstance(distance, Distance) else Distance(distance)


def noise_prior_weight(
    distance: Distance | Measure, defense: Simulation, observed: Update, scale: float, pixels: int
) -> Tensor | float:
    """The part of the total-variation weight that the noise in the observed update asks for, a scalar.

    The most likely image minimises |p - o|^2 / 2s^2 + k n TV(x) with prediction p, observation o, noise of deviation s,
    n pixels and a Laplace prior of inverse scale k on pixel differences. The first term is in nats: beside a distance
    the prior weighs k n times what a nat is worth in it. `observed` is the released update divided by `scale`.
    """
    variance = (defense.noise_std / scale) ** 2
    return NOISE_PRIOR * pixels * adapted(distance).nat(observed, variance)
