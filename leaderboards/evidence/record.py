"""Stored results of one attack or control on one defense, and their figures by seed and image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.columns import HELD_OUT_FIGURES, facts_of, granted_text
from leaderboards.statistics.summary import Row

HEADLINE = "ssim"
"""The metric by which defenses are ranked."""
LEAKAGE_METRICS = (HEADLINE, "identified")
"""Metrics in which leakage is computed."""
POSITIVE_CONTROL = HELD_OUT_FIGURES[0]
"""The headline score of an attack's answers to held-out clients, against those clients' own images."""
EVIDENCE_FIGURES = (*LEAKAGE_METRICS, "underpowered", "label_accuracy", POSITIVE_CONTROL)
"""Columns of figures that evidence is made of, image by image."""
Variant = tuple[str, *tuple[bool, ...]]
"""An attack's label, and whether it was granted each of the published facts (`bench.columns.FACTS`)."""


@dataclass(frozen=True)
class Record:
    """Everything stored of one attack or control, granted one set of facts, on one defense.

    Arrays hold one value per stored row (k,): of an image under a seed, or of a failure.
    """

    row: Row
    seeds: np.ndarray
    images: np.ndarray
    """Number of the image; NaN of a failure."""
    trials: np.ndarray
    statuses: np.ndarray
    reasons: np.ndarray
    figures: Mapping[str, np.ndarray]

    @property
    def knowledge(self) -> tuple[bool, ...]:
        return facts_of(self.row)

    @property
    def done(self) -> np.ndarray:
        return self.statuses == "ok"

    def part(self, kept: np.ndarray) -> Record:
        """The rows where `kept` (k,) is true."""
        figures = {name: values[kept] for name, values in self.figures.items()}
        seeds, images, trials = self.seeds[kept], self.images[kept], self.trials[kept]
        return Record(self.row, seeds, images, trials, self.statuses[kept], self.reasons[kept], figures)

    def by_seed(self, metric: str, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """A metric of each image under each seed: (s n), NaN where one is missing or null."""
        values = self.figures[metric]
        there = self.done & ~np.isnan(values)
        table = np.full((len(seeds), len(images)), np.nan)
        # Backwards: of two values of one image and seed the first is left.
        places = np.searchsorted(seeds, self.seeds[there])[::-1], np.searchsorted(images, self.images[there])[::-1]
        table[places] = values[there][::-1]
        return table

    def is_whole(self, images: np.ndarray, seeds: np.ndarray) -> bool:
        """True if every image of every seed has a headline score."""
        if not self.done.all() or self.has_nulls:
            return False
        return set(zip(self.seeds, self.images, strict=True)) == {(seed, image) for seed in seeds for image in images}

    @property
    def has_nulls(self) -> bool:
        return bool(np.isnan(self.figures[HEADLINE]).any())

    @property
    def reason(self) -> str:
        """The reasons of what failed, or of what was not measured; "" without one."""
        unmeasured = "no SSIM, which needs images of 11 pixels a side" if self.has_nulls else ""
        return "; ".join(dict.fromkeys(str(reason) for reason in self.reasons if reason)) or unmeasured


def variant_text(variant: Variant) -> str:
    """An attack's label, and behind it what was granted."""
    label, *granted = variant
    return label + granted_text(*granted)
