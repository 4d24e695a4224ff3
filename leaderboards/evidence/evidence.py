"""Evidence about one defense: the strongest attack above its own floors, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.record import HEADLINE, Record, Variant
from leaderboards.statistics.comparison import independent
from leaderboards.statistics.intervals import Summary, summarise_units
from leaderboards.statistics.summary import Row


@dataclass(frozen=True)
class Evidence:
    """All attempts on one defense in one question."""

    row: Row
    attempts: tuple[Attempt, ...]
    groups: np.ndarray
    """The client's batch of each image in each seed (s n)."""
    records: tuple[Record, ...]

    @cached_property
    def of_images(self) -> list[Attempt]:
        """The attempts on images: what labels alone give away is no leakage of pixels."""
        return [a for a in self.attempts if not a.recovers_labels]

    @property
    def labels_found(self) -> float:
        """Share of the labels that the best attempt on them found; NaN where nobody looked for them."""
        found = [float(a.labels.mean()) for a in self.attempts if a.recovers_labels or not np.isnan(a.labels).all()]
        return max((share for share in found if not np.isnan(share)), default=np.nan)

    def attempt(self, variant: Variant) -> Attempt | None:
        return next((a for a in self.attempts if a.variant == variant), None)

    def excess(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the largest gain `among` the attempts, below 0 where all of them stay under their floors."""
        return _largest([a.gain(metric) for a in self.among(adaptive)], self.groups.shape[1])

    def gain(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the `excess`, of the headline metric at least 0; NaN without.

        A real attacker would fall back to the control, so negative gains are clipped to 0: a reconstruction far below
        its floor is no better protected than one at the floor. Rates are left as they are: some tries succeed by luck.
        """
        excess = self.excess(metric, adaptive)
        return np.maximum(excess, 0) if metric == HEADLINE else excess

    def score(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the score of the attempt with the largest gain."""
        return self._of_strongest(metric, [a.score[metric] for a in self.among(adaptive)], adaptive)

    def summarised(self, values: np.ndarray, rate: bool = False) -> Summary | None:
        """Mean and interval of one value per image (n,), over what is independent; None unless every image has one."""
        if not len(values) or np.isnan(values).any():
            return None
        return summarise_units(values, independent(values, self.groups), rate)

    @property
    def floor(self) -> float:
        """The mean headline score of the controls that the strongest attempts stand above; NaN without."""
        return float(self._of_strongest(HEADLINE, [a.floor[HEADLINE] for a in self.of_images]).mean())

    def among(self, adaptive: bool | None) -> list[Attempt]:
        """All attempts (None); each attack as published, with the least that it was granted; or with the most.

        With the most there are none unless one of them simulates all of the defense.
        """
        if adaptive is None:
            return self.of_images
        if adaptive and not any(a.adapts for a in self.of_images):
            return []
        granted = lambda a: (a.adapts, sum(a.variant[1:]))  # noqa: E731
        by_attack: dict[str, list[Attempt]] = {}
        for attempt in self.of_images:
            by_attack.setdefault(attempt.variant[0], []).append(attempt)
        return [(max if adaptive else min)(own, key=granted) for own in by_attack.values()]

    @property
    def chance(self) -> np.ndarray:
        """Per image (n,) what as many attacks gain without having looked at it: the largest `chance`, at least 0."""
        return np.maximum(_largest([a.chance for a in self.of_images], self.groups.shape[1]), 0)

    @property
    def underpowered(self) -> np.ndarray:
        """Per image (n,) whether an attempt ended worse than at the truth, and none that did not gains as much.

        An attempt without an objective says nothing of this.
        """
        n = self.groups.shape[1]
        gains = [np.where(np.isnan(a.gain(HEADLINE)), -np.inf, a.gain(HEADLINE)) for a in self.of_images]
        weak, strong = np.full(n, -np.inf), np.full(n, -np.inf)
        for attempt, gain in zip(self.of_images, gains, strict=True):
            weak = np.where(attempt.underpowered > 0, np.maximum(weak, gain), weak)
            strong = np.where(attempt.underpowered == 0, np.maximum(strong, gain), strong)
        return weak > strong

    @property
    def strongest(self) -> Variant | None:
        """The attempt that is strongest on most images."""
        there = ~np.isnan(self.gain(HEADLINE))
        if not there.any():
            return None
        return self.of_images[int(np.bincount(self._winners(HEADLINE)[there]).argmax())].variant

    def _winners(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        gains = np.stack([a.gain(metric) for a in self.among(adaptive)])
        return np.where(np.isnan(gains), -np.inf, gains).argmax(axis=0)

    def _of_strongest(self, metric: str, values: list[np.ndarray], adaptive: bool | None = None) -> np.ndarray:
        if not values:
            return np.full(self.groups.shape[1], np.nan)
        chosen = np.take_along_axis(np.stack(values), self._winners(metric, adaptive)[None], axis=0)[0]
        return np.where(np.isnan(self.gain(metric, adaptive)), np.nan, chosen)


def _largest(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.fmax.reduce(values) if values else np.full(n, np.nan)
