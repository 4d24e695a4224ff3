"""Epsilon of a client that adds Gaussian noise: what the noise proves, and of what."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import erfcx, ndtr, ndtri


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of one image of a client, against the server that it reports to.

    Two clients that differ in one image (`relation`: it is there, or its place is empty and adds nothing to the sum,
    which is still divided by the same public number) release updates so alike that for every set S of what the server
    may see, all rounds together, P(S) <= exp(epsilon) P'(S) + delta, either way round. Replacing an image removes one
    and adds another: the sum moves twice as far, which at rate 1 is the guarantee of half the noise multiplier.

    `steps` counts the noisy sums that an image enters; `noise_multiplier` is the noise's standard deviation over the
    clipping norm; `sampling_rate` 1 says that the server knows who takes part, so that nothing is amplified by
    sampling. `accountant` names the proof that gave `epsilon`, which is an upper bound: the true one may be smaller.

    Not covered: a person behind several images (k of them together have, at rate 1, the guarantee of noise k times as
    small); strengths and stopping times that were chosen by looking at the images; noise from a generator that the
    server can predict (a seeded run imitates a client, it does not protect one); what floating-point numbers give away
    (Mironov, CCS 2012); images that enter more rounds than were counted; the number of images, which is public.

    `mechanism` is "gaussian" where every release is a Gaussian mechanism of this noise multiplier: then Opacus'
    accountants and the bound on identification hold for it. `summable` says that each release is a bounded sum plus
    independent Gaussian noise and nothing else, so that the noise of several clients adds up in their sum (`summed`).
    """

    epsilon: float
    delta: float
    accountant: str
    steps: int
    noise_multiplier: float
    sampling_rate: float = 1.0
    unit: str = "image"
    relation: str = "add or remove one image"
    mechanism: str | None = None
    summable: bool = False


def gaussian_guarantee(noise_multiplier: float, steps: int, delta: float, sampling_rate: float = 1.0) -> Guarantee:
    """The guarantee of `steps` noisy sums, each of which holds an image with probability `sampling_rate`.

    Where every step holds the image, the closed form: it is exact, so no accountant can be tighter and right. Where
    each step draws its images independently (Poisson sampling), Renyi accounting: it is proven for adding and for
    removing. Opacus' PRV figure is tighter, but bounds removing only; its GDP figure is a limit and no bound.
    """
    if sampling_rate == 1:
        epsilon, accountant = gaussian_epsilon(noise_multiplier, steps, delta), "closed form"
    else:
        epsilon, accountant = rdp_epsilon(noise_multiplier, steps, delta, sampling_rate), "RDP"
    return Guarantee(epsilon, delta, accountant, steps, noise_multiplier, sampling_rate, mechanism="gaussian")


def summed(guarantee: Guarantee, clients: int) -> Guarantee | None:
    """The guarantee against whoever sees only the sum of `clients` honest clients' releases: a trusted aggregator.

    The sum holds the noise of all: `clients` independent Gaussians are one of sqrt(clients) times the deviation, and an
    image still moves it by one clipping norm. None where releases are more than a sum plus noise. That clients take
    part by a public schedule, not by independent draws, is why no sampling rate amplifies this.
    """
    if clients < 1:
        raise ValueError(f"clients must be at least 1, got {clients}")
    if not guarantee.summable:
        return None
    noise_multiplier = guarantee.noise_multiplier * clients**0.5
    return gaussian_guarantee(noise_multiplier, guarantee.steps, guarantee.delta, guarantee.sampling_rate)


def gaussian_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """The smallest epsilon of `steps` Gaussian mechanisms on the same images, each of sensitivity one clipping norm.

    Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", ICML 2018, theorem 8. Adaptively
    composed, T of them are one of noise multiplier / sqrt(T) (Dong, Roth and Su, "Gaussian Differential Privacy",
    2019, section 3: exact for the Gaussian mechanism itself; their central limit theorem is not used).
    """
    _check(noise_multiplier, steps, delta)
    mu = steps**0.5 / noise_multiplier
    if _gaussian_delta(0.0, mu) <= delta:
        return 0.0
    # Without its second term the theorem's delta is larger: the upper bracket is a bound already.
    low, high = 0.0, mu * (mu / 2 - float(ndtri(delta)))
    for _ in range(60):
        middle = low + (high - low) / 2
        if _gaussian_delta(middle, mu) <= delta:
            high = middle
        else:
            low = middle
    return high


def rdp_epsilon(noise_multiplier: float, steps: int, delta: float, sampling_rate: float = 1.0) -> float:
    """Opacus' Renyi accountant, an upper bound for adding and for removing an image.

    Mironov, Talwar and Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019; turned into
    epsilon by Balle et al., AISTATS 2020. Every order gives a bound; the smallest is taken.
    """
    from opacus.accountants import RDPAccountant

    _check(noise_multiplier, steps, delta, sampling_rate)
    # Opacus stops at 63, which cannot say less than epsilon .1 at delta 1e-5; beyond 1,024 binomials overflow.
    orders = [*RDPAccountant.DEFAULT_ALPHAS, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sampling_rate, steps)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the")  # A bound all the same.
        return max(0.0, float(accountant.get_epsilon(delta, alphas=orders)))


def prv_epsilon(noise_multiplier: float, steps: int, delta: float, sampling_rate: float = 1.0) -> float:
    """Opacus' upper estimate for removing an image, by composing privacy loss distributions: a second opinion.

    Gopi, Lee and Wutschitz, "Numerical Composition of Differential Privacy", NeurIPS 2021; the result holds a margin
    of .01 for numerical errors. Under sampling, adding an image is another distribution, which Opacus does not
    compose, and in general one direction need not cover the other (Lebeda et al., 2024, arXiv 2405.20769): no bound is
    published from it. Memory grows with epsilon: gigabytes from a noise multiplier of .001.
    """
    from opacus.accountants import PRVAccountant

    _check(noise_multiplier, steps, delta, sampling_rate)
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sampling_rate, steps)]
    with np.errstate(all="ignore"), warnings.catch_warnings():  # log(1 - q) at q = 1, and densities far out
        warnings.filterwarnings("ignore", message="Optimal order is the")  # Sizes the grid, generously.
        return float(accountant.get_epsilon(delta))


def _gaussian_delta(epsilon: float, mu: float) -> float:
    """Theorem 8 of Balle and Wang: Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu).

    exp(epsilon) overflows, so both terms are written over the first one's density, which they share.
    """
    upper, lower = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    density = math.exp(-upper * upper / 2) / 2
    second = float(erfcx(-lower / math.sqrt(2)))
    if upper < 0:
        return density * (float(erfcx(-upper / math.sqrt(2))) - second)
    return float(ndtr(upper)) - density * second


def _check(noise_multiplier: float, steps: int, delta: float, sampling_rate: float = 1.0) -> None:
    if not 0 < noise_multiplier < math.inf:
        raise ValueError(
            f"noise_multiplier must be positive and finite, got {noise_multiplier}; without noise nothing is guaranteed"
        )
    if not steps >= 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta}; choose it far below 1 / number of images")
    if not 0 < sampling_rate <= 1:
        raise ValueError(f"sampling_rate must lie in (0, 1], got {sampling_rate}; 1: every step holds every image")
