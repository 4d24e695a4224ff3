"""What attacks show of a defense, image by image: the strongest attack above its own floors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.comparison import independent
from bench.statistics import Summary, summary_of
from leaderboards.summary import SETTING, Row

METRICS = ("ssim", "identified")
"""What leakage is computed for; the first is the headline, by which defenses are ranked."""
KNOWLEDGE = ["schedule_known", "defense_known"]
"""Published facts: attacks with and without them are evidence of the same question."""
QUESTION = [name for name in SETTING if name not in KNOWLEDGE]
"""What the defenses of one ranking share: the client's secrets that the server is granted are part of the question."""
Variant = tuple[str, bool, bool]
"""An attack's label, and whether it was granted the local schedule and the defense."""


@dataclass(frozen=True)
class Attempt:
    """One attack, with one knowledge, on one defense: figures per image (n,) in the question's order of images.

    `score` and `floor` by metric: means over the seeds, NaN unless all of them are there; `floor` is the strongest of
    the controls that belong to the attack. `chance` is the SSIM of the attack's reconstructions of other images above
    its other controls. `underpowered` is above 0 where a seed's objective ended worse than at the truth, NaN without an
    objective. `whole` says whether every image of every seed has an SSIM, `controls` which floors belong to it and
    whether they are whole. `adapts` says whether it simulates all of the defense, `recovers_labels` that it is about
    labels alone; `labels` (n,) is how many of them it found, NaN where they were granted.
    """

    variant: Variant
    name: str
    parameters: str
    score: dict[str, np.ndarray]
    floor: dict[str, np.ndarray]
    chance: np.ndarray
    underpowered: np.ndarray
    skipped: bool
    reason: str
    whole: bool
    controls: dict[str, bool]
    adapts: bool
    recovers_labels: bool
    labels: np.ndarray

    def gain(self, metric: str) -> np.ndarray:
        return self.score[metric] - self.floor[metric]

    @property
    def label(self) -> str:
        label, *granted = self.variant
        return label + granted_text(*granted)


@dataclass(frozen=True)
class Evidence:
    """All attempts on one defense. `row` identifies it; `groups` (s n) names each image's batch in each seed."""

    row: Row
    attempts: tuple[Attempt, ...]
    groups: np.ndarray

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

        Whoever gets less from an update than from no update at all submits that: a reconstruction below its floor is
        no gain, and one further below is no better protected. Rates are left as they are: some tries succeed by luck.
        """
        excess = self.excess(metric, adaptive)
        return np.maximum(excess, 0) if metric == METRICS[0] else excess

    def score(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the score of the attempt with the largest gain."""
        return self._of_strongest(metric, [a.score[metric] for a in self.among(adaptive)], adaptive)

    def summarised(self, values: np.ndarray, rate: bool = False) -> Summary | None:
        """Mean and interval of one value per image (n,), over what is independent; None unless every image has one."""
        if not len(values) or np.isnan(values).any():
            return None
        return summary_of(values, independent(values, self.groups), rate)

    @property
    def floor(self) -> float:
        """The mean headline score of the controls that the strongest attempts stand above; NaN without."""
        return float(self._of_strongest(METRICS[0], [a.floor[METRICS[0]] for a in self.of_images]).mean())

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
        gains = [np.where(np.isnan(a.gain(METRICS[0])), -np.inf, a.gain(METRICS[0])) for a in self.of_images]
        weak, strong = np.full(n, -np.inf), np.full(n, -np.inf)
        for attempt, gain in zip(self.of_images, gains, strict=True):
            weak = np.where(attempt.underpowered > 0, np.maximum(weak, gain), weak)
            strong = np.where(attempt.underpowered == 0, np.maximum(strong, gain), strong)
        return weak > strong

    @property
    def strongest(self) -> str | None:
        """The attempt that is strongest on most images."""
        there = ~np.isnan(self.gain(METRICS[0]))
        return (
            self.of_images[int(np.bincount(self._winners(METRICS[0])[there]).argmax())].label if there.any() else None
        )

    def _winners(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        gains = np.stack([a.gain(metric) for a in self.among(adaptive)])
        return np.where(np.isnan(gains), -np.inf, gains).argmax(axis=0)

    def _of_strongest(self, metric: str, values: list[np.ndarray], adaptive: bool | None = None) -> np.ndarray:
        if not values:
            return np.full(self.groups.shape[1], np.nan)
        chosen = np.take_along_axis(np.stack(values), self._winners(metric, adaptive)[None], axis=0)[0]
        return np.where(np.isnan(self.gain(metric, adaptive)), np.nan, chosen)


@dataclass(frozen=True)
class Question:
    """One question of a run (its `QUESTION` columns), the image numbers asked about, and what is known per defense."""

    row: Row
    images: np.ndarray
    defenses: tuple[Evidence, ...]

    @cached_property
    def attempts(self) -> dict[Variant, list[Attempt]]:
        """Every attack that any defense faced, in the order of the grid."""
        found: dict[Variant, list[Attempt]] = {}
        for evidence in self.defenses:
            for attempt in evidence.attempts:
                found.setdefault(attempt.variant, []).append(attempt)
        return found

    @cached_property
    def undefended(self) -> Evidence | None:
        return next((e for e in self.defenses if e.row["defense_name"] == "none"), None)


def granted_text(schedule_known: bool, defense_known: bool) -> str:
    """What to write behind an attack's name."""
    return ("" if schedule_known else ", schedule not known") + (", defense known" if defense_known else "")


def _largest(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.fmax.reduce(values) if values else np.full(n, np.nan)
