"""Seeds of weights as a source of chance beside images: each seed trains or draws another network."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy import stats

LEAST_SEEDS_OF_RANKS = 3
"""Seeds of weights below which nothing is said of other weights: two have a t of 12.7."""


@dataclass(frozen=True)
class Interval:
    """An interval of a mean."""

    low: float
    high: float


def seed_component(values: np.ndarray) -> float:
    """The variance between seeds of values (s n), beyond what the residuals of their means explain; at least 0.

    The residual is that of an additive model of image and seed; batches only make the component larger. NaN of one
    seed.
    """
    seeds, images = values.shape
    if seeds < 2 or images < 2:
        return np.nan
    means = values.mean(axis=1)
    rest = values - means[:, None] - values.mean(axis=0) + values.mean()
    residual = float(np.square(rest).sum()) / ((seeds - 1) * (images - 1))
    return max(0.0, float(means.var(ddof=1)) - residual / images)


def seed_half_width(values: np.ndarray, confidence: float = 0.95) -> float:
    """Half the width of the seeds' part of an interval of the mean of values (s n): a t of s - 1 degrees of freedom."""
    seeds = len(values)
    if seeds < 2:
        return np.nan
    return float(stats.t.ppf((1 + confidence) / 2, seeds - 1)) * sqrt(seed_component(values) / seeds)
