"""The page of a defense: one entry's strengths, question by question, against every attack, and their curve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from bench.columns import granted_text
from leaderboards.entries.entry import Entry
from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.record import HEADLINE
from leaderboards.ranking.families import Family, families
from leaderboards.ranking.ranking import rule_set_of
from leaderboards.ranking.standing import Standing
from leaderboards.site.axes import Tick, coordinate, linear_scale, round_ticks
from leaderboards.site.heat import cell_page
from leaderboards.site.lines import LeaderboardLine, anchor_of, why_no_rank
from leaderboards.site.pictures import GalleryRow, ImageChoice, Pictures, gallery_rows
from leaderboards.site.results import Asked, Faced, Results
from leaderboards.site.text import DASH, PERCENT, Figure, number_figure, page_name, significant, span
from leaderboards.statistics.summary import Row, status_text
from leaderboards.tables.prices import bound_sign

CURVE_WIDTH, CURVE_HEIGHT = 620.0, 300.0
LEFT, TOP, RIGHT, BOTTOM = 52.0, 14.0, 606.0, 250.0
SCALES = {"linear": "", "logarithmic": ", logarithmic", "even": ", evenly spaced"}


@dataclass(frozen=True)
class Dot:
    """A strength in the drawing of its family."""

    x: str
    y: str
    """Coordinate of the mean."""
    low: str
    """Coordinate of the lower end of the interval."""
    high: str
    words: str
    """The figures, for readers who do not see the drawing."""
    anchor: str
    """The place of the strength on the page."""


@dataclass(frozen=True)
class Curve:
    """The drawing in its own units: the worst case with intervals, attacks as published, and the undefended client."""

    title: str
    by: str
    parameter: str
    ticks_x: list[Tick]
    ticks_y: list[Tick]
    dots: list[Dot]
    worst: str
    published: str
    undefended: str
    size: tuple[float, float] = (CURVE_WIDTH, CURVE_HEIGHT)
    inside: tuple[float, float, float, float] = (LEFT, TOP, RIGHT, BOTTOM)


def curves(standings: list[Standing], labels: Collection[str]) -> list[Curve]:
    """One drawing for every family among the defenses of these labels; `standings` are those of a question."""
    undefended = next((own.gain.mean for own in standings if own.is_undefended), np.nan)
    several, _ = families([own.evidence.row for own in standings if own.defense in labels])
    known = {own.defense: own for own in standings}
    return [made for family in several if (made := _curve(family, known, undefended)) is not None]


def _curve(family: Family, standings: Mapping[str, Standing], undefended: float) -> Curve | None:
    own = {strength: standings[found[0]["defense"]] for strength, found in family.strengths.items()}
    shown = {strength: standing for strength, standing in own.items() if not np.isnan(standing.shown_gain)}
    if not shown:
        return None
    highest = [one.shown_gain for one in shown.values()] + [one.gain.high for one in shown.values()]
    top = float(np.nanmax([*highest, undefended, 0.1])) * 1.06
    places = family.places
    low, high = min(places.values()), max(places.values())
    x, y = linear_scale(low, high, LEFT + 24, RIGHT - 24), linear_scale(0, top, BOTTOM, TOP)
    dots = []
    for strength, standing in shown.items():
        gain = standing.shown_gain
        ends = [gain if np.isnan(end) else end for end in (standing.gain.low, standing.gain.high)]
        words = f"{family.parameter} {strength:g}: SSIM gain {bound_sign(standing)}{gain:.3f}"
        at = coordinate(x(places[strength])), coordinate(y(gain))
        dots.append(Dot(*at, coordinate(y(ends[0])), coordinate(y(ends[1])), words, anchor_of(standing.defense)))
    step = ceil(len(own) / 7)
    published = [(x(places[s]), y(one.not_adapting)) for s, one in own.items() if not np.isnan(one.not_adapting)]
    return Curve(
        title=family.title,
        by=family.parameter,
        parameter=family.parameter + SCALES[family.scale],
        ticks_x=[Tick(coordinate(x(places[s])), f"{s:g}") for s in list(own)[::step]],
        ticks_y=[Tick(coordinate(y(value)), f"{value:g}") for value in round_ticks(0, top, 5)],
        dots=dots,
        worst=_path([(x(places[s]), y(one.shown_gain)) for s, one in shown.items()]),
        published=_path([(a, min(b, BOTTOM)) for a, b in published]),
        undefended="" if np.isnan(undefended) else coordinate(y(undefended)),
    )


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points) if len(points) > 1 else ""


@dataclass(frozen=True)
class AttackLine:
    """An attack or a floor against a strength."""

    attack: str
    knowledge: str
    """The facts that it was granted, in words."""
    adapts: bool
    pages: list[tuple[int, str]]
    """Every seed with the page of its cell."""
    status: str
    reason: str
    """The reason for which it has no result; "" where it has one."""
    figures: list[Figure]


@dataclass(frozen=True)
class Strength:
    """A strength of the defense, with its line of the leaderboard."""

    defense: str
    anchor: str
    line: LeaderboardLine
    limits: list[str]
    """Sentences about what limits its evidence."""
    attacks: list[AttackLine]
    floors: list[AttackLine]


@dataclass(frozen=True)
class Part:
    """The part of a defense's page that is about one question."""

    title: str
    anchor: str
    strengths: list[Strength]
    curves: list[Curve]
    choice: ImageChoice | None
    gallery: list[GalleryRow]


ATTACK_COLUMNS = ("PSNR", "SSIM", "its floor", "gain", "identified", "labels", "underpowered", "n", "seconds")
FLOOR_COLUMNS = ("PSNR", "SSIM", "identified", "n")


def pages_of(results: Results) -> dict[str, str]:
    """Defense -> the page that all strengths of its name share within their entry."""
    found = {}
    for entry in results.published.entries:
        for cell in entry.cells:
            name = cell.identity.defense_name
            found[cell.identity.defense] = f"defenses/{page_name(entry.name, name)}.html"
    return found


def strengths_of(entry: Entry) -> dict[str, list[str]]:
    """Name of every defense in an entry -> its labels."""
    found: dict[str, list[str]] = {}
    for cell in entry.cells:
        own = found.setdefault(cell.identity.defense_name, [])
        if cell.identity.defense not in own:
            own.append(cell.identity.defense)
    return found


def part(
    results: Results, asked: Asked, title: str, anchor: str, labels: list[str], own: dict[str, LeaderboardLine],
    choice: ImageChoice | None, pictures: Pictures,
) -> Part:  # fmt: skip
    """The part of a page about the strengths of a defense in a question; `own` are the question's lines by defense."""
    standings = {standing.defense: standing for standing in results.standings[asked]}
    labels = [label for label in labels if label in standings]
    return Part(
        title,
        anchor,
        [_strength(results, asked, standings[label], own[label]) for label in labels],
        curves(results.standings[asked], labels),
        choice,
        gallery_rows(results, asked, choice, labels, pictures) if choice else [],
    )


def _strength(results: Results, asked: Asked, standing: Standing, line: LeaderboardLine) -> Strength:
    price, rule = standing.price, results.published.board.rule
    told = {"rank": why_no_rank(results, asked, standing), "incomplete": standing.incomplete}
    told |= {"accuracy": price.conflicts, "training": price.accuracy_reason}
    told |= {"points lost": price.loss_reason(rule.weighs_equal_images), "certificate": price.certificate_reason}
    # One reason is told once, as what it limits first.
    first = {why: what for what, why in reversed(told.items()) if why}
    limits = [f"{what}: {why}" for what, why in told.items() if why and first[why] == what]
    if line.state != "re-run" and standing.unranked:
        limits.append(f"beside all entries: {standing.unranked}")
    own = results.summary[asked]
    controls = [(faced, other) for faced, other in own.items() if faced[0] == line.defense and other["control"]]
    floors = [_floor(results, asked, faced, other) for faced, other in controls]
    attacks = [_attack(results, asked, standing.evidence, attempt) for attempt in standing.evidence.attempts]
    return Strength(line.defense, anchor_of(line.defense), line, limits, attacks, floors)


def _attack(results: Results, asked: Asked, evidence: Evidence, attempt: Attempt) -> AttackLine:
    faced: Faced = (evidence.row["defense"], *attempt.variant)
    row = results.summary[asked][faced]
    alone = replace(evidence, attempts=(attempt,))
    gain = rule_set_of(results.published.board.rule).leakage(alone).excess
    floor = float(attempt.score[HEADLINE].mean()) - gain.mean
    figures = [_psnr(row), number_figure(_of(row, "ssim_mean"), ".3f")]
    if np.isnan(gain.mean) or attempt.recovers_labels:
        figures += [Figure(DASH), Figure(DASH)]
    else:
        interval = span(gain.low, gain.high, ".3f")
        figures += [number_figure(floor, ".3f"), Figure(f"{gain.mean:+.3f}", f"{gain.mean:.9g}", interval)]
    figures += [
        number_figure(_of(row, f"{name}_mean"), PERCENT) for name in ("identified", "label_accuracy", "underpowered")
    ]
    figures += [Figure(str(row["n"]), str(row["n"])), significant(_seconds(results, asked, faced))]
    return _line(results, asked, faced, row, attempt.adapts, figures)


def _floor(results: Results, asked: Asked, faced: Faced, row: Row) -> AttackLine:
    figures = [
        _psnr(row),
        number_figure(_of(row, "ssim_mean"), ".3f"),
        number_figure(_of(row, "identified_mean"), PERCENT),
    ]
    return _line(results, asked, faced, row, False, [*figures, Figure(str(row["n"]), str(row["n"]))])


def _line(results: Results, asked: Asked, faced: Faced, row: Row, adapts: bool, figures: list[Figure]) -> AttackLine:
    behind = results.cells[asked].get(faced, [])
    knowledge = granted_text(*faced[2:]).removeprefix(", ") or "as published"
    pages = [(cell.identity.seed, cell_page(entry, cell)) for entry, cell in behind]
    return AttackLine(faced[1], knowledge, adapts, pages, status_text(row), row["reason"] or "", figures)


def _psnr(row: Row) -> Figure:
    sd = _of(row, "psnr_db_sd")
    mean = number_figure(_of(row, "psnr_db_mean"), ".2f")
    return Figure(mean.text, mean.sort, "" if np.isnan(sd) else f"SD {sd:.2f}")


def _of(row: Row, name: str) -> float:
    return np.nan if row["status"] != "ok" else row[name]


def _seconds(results: Results, asked: Asked, faced: Faced) -> float | None:
    own = [cell.seconds for _, cell in results.cells[asked].get(faced, []) if cell.seconds is not None]
    return sum(own) if own else None
