"""The ranking of defenses by leakage: gains with their intervals, and ranks where the evidence supports them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE, LEAKAGE_METRICS
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.standing import UNKNOWN, Rank, Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict, audited, missing, problems, sound
from leaderboards.statistics.comparison import ratio, shared_units, significantly_lower
from leaderboards.statistics.intervals import LEAST_UNITS


def ranking(questions: Sequence[Question], rule: RankingRule, costs: RunCosts) -> list[Standing]:
    """One standing per defense and question, in the order of the questions and their defenses.

    Leakage per image is the largest gain of all attacks, each over the strongest control that belongs to it, seeds
    averaged first. A defense whose evidence is incomplete has a lower bound of it only: what finished attacks show.
    A rank is 1 + the defenses that leak significantly less. The largest of several gains is above 0 by luck alone:
    `chance` is what as many attacks reach with reconstructions of other images.

    Costs limit ranks in two ways: a defense whose certificate is broken has none, and nobody has one where undefended
    training misses the accuracy that the run asks of it.
    """
    return [standing for question in questions for standing in _ranked(question, rule, costs)]


UNRANKED = frozenset({Verdict.INCOMPLETE, Verdict.BROKEN_CERTIFICATE})
"""The verdicts that take a defense's rank; the others limit what a rank claims."""


def _ranked(question: Question, rule: RankingRule, costs: RunCosts) -> list[Standing]:
    unranked = "; ".join(problems(question, rule, costs))
    found = [_standing(question, evidence, rule, unranked, costs) for evidence in question.defenses]
    able = [i for i, standing in enumerate(found) if not (unranked or standing.verdicts & UNRANKED)]
    if able:
        chosen = [question.defenses[i] for i in able]
        weak = np.array([Verdict.UNDERPOWERED in found[i].verdicts for i in able])
        for i, (rank, incomparable) in zip(able, _ranks(chosen, weak, rule.alpha), strict=True):
            found[i] = replace(found[i], rank=rank, incomparable=incomparable)
    return found


def _ranks(chosen: list[Evidence], weak: np.ndarray, alpha: float) -> list[tuple[Rank, int]]:
    """The rank of each, and the number of the others with which too few independent units are shared.

    The limits are the confidence set of Mogstad et al. ("Inference for Ranks", Review of Economic Studies 2024): from
    1 + those significantly better to m - those significantly worse. Weak evidence bounds leakage from below: it is
    better than nobody whose evidence is not weak, and ranks above none of them; `weak` (m,) is whose is.
    """
    scores, groups = np.stack([e.gain(HEADLINE) for e in chosen]), np.stack([e.groups for e in chosen])
    better = significantly_lower(scores, groups, alpha)
    better[np.ix_(weak, ~weak)] = False
    low, high = 1 + better.sum(axis=0), len(chosen) - better.sum(axis=1)
    low = np.where(weak, np.maximum(low, low[~weak].max(initial=1)), low)
    apart = (shared_units(groups) < LEAST_UNITS) & ~np.eye(len(chosen), dtype=bool)
    ends = zip(low, high, apart.sum(axis=1), strict=True)
    return [(Rank(int(a), int(max(a, b))), int(incomparable)) for a, b, incomparable in ends]


def _standing(question: Question, evidence: Evidence, rule: RankingRule, unranked: str, costs: RunCosts) -> Standing:
    row, absent, finished = question.row | evidence.row, missing(question, evidence, rule), sound(question, evidence)
    undefended = question.undefended
    comparable = not absent and undefended is not None and not missing(question, undefended, rule)
    is_whole = not absent
    if is_whole and np.isnan(finished.gain(HEADLINE)).any():
        absent = "no SSIM, or no floor"
    price, absent = costs.of(row), absent or costs.untested(row) or ""
    underpowered = float(finished.underpowered.mean()) if finished.of_images else np.nan
    limits = {
        Verdict.INCOMPLETE: bool(absent),
        Verdict.UNAUDITED: evidence.row["defense_name"] != "none" and not audited(question, evidence, rule),
        Verdict.UNDERPOWERED: underpowered > rule.underpowered_share,
        Verdict.BROKEN_CERTIFICATE: costs.broken(row),
    }
    return Standing(
        question=question,
        evidence=evidence,
        price=price,
        rank=None,
        unranked=unranked,
        incomplete=absent,
        verdicts=frozenset(verdict for verdict, holds in limits.items() if holds),
        incomparable=None,
        strongest=finished.strongest,
        finished={m: evidence.summarised(finished.gain(m), rate=m == "identified") or UNKNOWN for m in LEAKAGE_METRICS},
        is_whole=is_whole,
        excess=finished.summarised(finished.excess(HEADLINE)) or UNKNOWN,
        chance=_mean(finished.chance),
        of_undefended=_of_undefended(evidence, undefended) if comparable and undefended else (),
        not_adapting=_mean(finished.gain(HEADLINE, adaptive=False)),
        adapting=_mean(finished.gain(HEADLINE, adaptive=True)),
        underpowered=underpowered,
        identified=_mean(finished.score("identified")),
        labels_found=finished.labels_found,
    )


def _of_undefended(evidence: Evidence, undefended: Evidence) -> tuple[float, ...]:
    mine, whole = evidence.gain(HEADLINE), undefended.gain(HEADLINE)
    if not len(mine) or np.isnan(mine).any() or np.isnan(whole).any():
        return ()
    beyond = undefended.summarised(undefended.excess(HEADLINE))
    if beyond is None or not beyond.low > 0:
        return ()
    return ratio(mine, whole, evidence.groups, undefended.groups) or ()


def _mean(values: np.ndarray) -> float:
    """NaN unless every image has a value."""
    return float(values.mean()) if len(values) and not np.isnan(values).any() else np.nan
