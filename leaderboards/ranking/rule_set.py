"""A set of rules as a class: the leakage, verdicts and comparisons that it makes of evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import Variant
from leaderboards.ranking.costs import Price
from leaderboards.ranking.verdicts import RankingRule, Verdict
from leaderboards.statistics.intervals import UNKNOWN, Summary


@dataclass(frozen=True)
class Leakage:
    """The leakage that the attacks on one defense show, in the headline metric."""

    gain: Summary
    """The gain of the strongest attack, at least 0, by which defenses are ranked."""
    excess: Summary
    """The same before it is clamped at 0."""
    images: np.ndarray
    """A value of each image (n,), of which a ratio of two gains is made; NaN without."""
    strongest: Variant | None
    """The attack that counts as the strongest."""
    not_adapting: float
    """The gain of the attacks as published."""
    adapting: float
    """The gain of the attacks with all the knowledge that they were granted; NaN unless one simulates all."""
    given_seeds: Summary = UNKNOWN
    """The gain with its interval over images given these seeds, where `gain` has one over images and seeds."""
    by_seed: tuple[float, ...] = ()
    """The gain under each seed of weights; empty where the rules average seeds first."""


class RuleSet(ABC):
    """One set of rules about gains, verdicts and ranks."""

    unranked: frozenset[Verdict]
    """The verdicts that take a defense's rank; the others limit what a rank claims."""

    @abstractmethod
    def leakage(self, finished: Evidence) -> Leakage:
        """The leakage that the attacks that finished show; unknown where none has both a score and a floor."""

    @abstractmethod
    def leaks_less(self, finished: Sequence[Evidence], alpha: float) -> np.ndarray:
        """True at (i, j) if i leaks significantly less than j (m m)."""

    @abstractmethod
    def problems(self, question: Question, rule: RankingRule) -> list[str]:
        """The reasons of these rules, beside missing results, for which nobody is ranked on a question."""

    @abstractmethod
    def verdicts(self, question: Question, evidence: Evidence, rule: RankingRule, price: Price) -> frozenset[Verdict]:
        """The verdicts of these rules on a defense, beside those that all rules share."""
