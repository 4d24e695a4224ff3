"""The rules that a ranking holds evidence to; evidence that falls short limits claims of protection, never of leaks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from bench.columns import column_names
from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.code_reviews import CodeReviews
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import Variant
from leaderboards.statistics.seeds import LEAST_SEEDS_OF_RANKS

RULE_NUMBERS = (1, 2)
"""Numbers of the rules of floors, verdicts and ranks; published boards keep theirs."""


class Verdict(Enum):
    """A limit of a defense's claim to protect; they are listed in this order."""

    INCOMPLETE = auto()
    """Something that the rules ask for has no result."""
    UNREAD = auto()
    """A plugin without a built-in proof whose code nobody has read: its attacks may have been shown something else."""
    UNAUDITED = auto()
    """No attack that simulates the defense, and works undefended, has finished; by rules 2: none that learns from what
    the defense itself releases of public images."""
    BLIND = auto()
    """The strongest attack stays below its own floor: the gain is unknown, not 0."""
    INCONSISTENT = auto()
    """Attacks fare better on held-out clients of the defense than on the attacked ones."""
    UNDERPOWERED = auto()
    """On too many images the strongest attack ended above its objective at the truth."""
    BROKEN_CERTIFICATE = auto()
    """An attack was right more often than the proof allows."""
    SURROGATE_BEATEN = auto()
    """The defense as a black box gives more away than attacks through its surrogate find."""


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
    minimum_seeds: int = LEAST_SEEDS_OF_RANKS
    """Seeds of weights of a question, at least; rules 1 ask for none."""
    alpha: float = 0.05
    """Level of all comparisons of a question together."""
    rules: int = 2
    """The rules of floors, verdicts and ranks: a board is judged by those of its time."""
    notice: str = ""
    """A sentence or two for whoever reads the ranks; "" where there is nothing to say."""
    reviews: CodeReviews = field(default_factory=CodeReviews)
    """The findings of reviewers about the defenses' code, which rules 1 do not ask for."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin must lie in [0, 1), got {self.margin}; it is a difference of SSIM")
        if self.minimum_images < 1:
            raise ValueError(f"minimum_images must be at least 1, got {self.minimum_images}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie in (0, 1), got {self.alpha}")
        if self.rules not in RULE_NUMBERS:
            raise ValueError(f"rules must be one of {', '.join(map(str, RULE_NUMBERS))}, got {self.rules}")

    @property
    def spares_excluded(self) -> bool:
        """True if a required attack that network or schedule exclude is missing nowhere."""
        return self.rules > 1

    @property
    def weighs_equal_images(self) -> bool:
        """True if accuracies are compared after equally many images, and not after equally many rounds."""
        return self.rules > 1

    @property
    def states_attacked_releases(self) -> bool:
        """True if epsilon is stated for as many releases as are attacked, and not for the whole training."""
        return self.rules > 1

    def requires(self, attempt: Attempt) -> bool:
        return self.required is None or attempt.name in self.required or attempt.variant[0] in self.required


def missing(question: Question, evidence: Evidence, rule: RankingRule) -> str:
    """Attacks that the defense did not face on every image, each with its reason; "" where nothing is missing.

    A skip of a required attack counts wherever it runs undefended: then the defense has caused it. Of the other attacks
    counts what was tried and failed: it might have shown more.
    """
    tried = [a.variant for a in evidence.attempts if not a.skipped]
    asked = dict.fromkeys([*required_variants(question, rule), *tried])
    if rule.spares_excluded:
        asked = [variant for variant in asked if not is_excluded(question, evidence, variant)]
    return ", ".join(filter(None, (lacking(question, evidence, variant) for variant in asked)))


def is_excluded(question: Question, evidence: Evidence, variant: Variant) -> bool:
    """True if an attack is skipped where network or schedule, and not the defense, keep it from running.

    It is skipped on the undefended client too, or the client's work is another than the undefended client's.
    """
    attempt, undefended = evidence.attempt(variant), question.undefended
    if attempt is None or not attempt.skipped or undefended is None:
        return False
    plain = undefended.attempt(variant)
    work = column_names("schedule")
    return (plain is not None and plain.skipped) or any(evidence.row[name] != undefended.row[name] for name in work)


def not_applicable(question: Question, rule: RankingRule) -> dict[str, str]:
    """The label of each required attack that the undefended client excludes, with the reason."""
    undefended = question.undefended
    if undefended is None or not rule.spares_excluded:
        return {}
    asked = [variant for variant, (first, *_) in question.attempts.items() if rule.requires(first)]
    able = {label for label, *_ in required_variants(question, rule)}
    return {
        variant[0]: attempt.reason
        for variant in asked
        if variant[0] not in able and (attempt := undefended.attempt(variant)) is not None
    }


def sound(question: Question, evidence: Evidence) -> Evidence:
    """The evidence of the attacks that finished on every image, with all their controls: what counts in any case."""
    whole = tuple(a for a in evidence.attempts if not lacking(question, evidence, a.variant))
    return replace(evidence, attempts=whole)


def required_variants(question: Question, rule: RankingRule) -> list[Variant]:
    """The attacks that every defense must face; by default those of the run that can run undefended."""
    undefended = question.undefended
    named = [variant for variant, (first, *_) in question.attempts.items() if rule.requires(first)]
    if undefended is None:
        return named
    found = {variant: undefended.attempt(variant) for variant in named}
    able = [variant for variant in named if (attempt := found[variant]) is None or not attempt.skipped]
    if rule.required is None or rule.spares_excluded:
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


def of_images(undefended: Evidence, variant: Variant) -> bool:
    """True if the attack was tried and is about images: one about labels stands above no floor of images."""
    attempt = undefended.attempt(variant)
    return attempt is not None and not attempt.recovers_labels
