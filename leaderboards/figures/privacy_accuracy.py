"""The figure of privacy against accuracy, and the places of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from leaderboards.evidence.question import Question
from leaderboards.figures.style import FIGURE_WIDTH, SMALL, empty_figure
from leaderboards.ranking.budgets import BUDGETS
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.families import families
from leaderboards.ranking.pareto import LINEAR_LOSS, Point, pareto_front, points_of
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.tables.prices import epsilon_text

PLACES = [
    (distance * x, distance * y, horizontal, vertical)
    for distance in (5.0, 12.0, 20.0)
    for x, y, horizontal, vertical in (
        (1, 0.7, "left", "bottom"),
        (1, -0.7, "left", "top"),
        (-1, 0.7, "right", "bottom"),
        (-1, -0.7, "right", "top"),
        (0, 1.2, "center", "bottom"),
        (0, -1.2, "center", "top"),
    )
]
"""Offsets in points and alignments, the best first."""
AROUND = 4.0
"""Pixels that a marker and a line's width take on each side."""


def write_beside(
    ax: Axes, labels: Sequence[tuple[float, float, str, str]], avoided: Sequence[tuple[float, float]]
) -> None:
    """Write each label (x, y, text, colour) beside its point, at the first place that is free, or least covered.

    Call it when everything else is drawn and the limits of `ax` are final. `avoided` are places to leave free, x and y.
    """
    figure = ax.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]
    taken = [Bbox([p - AROUND, p + AROUND]) for p in ax.transData.transform(list(avoided))] if avoided else []
    inside = ax.get_window_extent()
    for x, y, text, colour in labels:
        found = []
        for dx, dy, horizontal, vertical in PLACES:
            written = ax.annotate(
                text,
                (x, y),
                (dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=SMALL,
                color=colour,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=5,
            )
            box = written.get_window_extent().padded(1.0)
            hidden = sum(_overlap(box, other) for other in taken) + box.width * box.height - _overlap(box, inside)
            found.append((hidden, written, box))
            if hidden == 0:
                break
        best = min(found, key=lambda own: own[0])
        for own in found:
            if own is not best:
                own[1].remove()
        taken.append(best[2])


def _overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else float(common.width * common.height)


FAMILY_MARKERS = "osD^vPXphd"
FRONT: dict[str, Any] = {"color": "0.84", "lw": 4.5, "solid_capstyle": "round", "zorder": 1}
PLANE_HEIGHT = 4.6
"""Inches, without the legend."""


def pareto_plot(question: Question, costs: RunCosts, title: str, rule: RankingRule | None = None) -> Figure | None:
    """Accuracy lost against the strongest attack's SSIM gain, both with 95% intervals: the lower left corner is best.

    A family is a colour, its strengths are joined by a line and written beside the points, with epsilon where there is
    a proof. Hollow points bound leakage from below or have fewer than three seeds, a cross has a broken certificate:
    these claim nothing, and the front, which joins the means that no other beats, passes them by. None unless some
    defense has both figures.
    """
    points = points_of(question, costs, rule)
    several, single = families([evidence.row for evidence in question.defenses])
    groups = {
        f.title + f": {f.parameter}": {f"{x:g}": own[0]["defense"] for x, own in f.strengths.items()} for f in several
    }
    groups |= {label: {"": label} for label in single}
    placed = {name: {text: points.get(defense) for text, defense in own.items()} for name, own in groups.items()}
    placed = {name: own for name, own in placed.items() if any(own.values())}
    if not placed:
        return None
    undefended = None if question.undefended is None else points.get(question.undefended.row["defense"])
    figure = empty_figure(FIGURE_WIDTH, PLANE_HEIGHT + 0.18 * ((len(placed) + 6) // 2), "constrained")
    figure.suptitle(title, x=0.01, ha="left")
    ax = figure.subplots()
    colours = dict(zip(placed, sns.color_palette("colorblind", len(placed)).as_hex(), strict=True))
    markers = {name: FAMILY_MARKERS[i % len(FAMILY_MARKERS)] for i, name in enumerate(placed)}
    for name, own in placed.items():
        _draw(ax, list(own.values()), colours[name], markers[name])
    if undefended is not None:
        _draw(ax, [undefended], "black", "*")
    front = _draw_front(ax, points)
    equal_images = (rule or RankingRule()).weighs_equal_images
    _name_axes(ax, list(points.values()), _chance(question, costs), " at equal images" * equal_images)
    figure.legend(
        handles=_legend(placed, colours, markers, points, undefended, front),
        loc="outside lower left",
        ncols=2,
        frameon=False,
    )
    labels = [
        (p.lost.mean, p.gain.mean, _text(strength, p), colours[name])
        for name, own in placed.items()
        for strength, p in own.items()
        if p is not None
    ]
    write_beside(ax, [own for own in labels if own[2]], [(p.lost.mean, p.gain.mean) for p in points.values()])
    return figure


def _draw(ax: Axes, strengths: Sequence[Point | None], colour: str, marker: str) -> None:
    """A family's points with their intervals, joined in the order of their strengths, but across no missing one."""
    means = [(np.nan, np.nan) if p is None else (p.lost.mean, p.gain.mean) for p in strengths]
    ax.plot(*np.array(means).T, color=colour, lw=1, alpha=0.6, zorder=2)
    points = [p for p in strengths if p is not None]
    x, y = np.array([(p.lost.mean, p.gain.mean) for p in points]).T
    bounds = [
        np.array([(f.low, f.high) for f in own]).T for own in ([p.lost for p in points], [p.gain for p in points])
    ]
    bars = [np.nan_to_num(np.abs(b - mean)) for b, mean in zip(bounds, (x, y), strict=True)]
    size = 10 if marker == "*" else 5.5
    ax.errorbar(x, y, xerr=bars[0], yerr=bars[1], color=colour, ls="none", elinewidth=1, capsize=2, alpha=0.7, zorder=3)
    for point in points:
        face = colour if point.claims else "white"
        shape = "x" if point.broken else marker
        ax.plot(
            point.lost.mean, point.gain.mean, ls="none", marker=shape, ms=size, mfc=face, mec=colour, mew=1.2, zorder=4
        )


def _draw_front(ax: Axes, points: dict[str, Point]) -> bool:
    """The steps between the means that no other beats, of those that claim something; returns whether there are any."""
    # Four images of a hundred that gain a hundredth put nobody behind a dearer defense.
    able = [(p.lost.mean, round(p.gain.mean, 3)) for p in points.values() if p.claims]
    front = [able[i] for i in pareto_front(able)]
    if len(front) > 1:
        ax.step(*np.array(front).T, where="post", **FRONT)
    return len(front) > 1


def _name_axes(ax: Axes, points: list[Point], chance: float, compared: str) -> None:
    ax.set_xscale("symlog", linthresh=LINEAR_LOSS, linscale=1.6)
    highest = float(np.nanmax([*(max(p.lost.mean, p.lost.high) for p in points), 12.0]))
    lowest = float(np.nanmin([*(min(p.lost.mean, p.lost.low) for p in points), 0.0]))
    ax.set_xlim(lowest - 0.4, highest * 1.25)
    for budget in BUDGETS:
        ax.axvline(budget, color="0.8", lw=0.8, ls=(0, (4, 3)), zorder=0)
    ticks = [x for x in (-5, -3, -1, 0, *BUDGETS, 20, 40, 80) if lowest - 0.4 <= x <= highest * 1.25]
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.minorticks_off()
    ax.grid(visible=False, axis="x")
    ax.axhline(0, color="0.25", ls=":", lw=1.2, zorder=0)
    if not np.isnan(chance) and chance < highest * 1.25:
        ax.axvline(chance, color="0.4", lw=1, zorder=0)
        at_the_top = {"rotation": 90, "ha": "right", "va": "top", "fontsize": SMALL, "color": "0.4"}
        place: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
        ax.annotate("accuracy of chance", (chance, 0.99), (-3, 0), **place, **at_the_top)
    ax.set_xlabel(
        f"test accuracy lost{compared} [percentage points; logarithmic from {LINEAR_LOSS:g} on; dashed: the budgets]"
    )
    ax.set_ylabel("SSIM gain of the strongest attack [95% intervals]")


def _chance(question: Question, costs: RunCosts) -> float:
    """The points of accuracy that guessing loses; NaN where undefended training has no accuracy."""
    row, undefended = question.row, question.undefended
    if undefended is None:
        return np.nan
    training = costs.trained.get((row["dataset"], row["model"], undefended.row["defense"]))
    return np.nan if training is None else 100 * (training.at_equal_rounds.accuracy.mean - training.facts["chance"])


def _text(strength: str, point: Point) -> str:
    epsilon = "" if np.isnan(point.epsilon) else f"ε {epsilon_text(point.epsilon)}"
    return f"{strength} ({epsilon})" if strength and epsilon else strength or epsilon


def _legend(
    placed: Mapping[str, Mapping[str, Point | None]],
    colours: dict[str, str],
    markers: dict[str, str],
    points: dict[str, Point],
    undefended: Point | None,
    front: bool,
) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=colours[name],
            marker=markers[name],
            ms=5.5,
            lw=1,
            ls="-" if len(own) > 1 else "none",
            label=name,
        )
        for name, own in placed.items()
    ]
    if undefended is not None:
        handles.append(Line2D([], [], color="black", marker="*", ms=10, ls="none", label="the undefended client"))
    if front:
        handles.append(Line2D([], [], label="front: no other mean is better in both", **FRONT))
    if any(not p.claims and not p.broken for p in points.values()):
        hollow = "hollow: a lower bound, fewer than 3 seeds, or no rank; not in the front"
        handles.append(Line2D([], [], color="0.4", marker="o", mfc="white", ms=5.5, ls="none", label=hollow))
    if any(p.broken for p in points.values()):
        handles.append(Line2D([], [], color="0.4", marker="x", ls="none", mew=1.2, label="broken certificate"))
    return handles
