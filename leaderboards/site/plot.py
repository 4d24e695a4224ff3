"""The drawing of privacy against accuracy: its points, intervals, front and labels, their colours and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leaderboards.ranking.budgets import BUDGETS
from leaderboards.ranking.families import families
from leaderboards.ranking.pareto import Point, pareto_front, points_of
from leaderboards.site.axes import Box, Label, Tick, coordinate, labels_beside, linear_scale, lost_scale, round_ticks
from leaderboards.site.lines import anchor_of
from leaderboards.site.results import Asked, Results
from leaderboards.site.text import span
from leaderboards.statistics.summary import Row
from leaderboards.tables.prices import bound_sign, epsilon_text

LOOKS = 8
"""So many colours and shapes, then they begin anew; the undefended client has its own."""
UNDEFENDED = "star"
SHAPES = ("disc", "square", "diamond", "up", "down", "cross", "hexagon", "bow")


@dataclass(frozen=True)
class Name:
    """A defense's name in the drawing, and the look of its point."""

    entry: str
    family: str
    parameter: str
    """The parameter by which the family's defenses differ; "" for one alone."""
    value: str
    """The parameter's value; "" for one alone."""
    look: int
    """The number of its colour."""
    shape: str


def named_looks(results: Results, asked: Asked) -> Mapping[str, Name]:
    """Defense -> its entry, family, strength and look; the undefended client first, no family across entries."""
    by_entry: dict[str, list[Row]] = {}
    found: dict[str, Name] = {}
    for evidence in results.questions[asked].defenses:
        row = evidence.row
        entry = results.owners[row["defense"]].name
        by_entry.setdefault(entry, []).append(row)
        if row["defense_name"] == "none":
            found[row["defense"]] = Name(entry, row["defense"], "", "", LOOKS, UNDEFENDED)
    groups: list[tuple[str, str, str, dict[str, str]]] = []
    for entry, rows in by_entry.items():
        several, single = families(rows)
        for f in several:
            values = {rows[0]["defense"]: f"{x:g}" for x, rows in f.strengths.items()}
            groups.append((entry, f.title, f.parameter, values))
        groups += [(entry, label, "", {label: ""}) for label in single]
    for i, (entry, title, parameter, own) in enumerate(groups):
        look = i % LOOKS
        found |= {label: Name(entry, title, parameter, value, look, SHAPES[look]) for label, value in own.items()}
    return found


PLOT_WIDTH, PLOT_HEIGHT = 860.0, 470.0
INSIDE: Box = (58.0, 14.0, 846.0, 418.0)
TICKS = (-20.0, -10.0, -5.0, -3.0, -1.0, 0.0, *BUDGETS, 20.0, 40.0, 80.0)


@dataclass(frozen=True)
class Mark:
    """A defense's point, with the lines of its intervals."""

    defense: str
    anchor: str
    """The place of the defense on its page."""
    x: str
    y: str
    low_x: str
    high_x: str
    low_y: str
    high_y: str
    look: int
    shape: str
    kind: str
    """`full`, `hollow` (claims nothing) or `broken`."""
    words: str
    """The figures, for readers who do not see the drawing."""
    label: Label | None


@dataclass(frozen=True)
class Member:
    """A line of the legend."""

    title: str
    """The family's name."""
    look: int
    """The number of its colour."""
    shape: str
    path: str
    """The line that joins the family's strengths; "" for one alone."""


@dataclass(frozen=True)
class Plot:
    """The whole drawing in its own units."""

    ticks_x: list[Tick]
    ticks_y: list[Tick]
    budgets: list[str]
    marks: list[Mark]
    members: list[Member]
    front: str
    """The path of the front; "" without one."""
    zero: str
    """Coordinate of no gain."""
    kinds: list[str]
    """Kinds of points that the legend explains."""
    size: tuple[float, float] = (PLOT_WIDTH, PLOT_HEIGHT)
    inside: Box = INSIDE


def plot(results: Results, asked: Asked, ranked: set[str]) -> Plot | None:
    """Lost accuracy to the right, SSIM gain upwards; only `ranked` defenses make the front. None without a point."""
    points = _points(results, asked)
    if not points:
        return None
    lost, gains = [p.lost for p in points.values()], [p.gain for p in points.values()]
    low = float(np.nanmin([*(f.low for f in lost), *(f.mean for f in lost), 0.0])) - 0.6
    high = float(np.nanmax([*(f.high for f in lost), *(f.mean for f in lost), 11.0])) * 1.12
    top = float(np.nanmax([*(f.high for f in gains), *(f.mean for f in gains), 0.1])) * 1.08
    left, upper, right, lower = INSIDE
    x = lost_scale(low, high, left, right)
    y = linear_scale(-0.035 * top, top, lower, upper)
    named = named_looks(results, asked)
    signs = {standing.defense: bound_sign(standing) for standing in results.standings[asked]}
    order = [name for name in named if name in points]
    texts = [(x(points[n].lost.mean), y(points[n].gain.mean), _texts(named[n], points[n])) for n in order]
    bars: list[Box] = []
    for p in points.values():
        mean_x, mean_y = x(p.lost.mean), y(p.gain.mean)
        bars += [(mean_x - 1, y(_or(p.gain.high, p.gain.mean)), mean_x + 1, y(_or(p.gain.low, p.gain.mean)))]
        bars += [(x(_or(p.lost.low, p.lost.mean)), mean_y - 1, x(_or(p.lost.high, p.lost.mean)), mean_y + 1)]
    labels = dict(zip(order, labels_beside(texts, bars, INSIDE), strict=True))
    marks = [_mark(points[n], named[n], signs[n], x, y, labels[n]) for n in order]
    able = [(p.lost.mean, round(p.gain.mean, 3)) for n, p in points.items() if p.claims and n in ranked]
    return Plot(
        [Tick(coordinate(x(value)), f"{value:g}") for value in TICKS if low <= value <= high],
        [Tick(coordinate(y(value)), f"{value:g}") for value in round_ticks(0, top)],
        [coordinate(x(budget)) for budget in BUDGETS if budget <= high],
        marks,
        _members(named, points, x, y),
        _steps([(x(a), y(b)) for a, b in (able[i] for i in pareto_front(able))]),
        coordinate(y(0)),
        sorted({mark.kind for mark in marks} - {"full"}),
    )


def _points(results: Results, asked: Asked) -> dict[str, Point]:
    """Defense -> point, each judged beside those that may speak about it."""
    rule, found = results.published.rule, {}
    every = points_of(results.questions[asked], results.costs, rule)
    again = results.ranked_questions.get(asked)
    ranked = points_of(again, results.ranked_costs, rule) if again else {}
    for evidence in results.questions[asked].defenses:
        defense = evidence.row["defense"]
        point = (ranked if results.state(defense) == "re-run" else every).get(defense)
        found |= {} if point is None else {defense: point}
    return found


def _texts(name: Name, point: Point) -> list[str]:
    epsilon = "" if np.isnan(point.epsilon) else f"ε {epsilon_text(point.epsilon)}"
    whole, short = f"{name.family} {name.value}".strip(), name.value or name.family.partition("(")[0]
    return [f"{whole}, {epsilon}", whole, short] if epsilon else [whole, short]


def _mark(point: Point, name: Name, sign: str, x, y, label: Label | None) -> Mark:
    lost, gain = point.lost, point.gain
    words = f"{point.defense}: {lost.mean:z.1f} points of accuracy lost"
    words += f" ({between})" if (between := span(lost.low, lost.high, ".1f")) else ""
    words += f", SSIM gain {sign}{gain.mean:.3f}"
    words += f" ({between})" if (between := span(gain.low, gain.high, ".3f")) else ""
    kind = "broken" if point.broken else "full" if point.claims else "hollow"
    ends = [x(_or(lost.low, lost.mean)), x(_or(lost.high, lost.mean))]
    ends += [y(_or(gain.low, gain.mean)), y(_or(gain.high, gain.mean))]
    low_x, high_x, low_y, high_y = (coordinate(end) for end in ends)
    at = coordinate(x(lost.mean)), coordinate(y(gain.mean))
    return Mark(
        point.defense,
        anchor_of(point.defense),
        *at,
        low_x,
        high_x,
        low_y,
        high_y,
        name.look,
        name.shape,
        kind,
        words,
        label,
    )


def _members(named: Mapping[str, Name], points: Mapping[str, Point], x, y) -> list[Member]:
    groups: dict[tuple[str, str], list[str]] = {}
    for label, name in named.items():
        groups.setdefault((name.entry, name.family), []).append(label)
    titles = [family for _, family in groups]
    found = []
    for (entry, family), own in groups.items():
        there = [points[label] for label in own if label in points]
        path = " L".join(f"{coordinate(x(p.lost.mean))} {coordinate(y(p.gain.mean))}" for p in there)
        first = named[own[0]]
        title = f"{family}: {first.parameter}" if first.parameter else family
        title += f" ({entry})" if titles.count(family) > 1 else ""
        if there:
            found.append(Member(title, first.look, first.shape, f"M{path}" if len(there) > 1 else ""))
    return found


def _steps(front: Sequence[tuple[float, float]]) -> str:
    """To the right first, then down: what is between two of them is no better than the left one."""
    if len(front) < 2:
        return ""
    return f"M{coordinate(front[0][0])} {coordinate(front[0][1])}" + "".join(
        f" H{coordinate(x)} V{coordinate(y)}" for x, y in front[1:]
    )


def _or(value: float, other: float) -> float:
    return other if np.isnan(value) else value
