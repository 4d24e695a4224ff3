"""Rules 2 about evidence itself: who has been attacked by what learns from the defense, and does it treat all alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.ranking.verdicts import is_excluded, lacking
from leaderboards.statistics.strongest import StrongestGain, p_of_more

DECODER = "black_box_decoder"
"""The attack that learns from what the defense, as a black box, makes of public images: it needs no surrogate."""
AUDITS = ("posterior_mean", DECODER)
"""The attacks that a defense must have met to be audited."""
INCONSISTENT = 0.05
"""SSIM by which held-out clients may be easier than attacked ones, more than undefended."""


def able(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts with a score and a floor for every image and seed."""
    return [a for a in attempts if a.floors_are_whole and np.isfinite(a.by_seed).all()]


def strongest_gain(attempts: Sequence[Attempt], groups: np.ndarray) -> StrongestGain | None:
    """The gain of the strongest of the `able` attempts; None where there is none. `groups` (s n) are batches."""
    used = able(attempts)
    return StrongestGain.of([a.by_seed for a in used], [a.floors for a in used], groups) if used else None


def is_audited(question: Question, evidence: Evidence, least: float, alpha: float) -> bool:
    """True if all attacks of `AUDITS` finished with public images and the defense known, and work on its clients.

    The positive control: on held-out clients an attack's mean score is not significantly further than `least` from its
    strongest floor. So it passes on updates of zeros, or drowned in noise, where it falls back to what the floor knows,
    and fails where its answers are worse than no update at all: such an attack says nothing of the attacked clients.
    """
    return all(_met(question, evidence, name, least, alpha) for name in AUDITS)


def _met(question: Question, evidence: Evidence, name: str, least: float, alpha: float) -> bool:
    own = [a for a in evidence.attempts if a.name == name and a.knows_all]
    done = [a for a in own if not lacking(question, evidence, a.variant)]
    if not done:
        # Only the decoder works on whatever a client sends.
        return name != DECODER and bool(own) and all(is_excluded(question, evidence, a.variant) for a in own)
    return any(_passes(a, evidence.groups, least, alpha) for a in done)


def _passes(attempt: Attempt, groups: np.ndarray, least: float, alpha: float) -> bool:
    if not able([attempt]) or not np.isfinite(attempt.held_out).all():
        return False
    gain = StrongestGain.of([attempt.held_out], [attempt.floors], groups)
    # With too few independent clients for an interval nothing was shown.
    return gain.interval() is not None and not gain.is_below(least, alpha)


def inconsistent(question: Question, finished: Evidence, level: float) -> bool:
    """True if attacks do better on held-out clients of the defense than on the attacked ones.

    Of each attack the held-out minus the attacked score, less the same difference on the undefended client; the largest
    is over `INCONSISTENT` at this one-sided level.
    """
    undefended, excess = question.undefended, []
    for attempt in finished.of_images:
        plain = None if undefended is None else undefended.attempt(attempt.variant)
        if plain is not None:
            excess.append(attempt.held_out - attempt.by_seed - (plain.held_out - plain.by_seed))
    known = [own for own in excess if own.size and np.isfinite(own).all()]
    if not known:
        return False
    nothing = [np.zeros((1, *own.shape)) for own in known]
    return StrongestGain.of(known, nothing, finished.groups).is_above(INCONSISTENT, level)


def surrogate_beaten(finished: Evidence, level: float) -> bool:
    """True if `DECODER` gains significantly more than all attacks that go through the defense's surrogate."""
    box = [a for a in finished.of_images if a.name == DECODER and a.knows_all]
    through = [a for a in finished.of_images if a.adapts and a.name != DECODER]
    mine, its = (strongest_gain(own, finished.groups) for own in (box, through))
    return mine is not None and its is not None and p_of_more(mine, its) <= level
