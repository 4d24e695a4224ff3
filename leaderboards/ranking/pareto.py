"""Privacy against accuracy: where every defense stands, and which of them no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboards.evidence.question import Question
from leaderboards.ranking.accuracy import LEAST_SEEDS, Estimate
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.ranking import rule_set_of
from leaderboards.ranking.verdicts import RankingRule, missing, sound
from leaderboards.statistics.intervals import Summary

LINEAR_LOSS = 5.0
"""Points of accuracy lost up to which an axis is linear, then logarithmic: updates of zeros or noise lose fifty."""


@dataclass(frozen=True)
class Point:
    """A defense as a point in the plane of accuracy lost and leakage."""

    defense: str
    """The defense's label."""
    lost: Estimate
    """Test accuracy lost, in percentage points, as the rules compare it."""
    gain: Summary
    """SSIM gain of the strongest attack."""
    epsilon: float
    """NaN without a proof."""
    claims: bool
    """True if the evidence speaks for the defense: it is whole, of at least three seeds, mostly not underpowered, no
    certificate is broken, and no verdict takes its rank."""
    broken: bool
    """True if the certificate is broken."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The positions of the points that no other beats, by rising first figure; of both figures less is better.

    A point is beaten by one that is no worse in both and better in one: equal points stay together. Points with a NaN
    are left out and beat nobody.
    """
    known = [i for i, point in enumerate(points) if not np.isnan(point).any()]
    beats = lambda a, b: a[0] <= b[0] and a[1] <= b[1] and a != b  # noqa: E731
    kept = [i for i in known if not any(beats(tuple(points[j]), tuple(points[i])) for j in known)]
    return sorted(kept, key=lambda i: (*points[i], i))


def points_of(question: Question, costs: RunCosts, rule: RankingRule | None = None) -> dict[str, Point]:
    """Defense -> point, for those with an accuracy lost and a gain."""
    rule, found = rule or RankingRule(), {}
    rules = rule_set_of(rule)
    for evidence in question.defenses:
        row = question.row | evidence.row
        finished = sound(question, evidence)
        gain = rules.leakage(finished).gain
        training = costs.trained.get((row["dataset"], row["model"], row["defense"]))
        price = None if training is None else training.price(rule.weighs_equal_images)
        if np.isnan(gain.mean) or price is None or price.lost_reason:
            continue
        broken = costs.broken(row)
        powered = float(finished.underpowered.mean()) <= rule.underpowered_share
        whole = not (missing(question, evidence, rule) or costs.untested(row)) and price.lost.n >= LEAST_SEEDS
        own = costs.of(row)
        barred = rules.verdicts(question, evidence, rule, own) & rules.unranked
        epsilon = own.stated_epsilon(rule.states_attacked_releases)
        found[row["defense"]] = Point(
            row["defense"], price.lost, gain, epsilon, whole and powered and not (broken or barred), broken
        )
    return found
