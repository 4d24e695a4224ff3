"""The drawing of a family of strengths: what the strongest attack still gets, by the parameter that varies."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from leaderboards.families import Family, families
from leaderboards.price_tables import bound_sign
from leaderboards.site_axes import Tick, linear_scale, place, round_ticks
from leaderboards.site_lines import anchor_of
from leaderboards.summary import Row

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
