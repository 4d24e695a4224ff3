"""The rules that a ranking holds evidence to; evidence that falls short limits claims of protection, never of leaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE, Variant
from leaderboards.ranking.costs import RunCosts


class Verdict(Enum):
    """A limit of a defense's claim to protect; they are listed in this order."""

    INCOMPLETE = auto()
    """Something that the rules ask for has no result."""
    UNAUDITED = auto()
    """No attack that simulates the defense, and works undefended, has finished."""
    UNDERPOWERED = auto()
    """On too many images the strongest attack ended above its objective at the truth."""
    BROKEN_CERTIFICATE = auto()
    """An attack was right more often than the proof allows."""


@dataclass(frozen=True)
class RankingRule:
    """The rule by which a ranking judges evidence.

    A required attack that fails on the undefended client unranks the question, on another only that defense: else one
    broken plugin would unrank everybody.
    """

    required: tuple[str, ...] | None = None
    """Names or labels of the attacks that every defense must face; None: all of the run that can run undefended."""
    margin: float = 0.05
    """SSIM that an undefended attack must gain, by its lower 95% limit, to be any evidence of protection."""
    minimum_images: int = 100
    """Images of a question, at least."""
    underpowered_share: float = 0.5
    """Share of the images that may be underpowered before the whole evidence is called so."""
    alpha: float = 0.05
    """Level of all comparisons of a question together."""
    rules: int = 1
    """The rules of floors, verdicts and ranks: a board is judged by those of its time."""
    notice: str = ""
    """A sentence or two for whoever reads the ranks; "" where there is nothing to say."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin must lie in [0, 1), got {self.margin}; it is a difference of SSIM")
        if self.minimum_images < 1:
            raise ValueError(f"minimum_images must be at least 1, got {self.minimum_images}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {self.alpha}")

    def requires(self, attempt: Attempt) -> bool:
        return self.required is None or attempt.name in self.required or attempt.variant[0] in self.required


def problems(question: Question, rule: RankingRule, costs: RunCosts) -> list[str]:
    """The reasons for which nobody is ranked on this question; empty where somebody can be."""
    undefended = question.undefended
    if undefended is None:
        return ['there is no undefended control: add the defense "none"']
    found = []
    for wanted in rule.required or ():
        if not any(wanted in (first.name, first.variant[0]) for first, *_ in question.attempts.values()):
            found.append(f"the required attack {wanted} is missing")
    for variant in _required(question, rule):
        if absent := lacking(question, undefended, variant):
            found.append(f"{absent} on the undefended client")
        elif not _of_labels(undefended, variant) and (invalid := _invalid(undefended, variant, rule)):
            found.append(invalid)
    if len(question.images) < rule.minimum_images:
        found.append(f"{len(question.images)} images, {rule.minimum_images} are needed")
    if short := costs.shortfall(question.row["dataset"], question.row["model"], undefended.row["defense"]):
        found.append(short)
    # What an attack was granted makes no difference on the undefended client.
    return list(dict.fromkeys(found))


def missing(question: Question, evidence: Evidence, rule: RankingRule) -> str:
    """Attacks that the defense did not face on every image, each with its reason; "" where nothing is missing.

    A skip of a required attack counts wherever it runs undefended: then the defense has caused it. Of the other attacks
    counts what was tried and failed: it might have shown more.
    """
    tried = [a.variant for a in evidence.attempts if not a.skipped]
    asked = dict.fromkeys([*_required(question, rule), *tried])
    return ", ".join(filter(None, (lacking(question, evidence, variant) for variant in asked)))


def sound(question: Question, evidence: Evidence) -> Evidence:
    """The evidence of the attacks that finished on every image, with all their controls: what counts in any case."""
    whole = tuple(a for a in evidence.attempts if not lacking(question, evidence, a.variant))
    return replace(evidence, attempts=whole)


def audited(question: Question, evidence: Evidence, rule: RankingRule) -> bool:
    """True if an attack has finished that simulates all of the defense and is valid on the undefended client."""
    undefended = question.undefended
    able = [a.variant for a in sound(question, evidence).attempts if a.adapts]
    return any(
        undefended is None or (undefended.attempt(variant) is not None and not _invalid(undefended, variant, rule))
        for variant in able
    )


def _required(question: Question, rule: RankingRule) -> list[Variant]:
    """The attacks that every defense must face; by default those of the run that can run undefended."""
    undefended = question.undefended
    named = [variant for variant, (first, *_) in question.attempts.items() if rule.requires(first)]
    if undefended is None:
        return named
    found = {variant: undefended.attempt(variant) for variant in named}
    able = [variant for variant in named if (attempt := found[variant]) is None or not attempt.skipped]
    if rule.required is None:
        return able
    # An attack that needs public images is skipped without them: it is required where it has them.
    elsewhere = {label for label, *_ in able}
    return [variant for variant in named if variant in able or variant[0] not in elsewhere]


def lacking(question: Question, evidence: Evidence, variant: Variant) -> str | None:
    """The results of an attack and of its controls that are not whole, in words; None where all are."""
    attempt = evidence.attempt(variant)
    if attempt is None or not attempt.whole:
        why = f" ({attempt.reason})" if attempt is not None and attempt.reason else ""
        return f"no whole result of {question.attempts[variant][0].label}{why}"
    controls = dict.fromkeys(label for other in question.attempts[variant] for label in other.controls)
    absent = [label for label in controls if not attempt.controls.get(label)]
    return f"no whole result of {', '.join(absent)}" if absent else None


def _of_labels(undefended: Evidence, variant: Variant) -> bool:
    """True if the attack is about labels: then it stands above no floor of images."""
    attempt = undefended.attempt(variant)
    return attempt is not None and attempt.recovers_labels


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
