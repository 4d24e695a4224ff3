"""What `leakboard rank` and the end of a run print: leakage, ranks and verdicts, one section per question."""

from __future__ import annotations

from textwrap import shorten

import numpy as np
import pandas as pd
from rich.console import Console

from bench.columns import QUESTION
from bench.errors import ConfigurationError, suggest
from leaderboards.ranking.budgets import ranking_at_budgets, with_budgets
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.evidence import questions
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.summary import Row, records
from leaderboards.ranking.verdicts import Rule
from leaderboards.tables.formats import Section, Table
from leaderboards.tables.notes import batch_norm_text, explain, marked
from leaderboards.tables.prices import at_budgets, bound_sign, is_priced, overview, rank_text, what_it_costs
from leaderboards.tables.scores import ABSENT, FORMATS, laid_out, number


def render(
    frame: pd.DataFrame,
    format: str = "text",
    rule: Rule | None = None,
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
    rule = rule or Rule()
    if frame.empty:
        return "No cells yet: run the grid first.\n"
    found, costs = questions(frame), costs_of(jobs)
    rows = ranking(found, rule, costs)
    at_any_price = not any(rows["accuracy_seeds"] > 0)
    affordable = ranking_at_budgets([] if at_any_price else found, rule, costs)
    if format in ("csv", "json"):
        rows = with_budgets(rows, affordable)
    if format == "csv":
        return rows.to_csv(index=False, lineterminator="\n")
    if format == "json":
        return (rows.to_json(orient="records", indent=2, double_precision=12) or "[]") + "\n"
    asked = [pd.DataFrame(own) for _, own in rows.groupby(QUESTION, sort=False, dropna=False)]
    if at_any_price:
        return laid_out([_section(records(own), [], rule) for own in asked], format, console)
    # Both are cut into questions in the order of the frame.
    within = [pd.DataFrame(own) for _, own in affordable.groupby(QUESTION, sort=False, dropna=False)]
    pairs = zip(asked, within, strict=True)
    return laid_out([_section(records(a), records(b), rule) for a, b in pairs], format, console)


def _section(rows: list[Row], budgets: list[Row], rule: Rule) -> Section:
    """`budgets` are the same question's rows at accuracy budgets, none where no accuracy was measured."""
    first, priced = rows[0], is_priced(rows)
    reasons: dict[str, int] = {}
    gains = {row["defense"]: _gain(row) for row in rows}
    tables = [overview(rows, gains, reasons)] if priced else []
    tables.append(_worst_case(rows, {} if priced else gains, reasons))
    more = ["defense", "not adapting", "adapting", "identified", "underpowered"]
    made_of = "What it is made of: SSIM gain of attacks that do not adapt and that do"
    tables.append(Table(made_of, more, [_parts(row) for row in rows]))
    if priced:
        tables += [what_it_costs(rows, reasons), *at_budgets(budgets, reasons)]
    ranked = f"Nobody is ranked: {first['unranked']}." if first["unranked"] else "Rank 1 leaks least."
    asked = {"known": "labels known", "recovered": "labels recovered", "joint": "labels optimised"}[first["labels"]]
    asked += batch_norm_text(first["batch_norm"])
    return Section(
        title=f"Leakage: {first['dataset']}, {first['model']}, {first['weights']} weights",
        facts=f"{first['n']} images, {asked}. {ranked}",
        tables=tables,
        notes=[f"[{number}] {shorten(reason, 300, placeholder=' ...')}" for reason, number in reasons.items()]
        + _explanations(rows, rule)
        + explain(rows, budgets),
    )


def _worst_case(rows: list[Row], gains: dict[str, list[str]], reasons: dict[str, int]) -> Table:
    """Ranks and verdicts; `gains` where no table above shows them."""
    shown = ["SSIM gain", "95% interval"] if gains else []
    columns = ["defense", "rank", *shown, "by chance", "of undefended", "verdicts"]
    lines = [[row["defense"], rank_text(row), *gains.get(row["defense"], []), *_verdicts(row, reasons)] for row in rows]
    return Table("Worst case over all attacks", columns, lines)


def _gain(row: Row) -> list[str]:
    gain = row["ssim_gain"] if not np.isnan(row["ssim_gain"]) else row["ssim_at_least"]
    figure = ABSENT if np.isnan(gain) else f"{bound_sign(row)}{gain:.3f}"
    return [figure, _span(row["ssim_gain_low"], row["ssim_gain_high"])]


def _verdicts(row: Row, reasons: dict[str, int]) -> list[str]:
    verdicts = row["verdicts"] + marked(reasons, row["incomplete"])
    return [number(row["chance"], ".3f"), number(row["of_undefended"], ".0%"), verdicts or ABSENT]


def _parts(row: Row) -> list[str]:
    return [
        row["defense"],
        number(row["not_adapting"], ".3f"),
        number(row["adapting"], ".3f"),
        number(row["identified"], ".0%"),
        number(row["underpowered"], ".0%"),
    ]


def _explanations(rows: list[Row], rule: Rule) -> list[str]:
    notes = [
        "SSIM gain: per image the strongest attack, adapting or not, minus the strongest control that belongs to it "
        "(controls use no gradient); seeds averaged first, then the mean over images.",
        "An image whose strongest attack stays under its floor counts as no gain; where all do there is no interval.",
        "By chance: the gain of as many attacks whose reconstructions are compared with other images. What does not "
        "exceed it comes from no update.",
        "Not adapting: the attacks as published; adapting: the same attacks knowing the defense, where they can.",
        "Of undefended: the ratio to the gain against an undefended client. Identified: the strongest attack's rate.",
    ]
    if any(not pd.isna(row["rank"]) for row in rows):
        notes.append(
            "Rank: 1 + the defenses that leak significantly less (paired bootstrap over images, Holm, "
            f"{rule.alpha:g} for all together); in brackets every rank that the comparisons leave open."
        )
    if any(row["incomparable"] > 0 for row in rows if not pd.isna(row["incomparable"])):
        notes.append("Defenses whose batches cut the images too differently share too few independent units: they tie.")
    if any(map(bound_sign, rows)):
        notes.append(
            "≥: a lower bound. An attack did not finish, or ended above its objective at the private image on some "
            f"images; underpowered: on more than {rule.underpowered_share:.0%} of them."
        )
    if any("unaudited" in row["verdicts"] for row in rows):
        notes.append(
            "Unaudited: no attack that simulates the defense, and works undefended, has finished; a low gain proves no "
            "protection."
        )
    return notes


def _span(low: float, high: float) -> str:
    """An interval; of images that all count as no gain a bootstrap says nothing."""
    return ABSENT if np.isnan(low) or low == high == 0 else f"[{low:.3f}, {high:.3f}]"
