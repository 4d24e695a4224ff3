"""Means over images and seeds, with bootstrap intervals over what is independent."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 4_999
"""Bootstrap resamples of an interval."""
RATES = ("identified", "identified_by_likelihood", "recovered", "underpowered")
"""Metrics that are 0 or 1 for an image: a bootstrap of twenty successes would call them certain."""
LEAST_UNITS = 5
"""Resamples of fewer independent units say nothing of the spread: two batches gave intervals of a tenth of their SD."""


def interval(values: ArrayLike, confidence: float = 0.95, seed: int = 0) -> tuple[float, float] | None:
    """BCa bootstrap interval of the mean of `values` (n,), one value per independent unit.

    Bias-corrected and accelerated (Efron, JASA 1987). Constant values have no bootstrap distribution: then
    low and high are the value itself. Fewer than `LEAST_UNITS` units have no interval: None. Where BCa is undefined
    (every resampled mean on one side of the mean) the percentile interval is returned. Raises ValueError on
    NaN: a failed unit is never averaged away.

    Coverage of the 95% interval, measured on exponential units and on beta(1/2, 2) ones: 94.2% and 94.9% at n = 100
    (4,000 simulations each), but 91.5% and 93.3% at n = 20 (10,000 each): of twenty skewed units it is too short.
    """
    units = np.asarray(values, dtype=np.float64).ravel()
    if not np.isfinite(units).all():
        raise ValueError(f"values must be finite, got {np.sum(~np.isfinite(units))} that are not; score them first")
    if len(units) < LEAST_UNITS:
        return None
    # Seeds averaged to the same value may differ in their last digit.
    if np.ptp(units) <= 1e-12 * np.abs(units).max():
        return float(units.mean()), float(units.mean())
    low, high = _bootstrap(tuple(units), confidence, seed, "BCa")
    if not np.isfinite([low, high]).all():
        low, high = _bootstrap(tuple(units), confidence, seed, "percentile")
    return low, high


@dataclass(frozen=True)
class Summary:
    """The mean of one metric over the images of one cell, with its spread and 95% interval."""

    mean: float
    """NaN of a null metric."""
    sd: float
    """Standard deviation over images; NaN of one image."""
    n: int
    """Number of images."""
    units: int
    """Number of independent units, of which the interval is made."""
    low: float
    """Lower end of the interval; NaN of too few units."""
    high: float
    """Upper end of the interval; NaN of too few units."""


UNKNOWN = Summary(np.nan, np.nan, 0, 0, np.nan, np.nan)
"""The summary of what has no value."""


def whole_mean(values: np.ndarray) -> float:
    """The mean of one value per image (n,); NaN unless every image has one."""
    return float(values.mean()) if len(values) and not np.isnan(values).any() else np.nan


def summarise_metric(frame: pd.DataFrame, metric: str) -> Summary:
    """The mean of `metric` over the rows of one cell, all of its seeds together.

    Needs the columns image, seed, trial, images_per_update. Seeds are averaged within an image first, so `n`
    and `sd` count images, never image x seed. The images of one update are reconstructed together: with
    several of them the unit of the interval is the client's batch. Each seed deals the same images into other
    batches, which are therefore not independent of the first seed's: the interval's two distances from the
    mean are averaged over seeds, with the batches of one seed as units.
    One null leaves the whole metric null, with n = 0.
    """
    values = np.asarray(frame[metric], dtype=np.float64)
    image, seed, trial = (np.asarray(frame[name]) for name in ("image", "seed", "trial"))
    if len(values) == 0 or np.isnan(values).any():
        return Summary(np.nan, np.nan, 0, 0, np.nan, np.nan)
    images = _means(values, image)
    if (np.asarray(frame["images_per_update"]) == 1).all():
        samples = [images]
    else:
        samples = [_means(values[seed == s], trial[seed == s]) for s in np.unique(seed)]
    return summarise_units(images, samples, rate=metric in RATES)


def summarise_units(images: np.ndarray, samples: list[np.ndarray], rate: bool = False) -> Summary:
    """The summary of one value per image (n,); a `rate` is 0 or 1 for an image.

    `samples` holds, for each dealing of the images into batches, the means of its independent units (units,).
    """
    mean, n, units = float(images.mean()), len(images), min(len(sample) for sample in samples)
    sd = float(images.std(ddof=1)) if n > 1 else np.nan
    if rate:
        return Summary(mean, sd, n, units, *_rate_bounds(samples))
    bounds = [interval(sample) or (np.nan, np.nan) for sample in samples]
    low, high = np.mean([np.subtract(b, s.mean()) for b, s in zip(bounds, samples, strict=True)], axis=0)
    return Summary(mean, sd, n, units, mean + float(low), mean + float(high))


def _rate_bounds(samples: list[np.ndarray]) -> tuple[float, float]:
    """Clopper-Pearson for independent successes; the bootstrap for shares of seeds or batches, if they differ."""
    if len(samples) == 1 and np.isin(samples[0], (0.0, 1.0)).all():
        bounds = stats.binomtest(int(samples[0].sum()), len(samples[0])).proportion_ci(0.95, method="exact")
        return bounds.low, bounds.high
    if any(np.ptp(sample) == 0 for sample in samples):
        return np.nan, np.nan
    bounds = [interval(sample) or (np.nan, np.nan) for sample in samples]
    mean = float(np.mean([s.mean() for s in samples]))
    low, high = np.mean([np.subtract(b, s.mean()) for b, s in zip(bounds, samples, strict=True)], axis=0)
    return mean + float(low), mean + float(high)


def _means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean of the values of each group, in sorted order."""
    _, position = np.unique(groups, return_inverse=True)
    return np.bincount(position, weights=values) / np.bincount(position)


# A run's end asks for the same intervals for the table and for each plot.
@lru_cache(maxsize=8192)
def _bootstrap(units: tuple[float, ...], confidence: float, seed: int, method: str) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (np.array(units),),
            np.mean,
            n_resamples=RESAMPLES,
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
