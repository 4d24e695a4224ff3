"""Rules 1: the strongest attack is chosen image by image, and its gain there is at least 0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE, Variant
from leaderboards.ranking.costs import Price
from leaderboards.ranking.rule_set import Leakage, RuleSet
from leaderboards.ranking.verdicts import RankingRule, Verdict, lacking, of_images, required_variants, sound
from leaderboards.statistics.comparison import significantly_lower
from leaderboards.statistics.intervals import UNKNOWN, whole_mean


class PerImage(RuleSet):
    """The mean over images of the largest gain of all attacks, seeds averaged first; intervals are over images."""

    unranked = frozenset({Verdict.INCOMPLETE, Verdict.BROKEN_CERTIFICATE})

    def leakage(self, finished: Evidence) -> Leakage:
        gain, excess = finished.gain(HEADLINE), finished.excess(HEADLINE)
        return Leakage(
            gain=finished.summarised(gain) or UNKNOWN,
            excess=finished.summarised(excess) or UNKNOWN,
            images=gain,
            strongest=finished.strongest,
            not_adapting=whole_mean(finished.gain(HEADLINE, adaptive=False)),
            adapting=whole_mean(finished.gain(HEADLINE, adaptive=True)),
        )

    def leaks_less(self, finished: Sequence[Evidence], alpha: float) -> np.ndarray:
        scores, groups = np.stack([e.gain(HEADLINE) for e in finished]), np.stack([e.groups for e in finished])
        return significantly_lower(scores, groups, alpha)

    def problems(self, question: Question, rule: RankingRule) -> list[str]:
        undefended = question.undefended
        if undefended is None:
            return []
        asked = [own for own in required_variants(question, rule) if of_images(undefended, own)]
        found = [_invalid(undefended, own, rule) for own in asked if not lacking(question, undefended, own)]
        return [message for message in found if message]

    def verdicts(self, question: Question, evidence: Evidence, rule: RankingRule, price: Price) -> frozenset[Verdict]:
        is_audited = evidence.row["defense_name"] == "none" or _audited(question, evidence, rule)
        return frozenset() if is_audited else frozenset({Verdict.UNAUDITED})


def _audited(question: Question, evidence: Evidence, rule: RankingRule) -> bool:
    """True if an attack has finished that simulates all of the defense and is valid on the undefended client."""
    undefended = question.undefended
    able = [a.variant for a in sound(question, evidence).attempts if a.adapts]
    return any(
        undefended is None or (undefended.attempt(variant) is not None and not _invalid(undefended, variant, rule))
        for variant in able
    )


def _invalid(undefended: Evidence, variant: Variant, rule: RankingRule) -> str | None:
    """A message if an attack is no evidence of protection, as it gains nothing on an undefended client; else None."""
    attempt = undefended.attempt(variant)
    assert attempt is not None, "what is not there is missing, not invalid"
    found = undefended.summarised(attempt.gain(HEADLINE))
    if found is None:
        return f"invalid: {variant[0]} has no SSIM or no floor on the undefended client"
    if found.low >= rule.margin:
        return None
    if np.isnan(found.low):
        return f"invalid: {variant[0]} has no interval on the undefended client from {found.units} independent results"
    low = f"at least {found.low:+.3f} in 95%"
    return (
        f"invalid: {variant[0]} gains {found.mean:+.3f} SSIM ({low}) over its floor on the undefended client, "
        f"at least {rule.margin:g} is needed"
    )
