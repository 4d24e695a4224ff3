"""The rate that a defense's proof allows an adversary who picks among candidates, and the test of a measured one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import ndtr, ndtri
from scipy.stats import beta

SIGNIFICANCE = 0.001
"""The chance that correct code is called broken somewhere, over all levels that are tested together."""


def identification_bound(candidates: int, noise_multiplier: float, steps: int = 1) -> float:
    """The highest rate at which anybody picks the private image out of n equally likely `candidates`.

    Phi(Phi^-1(1/n) + sqrt(T)/s) for T noisy sums of noise multiplier s, adaptively composed. The proof: a candidate
    moves every sum from the one with an empty place by at most a clipping norm, so that no test tells P_i, the release
    of candidate i, from P_0, that of the empty place, better than one of N(sqrt(T)/s, 1) against N(0, 1): whatever
    event has probability a under P_0 has at most F(a) = Phi(Phi^-1(a) + sqrt(T)/s) under P_i (Dong, Roth and Su,
    "Gaussian Differential Privacy", 2019, sections 2 and 3). A guess divides all releases into regions R_i, whose
    probabilities under P_0 sum to 1. F is concave, being 1 less a trade-off curve, so by Jensen's inequality the mean
    of P_i(R_i) <= F(P_0(R_i)) over the candidates is at most F(1/n). The rest of the batch, and the order of its local
    steps, may be known: the argument holds given both. What is done to the release afterwards changes nothing.

    Adding or removing is enough: no pair of candidates is compared, only each of them with the empty place.
    """
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, got {candidates}; one candidate is always right")
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(
            f"noise_multiplier must be positive and finite, got {noise_multiplier}; without noise nothing is proven"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return float(ndtr(ndtri(1 / candidates) + steps**0.5 / noise_multiplier))


def lower_limit(successes: int, trials: int, levels: int = 1) -> float:
    """The least that the true rate behind so many successes is, in [0, 1]; too high with probability .001 / `levels`.

    One-sided limit of Clopper and Pearson (Biometrika, 1934), exact at every sample size. Trials need not be equally
    hard: as long as each succeeds with at most the bound's probability, given the earlier ones, so many successes are
    no likelier than under a binomial of the bound. `levels` counts what is tested together (Bonferroni).
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie between 0 and trials, {trials}, got {successes}")
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}; count the noise levels that are tested together")
    return 0.0 if successes == 0 else float(beta.ppf(SIGNIFICANCE / levels, successes, trials - successes + 1))


def is_broken(successes: int, trials: int, bound: float, levels: int = 1) -> bool:
    """True if so many successes show a true rate above the `bound`: a bug, or a side channel.

    A rate that is merely above the bound shows nothing. The best guess comes close to the bound (20 candidates with
    orthogonal gradients, noise 8: .063 of .064), so chance carries 200 trials of correct code over it about every other
    time: a plain comparison at the noise levels .25, .5, 1, 2, 4, 8 fails in 82% of runs of correct code, this in .1%
    at the most.
    """
    return lower_limit(successes, trials, levels) > bound


@dataclass(frozen=True)
class Identification:
    """The measured rate at which the private image was picked out of the candidates, and the rate that is proven."""

    candidates: int
    """Images among which the adversary picks in one trial."""
    trials: int
    """Picks, each among candidates of its own."""
    successes: int
    """Picks of the private image."""
    images: int
    """Images of the client, of which all but the private one were known."""
    noise_multiplier: float | None
    """The guarantee's for one update; None for a defense without a proof."""
    steps: int | None
    """The guarantee's for one update; None for a defense without a proof."""
    seed: int
    """The number from which the trials were drawn."""
    pool: int
    """Images of which candidates were drawn."""
    pool_digest: str
    """SHA-256 of those images and their labels."""
    weights_digest: str
    """SHA-256 of the attacked weights."""

    @property
    def rate(self) -> float:
        """The measured success rate, in [0, 1]; guessing gives `chance`."""
        return self.successes / self.trials

    @property
    def chance(self) -> float:
        return 1 / self.candidates

    @property
    def bound(self) -> float | None:
        """`identification_bound`; None where nothing is proven."""
        if self.noise_multiplier is None or self.steps is None:
            return None
        return identification_bound(self.candidates, self.noise_multiplier, self.steps)

    def lower_limit(self, levels: int = 1) -> float:
        """`lower_limit` of this measurement, of `levels` that are tested together."""
        return lower_limit(self.successes, self.trials, levels)

    def broken(self, levels: int = 1) -> bool:
        """True if the certificate is refuted, which one without a proof cannot be."""
        return self.bound is not None and is_broken(self.successes, self.trials, self.bound, levels)
