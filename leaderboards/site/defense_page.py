"""The page of a defense: one entry's strengths, question by question, against every attack, and their curve."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from leaderboards.entries.entry import Entry
from leaderboards.ranking.evidence import METRICS, Attempt, Evidence, granted_text
from leaderboards.ranking.families import Family, families
from leaderboards.ranking.summary import Row, status_text
from leaderboards.site.axes import Tick, linear_scale, place, round_ticks
from leaderboards.site.heat import cell_page
from leaderboards.site.lines import Line, anchor_of, why_no_rank
from leaderboards.site.pictures import Choice, GalleryRow, Pictures, gallery
from leaderboards.site.results import Asked, Faced, Results
from leaderboards.site.text import ABSENT, PERCENT, Figure, number, page_name, significant, span
from leaderboards.tables.prices import bound_sign

WIDTH, HEIGHT = 620.0, 300.0
LEFT, TOP, RIGHT, BOTTOM = 52.0, 14.0, 606.0, 250.0
SCALES = {"linear": "", "logarithmic": ", logarithmic", "even": ", evenly spaced"}


@dataclass(frozen=True)
class Dot:
    """A strength: where its mean and the ends of its interval are, and what it says in words."""

    x: str
    y: str
    low: str
    high: str
    words: str
    anchor: str


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
    size: tuple[float, float] = (WIDTH, HEIGHT)
    inside: tuple[float, float, float, float] = (LEFT, TOP, RIGHT, BOTTOM)


def curves(rows: list[Row], labels: Collection[str]) -> list[Curve]:
    """One drawing for every family among the defenses of these labels; `rows` are those of a question."""
    undefended = next((row["ssim_gain"] for row in rows if row["defense_name"] == "none"), np.nan)
    several, _ = families([row for row in rows if row["defense"] in labels])
    known = {row["defense"]: row for row in rows}
    return [made for family in several if (made := _curve(family, known, undefended)) is not None]


def _curve(family: Family, rows: Mapping[str, Row], undefended: float) -> Curve | None:
    own = {strength: rows[found[0]["defense"]] for strength, found in family.strengths.items()}
    shown = [row for row in own.values() if not np.isnan(_gain(row))]
    if not shown:
        return None
    highest = [_gain(row) for row in shown] + [row["ssim_gain_high"] for row in shown] + [undefended, 0.1]
    top = float(np.nanmax(highest)) * 1.06
    places = family.places
    low, high = min(places.values()), max(places.values())
    x, y = linear_scale(low, high, LEFT + 24, RIGHT - 24), linear_scale(0, top, BOTTOM, TOP)
    dots = []
    for strength, row in own.items():
        if np.isnan(gain := _gain(row)):
            continue
        ends = [gain if np.isnan(end) else end for end in (row["ssim_gain_low"], row["ssim_gain_high"])]
        words = f"{family.parameter} {strength:g}: SSIM gain {bound_sign(row)}{gain:.3f}"
        at = place(x(places[strength])), place(y(gain))
        dots.append(Dot(*at, place(y(ends[0])), place(y(ends[1])), words, anchor_of(row["defense"])))
    step = ceil(len(own) / 7)
    published = [(x(places[s]), y(row["not_adapting"])) for s, row in own.items() if not np.isnan(row["not_adapting"])]
    return Curve(
        title=family.title,
        by=family.parameter,
        parameter=family.parameter + SCALES[family.scale],
        ticks_x=[Tick(place(x(places[s])), f"{s:g}") for s in list(own)[::step]],
        ticks_y=[Tick(place(y(value)), f"{value:g}") for value in round_ticks(0, top, 5)],
        dots=dots,
        worst=_path([(x(places[s]), y(_gain(row))) for s, row in own.items() if not np.isnan(_gain(row))]),
        published=_path([(a, min(b, BOTTOM)) for a, b in published]),
        undefended="" if np.isnan(undefended) else place(y(undefended)),
    )


def _gain(row: Row) -> float:
    return row["ssim_at_least"] if np.isnan(row["ssim_gain"]) else row["ssim_gain"]


def _path(points: list[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{place(x)} {place(y)}" for x, y in points) if len(points) > 1 else ""


@dataclass(frozen=True)
class AttackLine:
    """An attack or a floor against a strength: its seeds with their pages, why it has no result, and its figures."""

    attack: str
    knowledge: str
    adapts: bool
    pages: list[tuple[int, str]]
    status: str
    reason: str
    figures: list[Figure]


@dataclass(frozen=True)
class Strength:
    """A strength of the defense: its line of the leaderboard, what limits it, its attacks, its floors."""

    defense: str
    anchor: str
    line: Line
    limits: list[str]
    attacks: list[AttackLine]
    floors: list[AttackLine]


@dataclass(frozen=True)
class Part:
    """What one question says of the defense."""

    title: str
    anchor: str
    strengths: list[Strength]
    curves: list[Curve]
    choice: Choice | None
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
    results: Results, asked: Asked, title: str, anchor: str, labels: list[str], own: dict[str, Line],
    choice: Choice | None, pictures: Pictures,
) -> Part:  # fmt: skip
    """What a question says of the strengths of a defense; `own` are the question's lines by defense."""
    rows = {row["defense"]: row for row in results.rows[asked]}
    labels = [label for label in labels if label in rows]
    return Part(
        title,
        anchor,
        [_strength(results, asked, rows[label], own[label]) for label in labels],
        curves(results.rows[asked], labels),
        choice,
        gallery(results, asked, choice, labels, pictures) if choice else [],
    )


def _strength(results: Results, asked: Asked, row: Row, line: Line) -> Strength:
    evidence = results.evidence(asked, line.defense)
    told = {"rank": why_no_rank(results, asked, row), "incomplete": row["incomplete"], "accuracy": row["conflicts"]}
    told |= {"training": row["accuracy_reason"], "points lost": row["accuracy_lost_reason"]}
    told |= {"certificate": row["certificate_reason"]}
    # One reason is told once, as what it limits first.
    first = {why: what for what, why in reversed(told.items()) if why}
    limits = [f"{what}: {why}" for what, why in told.items() if why and first[why] == what]
    if line.state != "re-run" and row["unranked"]:
        limits.append(f"beside all entries: {row['unranked']}")
    own = results.summary[asked]
    controls = [(faced, other) for faced, other in own.items() if faced[0] == line.defense and other["control"]]
    floors = [_floor(results, asked, faced, other) for faced, other in controls]
    attacks = [_attack(results, asked, evidence, attempt) for attempt in evidence.attempts]
    return Strength(line.defense, anchor_of(line.defense), line, limits, attacks, floors)


def _attack(results: Results, asked: Asked, evidence: Evidence, attempt: Attempt) -> AttackLine:
    faced: Faced = (evidence.row["defense"], *attempt.variant)
    row = results.summary[asked][faced]
    gain = evidence.summarised(attempt.gain(METRICS[0]))
    floor = float(attempt.floor[METRICS[0]].mean())
    figures = [_psnr(row), number(_of(row, "ssim_mean"), ".3f")]
    if gain is None or attempt.recovers_labels:
        figures += [Figure(ABSENT), Figure(ABSENT)]
    else:
        interval = span(gain.low, gain.high, ".3f")
        figures += [number(floor, ".3f"), Figure(f"{gain.mean:+.3f}", f"{gain.mean:.9g}", interval)]
    figures += [number(_of(row, f"{name}_mean"), PERCENT) for name in ("identified", "label_accuracy", "underpowered")]
    figures += [Figure(str(row["n"]), str(row["n"])), significant(_seconds(results, asked, faced))]
    return _line(results, asked, faced, row, attempt.adapts, figures)


def _floor(results: Results, asked: Asked, faced: Faced, row: Row) -> AttackLine:
    figures = [_psnr(row), number(_of(row, "ssim_mean"), ".3f"), number(_of(row, "identified_mean"), PERCENT)]
    return _line(results, asked, faced, row, False, [*figures, Figure(str(row["n"]), str(row["n"]))])


def _line(results: Results, asked: Asked, faced: Faced, row: Row, adapts: bool, figures: list[Figure]) -> AttackLine:
    behind = results.cells[asked].get(faced, [])
    knowledge = granted_text(*faced[2:]).removeprefix(", ") or "as published"
    pages = [(cell.identity.seed, cell_page(entry, cell)) for entry, cell in behind]
    return AttackLine(faced[1], knowledge, adapts, pages, status_text(row), row["reason"] or "", figures)


def _psnr(row: Row) -> Figure:
    sd = _of(row, "psnr_db_sd")
    mean = number(_of(row, "psnr_db_mean"), ".2f")
    return Figure(mean.text, mean.sort, "" if np.isnan(sd) else f"SD {sd:.2f}")


def _of(row: Row, name: str) -> float:
    return np.nan if row["status"] != "ok" else row[name]


def _seconds(results: Results, asked: Asked, faced: Faced) -> float | None:
    own = [cell.seconds for _, cell in results.cells[asked].get(faced, []) if cell.seconds is not None]
    return sum(own) if own else None
