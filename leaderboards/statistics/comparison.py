"""Comparisons of the means of several methods on the same images, with p-values for what chance alone explains."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from leaderboards.statistics.intervals import LEAST_UNITS, summarise_units

LEAST_RESAMPLES = 9_999
"""Bootstrap resamples. Many comparisons need more, so that the smallest p-value can pass Holm's first step."""
BATCH = 10_000
"""Resamples that are in memory at once."""


def common_units(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """The finest grouping (n,) in which both groupings (n,) of the same images are nested, counted from 0.

    Images that one update held together are not independent of each other; a pair of methods with other batches is
    compared by groups that cut no batch of either.
    """
    a, b = (np.unique(np.asarray(groups), return_inverse=True)[1] for groups in (first, second))
    nodes = a.max() + b.max() + 2
    graph = coo_array((np.ones(len(a)), (a, a.max() + 1 + b)), shape=(nodes, nodes))
    return np.unique(connected_components(graph, directed=False)[1][a], return_inverse=True)[1]


def shared_units(groups: ArrayLike) -> np.ndarray:
    """The least number (m m) of `common_units` of any two of m methods over the seeds of `groups` (m s n)."""
    groups = np.asarray(groups)
    pair = lambda a, b: min(int(common_units(x, y).max()) + 1 for x, y in zip(a, b, strict=True))  # noqa: E731
    return np.array([[pair(a, b) for b in groups] for a in groups])


def unit_means(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """One value per unit (u,), such that their plain mean is the mean of the values (n,), however unequal the units."""
    return np.bincount(units, weights=values) * (units.max() + 1) / len(values)


@lru_cache(maxsize=4)
def resampled(units: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Counts of every unit in bootstrap resamples: (resamples, units)."""
    rng = np.random.default_rng([seed, units])
    return rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def independent(values: np.ndarray, groups: ArrayLike) -> list[np.ndarray]:
    """The means of the independent units for each seed's dealing, from values (n,) and batches (s n)."""
    if _alone(groups):
        return [values]
    return [unit_means(values, np.unique(own, return_inverse=True)[1]) for own in np.asarray(groups)]


def ratio(part: np.ndarray, whole: np.ndarray, groups: ArrayLike, whole_groups: ArrayLike) -> tuple[float, ...] | None:
    """The ratio of two means over the same images (n,) with its 95% interval, both means resampled together.

    None where the interval of the denominator contains 0, or where too few units have no interval.
    """
    below, above = summarise_units(whole, independent(whole, whole_groups)), []
    if not (below.low > 0 or below.high < 0):
        return None
    for own, other in zip(np.asarray(groups), np.asarray(whole_groups), strict=True):
        units = common_units(own, other)
        if units.max() + 1 < LEAST_UNITS:
            return None
        drawn = resampled(int(units.max()) + 1, LEAST_RESAMPLES)
        above.append(np.percentile((drawn @ unit_means(part, units)) / (drawn @ unit_means(whole, units)), [2.5, 97.5]))
    return part.mean() / whole.mean(), *np.mean(above, axis=0)


def lower_p_values(scores: ArrayLike, groups: ArrayLike, alpha: float = 0.05) -> np.ndarray:
    """p[i, j] (m m): how well chance explains that method i scores lower than method j; 1 on the diagonal.

    `scores` (m n) of m methods on the same n images, finite; `groups` (m s n) names the batch of each image in each of
    s seeds. One-sided studentised bootstrap of the paired differences over `common_units` (Efron & Tibshirani, "An
    Introduction to the Bootstrap", 1993, section 16.4). Seeds deal the images into other batches: the largest p-value
    of all seeds counts. Fewer than `LEAST_UNITS` units show nothing: 1. With u units no p-value is below 2^-u, that of
    u differences of one sign.
    """
    scores, groups = np.asarray(scores, dtype=np.float64), np.asarray(groups)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, got {np.sum(~np.isfinite(scores))} that are not; score them first")
    methods, seeds = len(scores), groups.shape[1]
    resamples = int(max(LEAST_RESAMPLES, 5 * methods * (methods - 1) / alpha))
    found = np.zeros((methods, methods))
    np.fill_diagonal(found, 1.0)
    for seed in range(seeds):
        alike: dict[int, list[tuple[int, int, np.ndarray]]] = {}
        for i in range(methods):
            for j in range(i):
                units = common_units(groups[i, seed], groups[j, seed])
                means = unit_means(scores[i] - scores[j], units)
                alike.setdefault(len(means), []).append((i, j, means))
        for pairs in alike.values():
            lower, higher = _one_sided(np.stack([means for _, _, means in pairs]), resamples)
            for (i, j, _), below, above in zip(pairs, lower, higher, strict=True):
                found[i, j], found[j, i] = max(found[i, j], below), max(found[j, i], above)
    return found


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values of a family of tests, same shape (Holm, Scandinavian Journal of Statistics 1979)."""
    values = np.asarray(p_values, dtype=np.float64)
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    steps = np.maximum.accumulate(flat[order] * np.arange(len(flat), 0, -1))
    adjusted = np.empty_like(flat)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted.reshape(values.shape)


def significantly_lower(scores: ArrayLike, groups: ArrayLike, alpha: float = 0.05) -> np.ndarray:
    """True at (i, j) if method i scores significantly lower than j: (m m), one family of m (m - 1) tests by Holm."""
    p_values = lower_p_values(scores, groups, alpha)
    found = np.zeros(p_values.shape, dtype=bool)
    pairs = ~np.eye(len(found), dtype=bool)
    found[pairs] = holm(p_values[pairs]) <= alpha
    return found


def _alone(groups: ArrayLike) -> bool:
    """True if every image is an update of its own in every seed (s n)."""
    return all(len(np.unique(own)) == len(own) for own in np.asarray(groups))


def _one_sided(differences: np.ndarray, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """p-values (k,) for means of the rows (k u) below 0, and above 0."""
    units = differences.shape[1]
    if units < LEAST_UNITS:
        return np.ones(len(differences)), np.ones(len(differences))
    mean = differences.mean(axis=1)
    observed = studentised(mean, differences.std(axis=1))
    below, above = np.ones(len(differences)), np.ones(len(differences))
    for start in range(0, resamples, BATCH):
        drawn = resampled(units, min(BATCH, resamples - start), seed=start)
        means = drawn @ differences.T / units
        spread = np.sqrt(np.maximum(drawn @ np.square(differences).T / units - np.square(means), 0))
        shifted = studentised(means - mean, spread)
        below += (shifted <= observed).sum(axis=0)
        above += (shifted >= observed).sum(axis=0)
    least = 0.5**units
    return np.maximum(below / (resamples + 1), least), np.maximum(above / (resamples + 1), least)


def studentised(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Mean over spread; without any spread 0 or infinite."""
    # Differences of equal figures leave rounding behind: what is below it is nothing.
    mean = np.where(np.abs(mean) < 1e-12, 0.0, mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / np.where(spread < 1e-12, 0.0, spread)
    return np.where(np.isnan(ratio), 0.0, ratio)
