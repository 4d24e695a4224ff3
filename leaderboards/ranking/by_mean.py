"""Rules 2: the strongest attack is chosen by its mean over images and seeds, and the gain is clamped at 0 last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.ranking.audit import able, inconsistent, is_audited, strongest_gain, surrogate_beaten
from leaderboards.ranking.costs import Price
from leaderboards.ranking.rule_set import Leakage, RuleSet
from leaderboards.ranking.verdicts import RankingRule, Verdict, lacking, of_images, required_variants, sound
from leaderboards.statistics.intervals import UNKNOWN, Summary, summarise_units
from leaderboards.statistics.seeds import Interval
from leaderboards.statistics.strongest import StrongestGain, gains_more

WITHOUT_PUBLIC = "no attack here has public images; add threat.public or a folder with a training half"
"""The reason for which nobody is ranked where no attack knows what a floor might."""
BLIND = -0.02
"""SSIM from its floor below which the strongest attack does not even fall back to what the floor knows."""


class ByMean(RuleSet):
    """An attack's gain is its mean minus that of its strongest floor; a defense's is that of its strongest attack.

    Intervals are over images and seeds, and attack and floor are chosen inside each resample.
    """

    unranked = frozenset(
        {
            Verdict.INCOMPLETE,
            Verdict.BROKEN_CERTIFICATE,
            Verdict.UNREAD,
            Verdict.UNAUDITED,
            Verdict.BLIND,
            Verdict.INCONSISTENT,
        }
    )

    def leakage(self, finished: Evidence) -> Leakage:
        gain, used = strongest_gain(finished.of_images, finished.groups), able(finished.of_images)
        if gain is None:
            nothing = np.full(finished.groups.shape[1], np.nan)
            return Leakage(UNKNOWN, UNKNOWN, nothing, None, np.nan, np.nan)
        # No SSIM is above 1, whatever eight images make of an interval.
        most = 1 - float(used[gain.strongest].floors.mean((1, 2)).max())
        excess, given = (_summary(gain, own, most) for own in (gain.over_seeds(), gain.interval()))
        return Leakage(
            gain=_at_least_nothing(excess),
            excess=excess,
            images=gain.images[gain.chosen],
            strongest=used[gain.strongest].variant,
            not_adapting=_gain_among(finished, adaptive=False),
            adapting=_gain_among(finished, adaptive=True),
            given_seeds=_at_least_nothing(given),
            by_seed=tuple(float(own) for own in gain.by_seed),
        )

    def leaks_less(self, finished: Sequence[Evidence], alpha: float) -> np.ndarray:
        gains = [strongest_gain(evidence.of_images, evidence.groups) for evidence in finished]
        assert all(gain is not None for gain in gains), "a defense without a gain has no rank"
        return gains_more([gain for gain in gains if gain is not None], alpha)

    def problems(self, question: Question, rule: RankingRule) -> list[str]:
        found = [] if any(own.knows_public for own in _tried(question)) else [WITHOUT_PUBLIC]
        if invalid := _none_valid(question, rule):
            found.append(invalid)
        if (seeds := len(question.seeds)) < rule.minimum_seeds:
            found.append(f"{seeds} seed{'s' * (seeds != 1)} of weights, {rule.minimum_seeds} are needed")
        return found

    def verdicts(self, question: Question, evidence: Evidence, rule: RankingRule, price: Price) -> frozenset[Verdict]:
        finished = sound(question, evidence)
        gain = strongest_gain(finished.of_images, finished.groups)
        defended = evidence.row["defense_name"] != "none"
        level = rule.alpha / len(question.defenses)
        # Where no attack has public images that is said of the question, and not of every defense again.
        asked = defended and any(own.knows_public for own in _tried(question))
        row, reviews = evidence.row, rule.reviews
        limits = {
            Verdict.UNREAD: reviews.is_unread(row, proven=not np.isnan(price.epsilon)),
            Verdict.UNAUDITED: (asked and not is_audited(question, evidence, BLIND, rule.alpha))
            or reviews.is_unheld(row),
            Verdict.BLIND: gain is not None and gain.is_below(BLIND, rule.alpha),
            Verdict.INCONSISTENT: (defended and inconsistent(question, finished, level)) or reviews.is_outdone(row),
            Verdict.SURROGATE_BEATEN: defended and surrogate_beaten(finished, level),
        }
        return frozenset(verdict for verdict, holds in limits.items() if holds)


def _tried(question: Question) -> list[Attempt]:
    return [own for attempts in question.attempts.values() for own in attempts if not own.skipped]


def _none_valid(question: Question, rule: RankingRule) -> str | None:
    """A message if no required attack on images gains the margin on the undefended client, given these seeds."""
    undefended = question.undefended
    if undefended is None:
        return None
    best = None
    for variant in required_variants(question, rule):
        attempt = undefended.attempt(variant)
        if attempt is None or not of_images(undefended, variant) or lacking(question, undefended, variant):
            continue
        gain = strongest_gain([attempt], undefended.groups)
        interval = None if gain is None else gain.interval()
        if gain is None or interval is None:
            continue
        if interval.low >= rule.margin:
            return None
        if best is None or interval.low > best[0]:
            best = interval.low, gain.mean, variant[0]
    asked = f"at least {rule.margin:g} is needed of one required attack"
    if best is None:
        return f"invalid: no required attack has an SSIM, a floor and an interval on the undefended client; {asked}"
    low, mean, label = best
    return (
        f"invalid: of the required attacks {label} gains most over its floor on the undefended client, {mean:+.3f} "
        f"SSIM (at least {low:+.3f} in 95%); {asked}"
    )


def _gain_among(finished: Evidence, adaptive: bool) -> float:
    gain = strongest_gain(finished.among(adaptive), finished.groups)
    return np.nan if gain is None else max(gain.mean, 0.0)


def _summary(gain: StrongestGain, interval: Interval | None, most: float) -> Summary:
    """The summary of a gain that can be `most` at the most."""
    images = gain.images[gain.chosen]
    plain = summarise_units(images, gain.samples)
    low, high = (np.nan, np.nan) if interval is None else (interval.low, min(interval.high, most))
    return replace(plain, mean=gain.mean, low=low, high=high)


def _at_least_nothing(summary: Summary) -> Summary:
    """The summary with mean and ends clamped at 0: an attacker would fall back to the floor."""
    mean, low, high = np.maximum([summary.mean, summary.low, summary.high], 0)
    return replace(summary, mean=float(mean), low=float(low), high=float(high))
