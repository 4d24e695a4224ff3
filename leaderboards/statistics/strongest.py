"""The gain of the strongest attack by mean above its strongest floor by mean, both chosen inside each resample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import numpy as np

from leaderboards.statistics.comparison import (
    BATCH,
    LEAST_RESAMPLES,
    common_units,
    holm,
    resampled,
    studentised,
    unit_means,
)
from leaderboards.statistics.intervals import LEAST_UNITS
from leaderboards.statistics.seeds import Interval, seed_half_width

CONTENDING = 3.0
"""Standard errors: an attack no further behind the strongest may be the strongest in truth. Below it an attack of no
use would widen the interval of one that works."""
LEAST_SPREAD = 0.5
"""Least standard deviation of a resample, by that of all units: of eight images some resamples hardly differ, and an
interval of gains reached 2.4. Of 300 means of eight beta(1/2, 2) units the 95% interval covers .917, .930 without it;
of twenty and of a hundred units no interval changes."""


@dataclass(frozen=True, eq=False)
class StrongestGain:
    """The attacks on one defense above their floors; the strongest by mean decides.

    Below, k pairs of an attack and one of its floors, s seeds, n images, a attacks, r resamples, u independent units.
    """

    differences: np.ndarray
    """Score minus floor, finite (k s n)."""
    attacks: np.ndarray
    """The attack of each pair: 0, 0, 1, ... (k,)."""
    groups: np.ndarray
    """The client's batch of each image in each seed (s n)."""

    @classmethod
    def of(cls, scores: Sequence[np.ndarray], floors: Sequence[np.ndarray], groups: np.ndarray) -> StrongestGain:
        """From the scores (s n) of each attack and those of its floors (f s n), f at least 1."""
        differences = [score - own for score, own in zip(scores, floors, strict=True)]
        counts = [len(own) for own in differences]
        return cls(np.concatenate(differences), np.repeat(np.arange(len(counts)), counts), groups)

    @classmethod
    def nothing(cls, groups: np.ndarray) -> StrongestGain:
        """A defense of which every attack is exactly at its floor."""
        return cls(np.zeros((1, *groups.shape)), np.zeros(1, dtype=np.int64), groups)

    @cached_property
    def images(self) -> np.ndarray:
        """The differences with seeds averaged (k n)."""
        return self.differences.mean(axis=1)

    @cached_property
    def of_attacks(self) -> np.ndarray:
        """Each attack's gain: above its strongest floor by mean (a,)."""
        return self._above_floors(self.images.mean(axis=1)[None])[0][0]

    @property
    def strongest(self) -> int:
        """The attack that is strongest by mean."""
        return int(self.of_attacks.argmax())

    @property
    def mean(self) -> float:
        """The gain of the strongest attack, below 0 where that stays under its floor."""
        return float(self.of_attacks.max())

    @property
    def chosen(self) -> int:
        """The pair of the strongest attack and its strongest floor."""
        return int(self._pairs[self.strongest])

    @property
    def by_seed(self) -> np.ndarray:
        """The gain of the `chosen` pair under each seed (s,)."""
        return self.differences[self.chosen].mean(axis=1)

    def interval(self, confidence: float = 0.95, resamples: int = LEAST_RESAMPLES) -> Interval | None:
        """The interval of the mean over images given these seeds: a bootstrap-t; None of too few units.

        The lower end takes every attack that may be the strongest for as strong as that: of many attacks of pure luck
        one seems to gain. With batches, distances are averaged over the seeds' dealings.
        """
        tail = (1 - confidence) / 2
        below, above = [], []
        for units in _dealings(self.groups, self.groups):
            if units.max() + 1 < LEAST_UNITS:
                return None
            zero = StrongestGain.nothing(self.groups)
            error = _spread(self, zero, units)
            luck, plain = (_studentised(self, zero, units, resamples, raised) for raised in (True, False))
            below.append(error * max(float(np.quantile(luck, 1 - tail, method="higher")), 0.0))
            above.append(error * max(-float(np.quantile(plain, tail, method="lower")), 0.0))
        return Interval(self.mean - float(np.mean(below)), self.mean + float(np.mean(above)))

    def over_seeds(self, confidence: float = 0.95, resamples: int = LEAST_RESAMPLES) -> Interval | None:
        """The interval over images and seeds; None of too few units or of one seed.

        MOVER (Zou and Donner, Statistics in Medicine 2008): the squared half-widths of the interval over images and of
        the seeds' own part are added.
        """
        given, seeds = self.interval(confidence, resamples), seed_half_width(self.differences[self.chosen], confidence)
        if given is None or np.isnan(seeds):
            return None
        low, high = (float(np.hypot(end - self.mean, seeds)) for end in (given.low, given.high))
        return Interval(self.mean - low, self.mean + high)

    def is_below(self, limit: float, level: float) -> bool:
        """True if the mean is significantly below a limit, over images given these seeds, at a one-sided level."""
        interval = self.interval(1 - 2 * level)
        return interval is not None and interval.high < limit

    def is_above(self, limit: float, level: float) -> bool:
        """True if the mean is significantly above a limit, over images given these seeds, at a one-sided level."""
        interval = self.interval(1 - 2 * level)
        return interval is not None and interval.low > limit

    @property
    def samples(self) -> list[np.ndarray]:
        """The means of the independent units of the `chosen` pair, for each dealing into batches."""
        return [unit_means(self.images[self.chosen], units) for units in _dealings(self.groups, self.groups)]

    def resample(self, drawn: np.ndarray, units: np.ndarray, raised: bool) -> tuple[np.ndarray, np.ndarray]:
        """The gain of the strongest attack in each resample, and its pair: (r,) and (r,).

        `drawn` (r u) counts the units. `raised`: each attack that may be the strongest counts as if its mean were that
        of the strongest.
        """
        means = drawn @ np.stack([unit_means(own, units) for own in self.images]).T / drawn.shape[1]
        gains, pairs = self._above_floors(means)
        counted = gains + self._behind if raised else gains
        best = counted.argmax(axis=1)[:, None]
        value = np.take_along_axis(counted, best, axis=1)[:, 0]
        return value, np.take_along_axis(pairs, best, axis=1)[:, 0]

    def _above_floors(self, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From means of the pairs (r k) each attack's gain and the pair that it is of: (r a) and (r a)."""
        gains, pairs = [], []
        for attack in range(self.attacks.max() + 1):
            own = np.flatnonzero(self.attacks == attack)
            strongest = means[:, own].argmin(axis=1)
            gains.append(np.take_along_axis(means[:, own], strongest[:, None], axis=1)[:, 0])
            pairs.append(own[strongest])
        return np.stack(gains, axis=1), np.stack(pairs, axis=1)

    @cached_property
    def _pairs(self) -> np.ndarray:
        """The pair of each attack and its strongest floor (a,)."""
        return self._above_floors(self.images.mean(axis=1)[None])[1][0]

    @cached_property
    def _behind(self) -> np.ndarray:
        """The distance of each attack that may be the strongest from the strongest (a,); 0 of those that cannot be."""
        behind = self.mean - self.of_attacks
        apart = self.images[self.chosen] - self.images[self._pairs]
        return np.where(behind <= CONTENDING * apart.std(axis=1) / sqrt(apart.shape[1]), behind, 0.0)


def p_of_more(first: StrongestGain, second: StrongestGain, resamples: int = LEAST_RESAMPLES) -> float:
    """The p-value of chance as the reason why the first gains more than the second, seeds averaged.

    One-sided studentised bootstrap of the paired difference (as `comparison.lower_p_values`), the strongest attacks of
    both chosen inside each resample. Of several dealings into batches the largest counts; too few units show nothing.
    """
    found = 0.0
    for units in _dealings(first.groups, second.groups):
        count = int(units.max()) + 1
        if count < LEAST_UNITS:
            return 1.0
        error, difference = _spread(first, second, units), first.mean - second.mean
        observed = studentised(np.array([difference]), np.array([error]))[0]
        above = int((_studentised(first, second, units, resamples, True) >= observed).sum())
        found = max(found, (1 + above) / (resamples + 1), 0.5**count)
    return found


def gains_more(defenses: Sequence[StrongestGain], alpha: float = 0.05) -> np.ndarray:
    """True at (i, j) if j gains significantly more than i, and than nothing: (m m), one family of tests by Holm.

    Both must be significant over images with seeds averaged, and of one sign in every seed.
    """
    m = len(defenses)
    resamples = int(max(LEAST_RESAMPLES, 5 * m * (m - 1) / alpha))
    p_values, steady = np.ones((m, m)), np.zeros((m, m), dtype=bool)
    above_nothing = [p_of_more(own, StrongestGain.nothing(own.groups), resamples) for own in defenses]
    for i, less in enumerate(defenses):
        for j, more in enumerate(defenses):
            if i != j and more.mean > max(less.mean, 0.0):
                p_values[i, j] = max(above_nothing[j], p_of_more(more, less, resamples))
                steady[i, j] = bool((more.by_seed > np.maximum(less.by_seed, 0.0)).all())
    pairs = ~np.eye(m, dtype=bool)
    found = np.zeros((m, m), dtype=bool)
    found[pairs] = (holm(p_values[pairs]) <= alpha) & steady[pairs]
    return found


def _dealings(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """The independent units (n,) of both for each seed's dealing into batches (s n), each dealing once."""
    found = [common_units(own, other) for own, other in zip(first, second, strict=True)]
    return [np.array(units) for units in dict.fromkeys(tuple(units) for units in found)]


def _spread(first: StrongestGain, second: StrongestGain, units: np.ndarray) -> float:
    """Standard deviation over the units of the difference between both chosen pairs."""
    return float(unit_means(first.images[first.chosen] - second.images[second.chosen], units).std())


def _studentised(
    first: StrongestGain, second: StrongestGain, units: np.ndarray, resamples: int, raised: bool
) -> np.ndarray:
    """The resampled difference's distance from the difference, over its own standard deviation (r,)."""
    count, difference, found = int(units.max()) + 1, first.mean - second.mean, []
    for start in range(0, resamples, BATCH):
        drawn = resampled(count, min(BATCH, resamples - start), seed=start)
        (mine, own), (its, other) = first.resample(drawn, units, raised), second.resample(drawn, units, False)
        spread = np.zeros(len(drawn))
        pairs = own * len(second.attacks) + other
        for pair in np.unique(pairs):
            i, j = divmod(int(pair), len(second.attacks))
            means, rows = unit_means(first.images[i] - second.images[j], units), pairs == pair
            square = drawn[rows] @ np.square(means) / count - np.square(drawn[rows] @ means / count)
            spread[rows] = np.sqrt(np.maximum(square, 0)).clip(LEAST_SPREAD * means.std())
        found.append(studentised(mine - its - difference, spread))
    return np.concatenate(found)
