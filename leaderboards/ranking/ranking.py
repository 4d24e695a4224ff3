"""Who leaks least: leakage with its intervals, and ranks where the evidence supports them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.columns import OF_ONE_GRID, QUESTION, column_names
from leaderboards.ranking.comparison import ratio, shared_units, significantly_lower
from leaderboards.ranking.costs import BROKEN, COLUMNS, TEXTS, Costs
from leaderboards.ranking.evidence import METRICS, Evidence, Question
from leaderboards.ranking.statistics import LEAST_UNITS
from leaderboards.ranking.summary import Row
from leaderboards.ranking.verdicts import Rule, audited, missing, problems, sound

RANKS = ["rank", "rank_low", "rank_high"]
ADAPTING = {"not_adapting": False, "adapting": True}
IDENTITY = sorted(column_names("defense"), key=lambda name: name in OF_ONE_GRID) + column_names("schedule")
"""A defense, then its place in the grid and the client's work."""


def ranking(questions: Sequence[Question], rule: Rule, costs: Costs) -> pd.DataFrame:
    """One row per defense and question, in the order of the questions and their defenses.

    Leakage per image is the largest gain of all attacks, each over the strongest control that belongs to it, seeds
    averaged first; `m_gain`, `m_gain_low` and `m_gain_high` are its mean and 95% interval for the metrics ssim and
    identified, null for a defense whose evidence is incomplete: `m_at_least` is then what finished attacks show.
    `not_adapting` is the SSIM gain of attacks as published, `adapting` with all the knowledge that they were granted,
    null where none of them simulates all of the defense.
    `of_undefended` is the ratio to the undefended gain, for display, with its interval, null where the latter may be 0.
    `rank` is 1 + the defenses that leak significantly less; `rank_low` to `rank_high` holds every rank that the
    comparisons leave open; null where `unranked` (the whole question) or `incomplete` (the defense) says why.
    `underpowered` is the share of images whose strongest attack ended above its objective at the truth. `verdicts`
    joins what limits claims of protection. `ssim_excess` is the gain with images under
    their floor counted as they are. `chance` is what as many attacks reach with reconstructions of other images:
    the largest of several is above 0 by luck alone. `labels_found` is the share of labels that the best attack on them
    found. `incomparable` counts the defenses whose batches cut the images so
    differently that too few independent units are shared: they tie.

    The columns `costs.COLUMNS` say what a defense costs, null where nothing was measured. Costs limit ranks in two
    ways: a defense whose certificate is broken has none, and nobody has one where undefended training misses the
    accuracy that the run asks of it.
    """
    rows = [row for question in questions for row in _ranked(question, rule, costs)]
    figures = [f"{metric}_{part}" for metric in METRICS for part in ("gain", "gain_low", "gain_high", "at_least")]
    figures += ["ssim_excess", "ssim_excess_low", "ssim_excess_high"]
    shares = ["chance", "of_undefended", "of_undefended_low", "of_undefended_high"]
    shares += ["not_adapting", "adapting", "underpowered", "identified", "labels_found"]
    numbers = [*RANKS, "incomparable", "n", "units"]
    texts = ["unranked", "incomplete", "verdicts", "strongest"]
    columns = [*QUESTION, *IDENTITY, *numbers, *texts, *figures, *shares, *COLUMNS]
    found, texts = pd.DataFrame(rows, columns=columns), [*texts, *TEXTS]
    # Columns of text without a value for some rows would turn null into a number.
    words = {name: found[name].astype(object).where(found[name].notna(), None) for name in texts}
    return found.astype(dict.fromkeys(numbers, "Int64")).assign(**words)


def _ranked(question: Question, rule: Rule, costs: Costs) -> list[Row]:
    reasons = problems(question, rule, costs)
    rows = [_row(question, evidence, rule, reasons, costs) for evidence in question.defenses]
    able = [i for i, row in enumerate(rows) if not (row["unranked"] or row["incomplete"] or row["broken"])]
    if able:
        chosen = [question.defenses[i] for i in able]
        weak = np.array([rows[i]["underpowered"] > rule.underpowered_share for i in able])
        for i, figures in zip(able, _ranks(chosen, weak, rule.alpha), strict=True):
            rows[i] |= figures
    return rows


def _ranks(chosen: list[Evidence], weak: np.ndarray, alpha: float) -> list[Row]:
    """Rank, lowest and highest rank of each; `weak` (m,) is whose evidence is underpowered.

    The limits are the confidence set of Mogstad et al. ("Inference for Ranks", Review of Economic Studies 2024): from
    1 + those significantly better to m - those significantly worse. Weak evidence bounds leakage from below: it is
    better than nobody whose evidence is not weak, and ranks above none of them. `incomparable` counts the others with
    which too few independent units are shared.
    """
    scores, groups = np.stack([e.gain(METRICS[0]) for e in chosen]), np.stack([e.groups for e in chosen])
    better = significantly_lower(scores, groups, alpha)
    better[np.ix_(weak, ~weak)] = False
    low, high = 1 + better.sum(axis=0), len(chosen) - better.sum(axis=1)
    low = np.where(weak, np.maximum(low, low[~weak].max(initial=1)), low)
    apart = (shared_units(groups) < LEAST_UNITS) & ~np.eye(len(chosen), dtype=bool)
    return [
        {"rank": int(a), "rank_low": int(a), "rank_high": int(max(a, b)), "incomparable": int(c)}
        for a, b, c in zip(low, high, apart.sum(axis=1), strict=True)
    ]


def _row(question: Question, evidence: Evidence, rule: Rule, reasons: list[str], costs: Costs) -> Row:
    absent = missing(question, evidence, rule)
    finished = sound(question, evidence)
    gain = {metric: finished.gain(metric) for metric in METRICS}
    row: Row = {name: question.row[name] for name in QUESTION} | {name: evidence.row[name] for name in IDENTITY}
    row |= {"n": len(question.images), "strongest": finished.strongest, "chance": _mean(finished.chance)}
    row |= {"identified": _mean(finished.score("identified")), "labels_found": finished.labels_found}
    row |= {name: _mean(finished.gain(METRICS[0], adapting)) for name, adapting in ADAPTING.items()}
    row["underpowered"] = float(finished.underpowered.mean()) if finished.of_images else np.nan
    for metric in METRICS:
        row |= _figures(metric, gain[metric], evidence, complete=not absent)
    row["units"] = row.pop(f"{METRICS[0]}_units")
    beyond = finished.summarised(finished.excess(METRICS[0]))
    if beyond is not None:
        row |= {"ssim_excess": beyond.mean, "ssim_excess_low": beyond.low, "ssim_excess_high": beyond.high}
    undefended = question.undefended
    if not absent and undefended is not None and not missing(question, undefended, rule):
        row |= _of_undefended(evidence, undefended)
    if not absent and np.isnan(gain[METRICS[0]]).any():
        absent = "no SSIM, or no floor"
    absent = absent or costs.untested(row) or ""
    badges = {
        "incomplete": bool(absent),
        "unaudited": evidence.row["defense_name"] != "none" and not audited(question, evidence, rule),
        "underpowered": row["underpowered"] > rule.underpowered_share,
        BROKEN: costs.broken(row),
    }
    row |= costs.of(row) | {"broken": badges[BROKEN]}
    return row | {
        "unranked": "; ".join(reasons) or None,
        "incomplete": absent or None,
        "verdicts": ", ".join(name for name, holds in badges.items() if holds),
    }


def _figures(metric: str, gain: np.ndarray, evidence: Evidence, complete: bool) -> Row:
    found = evidence.summarised(gain, rate=metric == "identified")
    if found is None:
        return {f"{metric}_{part}": np.nan for part in ("gain", "gain_low", "gain_high", "at_least", "units")}
    held = {"gain": found.mean, "gain_low": found.low, "gain_high": found.high} if complete else {}
    return {f"{metric}_{part}": value for part, value in {**held, "at_least": found.mean, "units": found.units}.items()}


def _of_undefended(evidence: Evidence, undefended: Evidence) -> Row:
    mine, whole = evidence.gain(METRICS[0]), undefended.gain(METRICS[0])
    if not len(mine) or np.isnan(mine).any() or np.isnan(whole).any():
        return {}
    beyond = undefended.summarised(undefended.excess(METRICS[0]))
    if beyond is None or not beyond.low > 0:
        return {}
    found = ratio(mine, whole, evidence.groups, undefended.groups)
    names = ("of_undefended", "of_undefended_low", "of_undefended_high")
    return {} if found is None else dict(zip(names, found, strict=True))


def _mean(values: np.ndarray) -> float:
    """Null unless every image has a value."""
    return float(values.mean()) if len(values) and not np.isnan(values).any() else np.nan
