"""A defense's place in one question: what it leaks, what it costs, its rank, and what limits all of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE, Variant
from leaderboards.ranking.costs import Price
from leaderboards.ranking.verdicts import Verdict
from leaderboards.statistics.intervals import UNKNOWN, Summary


@dataclass(frozen=True)
class Rank:
    """A rank, with the ranks that the comparisons leave open."""

    lowest: int
    """1 + the defenses that leak significantly less."""
    highest: int
    """The highest rank that the comparisons leave open."""


@dataclass(frozen=True)
class Standing:
    """One defense in one question, as one set of rules sees it; a share or a rate that is not known is NaN."""

    question: Question
    evidence: Evidence
    price: Price
    rank: Rank | None
    """None where `unranked`, `incomplete` or a verdict says why."""
    unranked: str
    """The reason for which nobody is ranked on this question; "" where somebody is."""
    incomplete: str
    """The results that this defense's own evidence lacks, in words; "" where nothing is missing."""
    verdicts: frozenset[Verdict]
    """Everything that limits what its evidence claims."""
    incomparable: int | None
    """Ranked defenses with which too few independent units are shared to be compared: they tie."""
    strongest: Variant | None
    """The finished attack that is strongest: on most images, or by its mean."""
    finished: Mapping[str, Summary]
    """By metric the gain of the attacks that finished: a lower bound of the gain of all."""
    is_whole: bool
    """True if these are all attacks that the rules ask for."""
    excess: Summary
    """The headline gain with images under their floor counted as they are."""
    given_seeds: Summary
    """By rules 2 the headline gain with its interval over images alone, given these seeds of weights."""
    by_seed: tuple[float, ...]
    """By rules 2 the headline gain under each seed of weights."""
    worst_case: float
    """The mean over images of the largest gain on each, at least 0: more than the gain by luck alone."""
    chance: float
    """The `worst_case` of as many attacks with reconstructions of other images: luck alone."""
    of_undefended: tuple[float, ...]
    """Ratio to the undefended gain with its interval, empty where that may be 0."""
    not_adapting: float
    """Headline gain of the attacks as published."""
    adapting: float
    """Headline gain of the attacks with all the knowledge that they were granted; NaN unless one simulates all."""
    underpowered: float
    """Share of images whose strongest attack ended above its objective at the truth."""
    identified: float
    """Share of images that are the nearest to their reconstruction by the strongest attack."""
    labels_found: float
    """Share of the labels that the best attack on them found."""

    @property
    def defense(self) -> str:
        return self.evidence.row["defense"]

    @property
    def is_undefended(self) -> bool:
        return self.evidence.row["defense_name"] == "none"

    def gain_in(self, metric: str) -> Summary:
        """The gain in a metric; unknown unless all attacks that the rules ask for have finished."""
        return self.finished[metric] if self.is_whole else UNKNOWN

    @property
    def gain(self) -> Summary:
        """The headline gain, by which defenses are ranked."""
        return self.gain_in(HEADLINE)

    @property
    def shown_gain(self) -> float:
        """The headline gain, or what the attacks that finished show of it."""
        return self.finished[HEADLINE].mean

    @property
    def is_lower_bound(self) -> bool:
        """True if a better optimiser, or an attack that did not finish, might get more than `shown_gain`."""
        return self.underpowered > 0 or np.isnan(self.gain.mean)
