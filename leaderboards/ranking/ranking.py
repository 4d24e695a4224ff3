"""The ranking of defenses by leakage: gains with their intervals, and ranks where the evidence supports them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE
from leaderboards.ranking.by_mean import ByMean
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.per_image import PerImage
from leaderboards.ranking.rule_set import Leakage, RuleSet
from leaderboards.ranking.standing import Rank, Standing
from leaderboards.ranking.verdicts import RULE_NUMBERS, RankingRule, Verdict, lacking, missing, required_variants, sound
from leaderboards.statistics.comparison import ratio, shared_units
from leaderboards.statistics.intervals import LEAST_UNITS, UNKNOWN, whole_mean


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


RULE_SETS: Mapping[int, RuleSet] = dict(zip(RULE_NUMBERS, (PerImage(), ByMean()), strict=True))
"""Number of the rules -> what they make of evidence."""


def rule_set_of(rule: RankingRule) -> RuleSet:
    """The rules that a ranking rule asks for."""
    return RULE_SETS[rule.rules]


def problems(question: Question, rule: RankingRule, costs: RunCosts) -> list[str]:
    """The reasons for which nobody is ranked on this question; empty where somebody can be."""
    undefended = question.undefended
    if undefended is None:
        return ['there is no undefended control: add the defense "none"']
    found = []
    for wanted in rule.required or ():
        if not any(wanted in (first.name, first.variant[0]) for first, *_ in question.attempts.values()):
            found.append(f"the required attack {wanted} is missing")
    absent = {own: lacking(question, undefended, own) for own in required_variants(question, rule)}
    found += [f"{text} on the undefended client" for text in absent.values() if text]
    found += rule_set_of(rule).problems(question, rule)
    if len(question.images) < rule.minimum_images:
        found.append(f"{len(question.images)} images, {rule.minimum_images} are needed")
    if short := costs.shortfall(question.row["dataset"], question.row["model"], undefended.row["defense"]):
        found.append(short)
    # What an attack was granted makes no difference on the undefended client.
    return list(dict.fromkeys(found))


def _ranked(question: Question, rule: RankingRule, costs: RunCosts) -> list[Standing]:
    unranked, rules = "; ".join(problems(question, rule, costs)), rule_set_of(rule)
    found = [_standing(question, evidence, rule, unranked, costs) for evidence in question.defenses]
    able = [i for i, standing in enumerate(found) if not (unranked or standing.verdicts & rules.unranked)]
    if able:
        chosen = [sound(question, question.defenses[i]) for i in able]
        weak = np.array([Verdict.UNDERPOWERED in found[i].verdicts for i in able])
        less = rules.leaks_less(chosen, rule.alpha)
        for i, (rank, incomparable) in zip(able, _ranks(chosen, weak, less), strict=True):
            found[i] = replace(found[i], rank=rank, incomparable=incomparable)
    return found


def _ranks(chosen: list[Evidence], weak: np.ndarray, better: np.ndarray) -> list[tuple[Rank, int]]:
    """The rank of each, and the number of the others with which too few independent units are shared.

    The limits are the confidence set of Mogstad et al. ("Inference for Ranks", Review of Economic Studies 2024): from
    1 + those significantly better to m - those significantly worse. Weak evidence bounds leakage from below: it is
    better than nobody whose evidence is not weak, and ranks above none of them; `weak` (m,) is whose is. `better` (m m)
    is true at (i, j) if i leaks significantly less than j.
    """
    groups = np.stack([e.groups for e in chosen])
    better = better & ~np.outer(weak, ~weak)
    low, high = 1 + better.sum(axis=0), len(chosen) - better.sum(axis=1)
    low = np.where(weak, np.maximum(low, low[~weak].max(initial=1)), low)
    apart = (shared_units(groups) < LEAST_UNITS) & ~np.eye(len(chosen), dtype=bool)
    ends = zip(low, high, apart.sum(axis=1), strict=True)
    return [(Rank(int(a), int(max(a, b))), int(incomparable)) for a, b, incomparable in ends]


def _standing(question: Question, evidence: Evidence, rule: RankingRule, unranked: str, costs: RunCosts) -> Standing:
    row, absent, finished = question.row | evidence.row, missing(question, evidence, rule), sound(question, evidence)
    rules, undefended = rule_set_of(rule), question.undefended
    leakage = rules.leakage(finished)
    comparable = not absent and undefended is not None and not missing(question, undefended, rule)
    is_whole = not absent
    if is_whole and np.isnan(leakage.gain.mean):
        absent = "no SSIM, or no floor"
    price, absent = costs.of(row), absent or costs.untested(row) or ""
    underpowered = float(finished.underpowered.mean()) if finished.of_images else np.nan
    limits = {
        Verdict.INCOMPLETE: bool(absent),
        Verdict.UNDERPOWERED: underpowered > rule.underpowered_share,
        Verdict.BROKEN_CERTIFICATE: costs.broken(row),
    }
    identified = evidence.summarised(finished.gain("identified"), rate=True)
    whole = rules.leakage(sound(question, undefended)) if comparable and undefended else None
    return Standing(
        question=question,
        evidence=evidence,
        price=price,
        rank=None,
        unranked=unranked,
        incomplete=absent,
        verdicts=frozenset(
            rules.verdicts(question, evidence, rule, price) | {own for own, holds in limits.items() if holds}
        ),
        incomparable=None,
        strongest=leakage.strongest,
        finished={HEADLINE: leakage.gain, "identified": identified or UNKNOWN},
        is_whole=is_whole,
        excess=leakage.excess,
        given_seeds=leakage.given_seeds if is_whole else UNKNOWN,
        by_seed=leakage.by_seed,
        worst_case=whole_mean(finished.gain(HEADLINE)),
        chance=whole_mean(finished.chance),
        of_undefended=_of_undefended(leakage, whole, evidence, undefended) if whole and undefended else (),
        not_adapting=leakage.not_adapting,
        adapting=leakage.adapting,
        underpowered=underpowered,
        identified=whole_mean(finished.score("identified")),
        labels_found=finished.labels_found,
    )


def _of_undefended(leakage: Leakage, whole: Leakage, evidence: Evidence, undefended: Evidence) -> tuple[float, ...]:
    if not len(leakage.images) or np.isnan(leakage.images).any() or np.isnan(whole.images).any():
        return ()
    if not whole.excess.low > 0:
        return ()
    found = ratio(leakage.images, whole.images, evidence.groups, undefended.groups)
    return tuple(max(own, 0.0) for own in found or ())
