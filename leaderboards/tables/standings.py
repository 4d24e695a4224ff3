"""Tables of leakage, ranks and verdicts, one section per question: `leakboard rank` and the end of a run print them."""

from __future__ import annotations

from textwrap import shorten

import numpy as np
import pandas as pd
from rich.console import Console

from bench.errors import ConfigurationError, suggest
from leaderboards.evidence.question import questions
from leaderboards.ranking.budgets import Affordable, ranking_at_budgets
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking, rule_set_of
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict, not_applicable
from leaderboards.tables.exports import VERDICTS, standings_frame, verdict_words, with_budgets
from leaderboards.tables.formats import Table, TableSection
from leaderboards.tables.notes import marked, question_notes, secrets_text
from leaderboards.tables.prices import at_budgets, is_priced, overview, rank_text, what_it_costs
from leaderboards.tables.rule_words import RuleWords, words_of
from leaderboards.tables.scores import ABSENT, FORMATS, laid_out, number


def render_standings(
    frame: pd.DataFrame,
    format: str = "text",
    rule: RankingRule | None = None,
    jobs: pd.DataFrame | None = None,
    console: Console | None = None,
) -> str:
    """The ranking of the rows of `bench.store.store` as tables (text, markdown, latex) or with every figure (csv,
    json).

    With `jobs`, what a defense costs and proves stands beside what it leaks. Text is for the terminal of `console`,
    plain without one.
    """
    if format not in FORMATS:
        raise ConfigurationError(f"unknown table format {format!r}; {suggest(format, FORMATS)}")
    rule = rule or RankingRule()
    if frame.empty:
        return "No cells yet: run the grid first.\n"
    found, costs = questions(frame), costs_of(jobs)
    standings = ranking(found, rule, costs)
    is_priced_by_accuracy = any(standing.price.accuracy_seeds for standing in standings)
    affordable = ranking_at_budgets(found if is_priced_by_accuracy else [], rule, costs)
    if format in ("csv", "json"):
        rows = with_budgets(standings_frame(standings), affordable)
        if format == "csv":
            return rows.to_csv(index=False, lineterminator="\n")
        return (rows.to_json(orient="records", indent=2, double_precision=12) or "[]") + "\n"
    sections = [
        _section([s for s in standings if s.question is own], [a for a in affordable if a.question is own], rule)
        for own in found
    ]
    return laid_out(sections, format, console)


def _section(standings: list[Standing], affordable: list[Affordable], rule: RankingRule) -> TableSection:
    """`affordable` are the same question's families at budgets, none where no accuracy was measured."""
    question, unranked, priced = standings[0].question, standings[0].unranked, is_priced(standings)
    reasons: dict[str, int] = {}
    words = words_of(rule)
    gains = {standing.defense: words.cells(standing) for standing in standings}
    tables = [overview(standings, words.columns, gains, reasons, rule)] if priced else []
    tables.append(_ranks(standings, words, {} if priced else gains, reasons))
    more = ["defense", "not adapting", "adapting", "identified", "underpowered"]
    made_of = "What it is made of: SSIM gain of attacks that do not adapt and that do"
    tables.append(Table(made_of, more, [_parts(standing) for standing in standings]))
    if priced:
        tables += [what_it_costs(standings, reasons), *at_budgets(affordable, reasons)]
    ranked = f"Nobody is ranked: {unranked}." if unranked else "Rank 1 leaks least."
    ranked += f" {rule.notice}" if rule.notice else ""
    row = question.row
    asked = {"known": "labels known", "recovered": "labels recovered", "joint": "labels optimised"}[row["labels"]]
    asked += secrets_text(row)
    # A rank is never read without the verdicts that limit it, be there none.
    full = [table.without_empty(ABSENT, () if unranked else ("rank", "verdicts")) for table in tables]
    return TableSection(
        title=f"Leakage: {row['dataset']}, {row['model']}, {row['weights']} weights",
        facts=f"{len(question.images)} images, {asked}. {ranked}",
        tables=[table for table in full if len(table.columns) > table.left],
        notes=[f"[{number}] {shorten(reason, 300, placeholder=' ...')}" for reason, number in reasons.items()]
        + _explanations(standings, rule)
        + question_notes(standings, affordable, rule),
    )


def _ranks(standings: list[Standing], words: RuleWords, gains: dict[str, list[str]], reasons: dict[str, int]) -> Table:
    """Ranks and verdicts; `gains` where no table above shows them."""
    shown = words.columns if gains else ()
    columns = ["defense", "rank", *shown, *words.beside, "of undefended", "verdicts"]
    lines = [
        [s.defense, rank_text(s.rank), *gains.get(s.defense, []), *words.beside_cells(s), *_verdicts(s, reasons)]
        for s in standings
    ]
    return Table(words.title, columns, lines)


def _verdicts(standing: Standing, reasons: dict[str, int]) -> list[str]:
    verdicts = ", ".join(verdict_words(standing.verdicts)) + marked(reasons, standing.incomplete)
    ratio = standing.of_undefended[0] if standing.of_undefended else np.nan
    return [number(ratio, ".0%"), verdicts or ABSENT]


def _parts(standing: Standing) -> list[str]:
    return [
        standing.defense,
        number(standing.not_adapting, ".3f"),
        number(standing.adapting, ".3f"),
        number(standing.identified, ".0%"),
        number(standing.underpowered, ".0%"),
    ]


def _explanations(standings: list[Standing], rule: RankingRule) -> list[str]:
    words, excluded = words_of(rule), not_applicable(standings[0].question, rule)
    notes = [
        *words.notes,
        "Not adapting: the attacks as published; adapting: the same attacks knowing the defense, where they can.",
        "Of undefended: the ratio to the gain against an undefended client. Identified: the strongest attack's rate.",
    ]
    if any(standing.rank is not None for standing in standings):
        notes.append(
            f"Rank: 1 + the defenses that leak significantly less ({words.compared}, Holm, "
            f"{rule.alpha:g} for all together); in brackets every rank that the comparisons leave open."
        )
    if any(standing.incomparable for standing in standings):
        notes.append("Defenses whose batches cut the images too differently share too few independent units: they tie.")
    if any(standing.is_lower_bound for standing in standings):
        notes.append(
            "≥: a lower bound. An attack did not finish, or ended above its objective at the private image on some "
            f"images; underpowered: on more than {rule.underpowered_share:.0%} of them."
        )
    given = frozenset[Verdict]().union(*(standing.verdicts for standing in standings))
    unranked = rule_set_of(rule).unranked
    for verdict, text in words.verdicts.items():
        if verdict in given:
            notes.append(f"{VERDICTS[verdict].capitalize()}{', no rank' * (verdict in unranked)}: {text}.")
    if excluded:
        told = ", ".join(f"{label} ({reason})" for label, reason in excluded.items())
        notes.append(f"Not applicable, and so missing nowhere: {told}.")
    return notes
