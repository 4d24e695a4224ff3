"""Strength curves: what each attack still reaches as a defense grows stronger."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leaderboards.figures.style import FIGURE_WIDTH, empty_figure
from leaderboards.ranking.families import Family, families
from leaderboards.statistics.summary import Row, scored
from leaderboards.tables.labels import label_lines

ATTACK_MARKERS = "osD^vP*X"
PANELS_ACROSS = 3
"""Panels side by side, at most."""
AXIS_NOTES = {"linear": "", "logarithmic": " (logarithmic)", "even": " (evenly spaced)"}
TITLES = {"psnr_db": "PSNR [dB]", "ssim": "SSIM"}


def strength_curves(rows: list[Row], title: str) -> Figure | None:
    """One panel per family of defenses, its parameter against mean PSNR and SSIM with 95% intervals.

    Defenses with a single strength share the last panel. Dashed: the same attack undefended; dotted: the
    strongest control on the undefended client. None where there is no defense.
    """
    curves, single = families(rows)
    if not curves and not single:
        return None
    metrics = [metric for metric in TITLES if any(scored(r) and not np.isnan(r[f"{metric}_mean"]) for r in rows)]
    metrics = metrics or ["psnr_db"]
    span = min(PANELS_ACROSS, ceil(len(single) / 3))
    columns = min(PANELS_ACROSS, len(curves) + span)
    places = [divmod(i, columns) for i in range(len(curves))]
    line, column = divmod(len(curves), columns)
    if single:
        places.append((line + 1, 0) if column + span > columns else (line, column))
    lines = places[-1][0] + 1
    figure = empty_figure(
        FIGURE_WIDTH if columns > 1 else 0.62 * FIGURE_WIDTH, 0.9 + lines * (0.6 + 1.75 * len(metrics)), "constrained"
    )
    figure.suptitle(title, x=0.01, ha="left")
    grid = figure.add_gridspec(lines * len(metrics), columns)
    for m, metric in enumerate(metrics):
        axes: list[Axes] = []
        for i, (line, column) in enumerate(places):
            width = 1 if i < len(curves) else span
            axes.append(figure.add_subplot(grid[line * len(metrics) + m, column : column + width]))
            if i < len(curves):
                _draw_family(axes[-1], curves[i], rows, metric)
            else:
                _draw_single(axes[-1], single, rows, metric)
        _share_height(axes)
        for ax, (_, column) in zip(axes, places, strict=True):
            if m < len(metrics) - 1:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
            if m > 0:
                ax.set_title("")
            if column == 0:
                ax.set_ylabel(TITLES[metric])
    figure.legend(handles=_legend(rows), loc="outside lower left", ncols=3 if columns > 1 else 2, frameon=False)
    return figure


def _attacks(rows: list[Row]) -> dict[str, tuple[str, str, float]]:
    """Attack -> colour, marker, and sideways shift in [-1, 1] that keeps error bars apart."""
    names = list(dict.fromkeys(row["attack"] for row in rows if not row["control"]))
    colours = sns.color_palette("colorblind", max(len(names), 1)).as_hex()
    shift = np.linspace(-1, 1, len(names)) if len(names) > 1 else [0.0]
    return {
        name: (colours[i], ATTACK_MARKERS[i % len(ATTACK_MARKERS)], float(shift[i])) for i, name in enumerate(names)
    }


def name_family(ax: Axes, family: Family) -> None:
    """Title, axis label and ticks of a panel that shows a family."""
    ax.set_title("\n".join(label_lines(family.title, 40)))
    ax.set_xlabel(family.parameter + AXIS_NOTES[family.scale])
    shown = list(family.strengths)[:: ceil(len(family.strengths) / 6)]
    ax.set_xticks([family.places[x] for x in shown], [f"{x:g}" for x in shown])


def name_single(ax: Axes, labels: Collection[str]) -> None:
    """Title, limits and ticks of the panel that shows the defenses with one strength, at 0, 1, ..."""
    ax.set_title("defenses at one strength")
    ax.set_xlim(-0.5, len(labels) - 0.5)
    ax.set_xticks(range(len(labels)), ["\n".join(label_lines(label, 15)) for label in labels])
    ax.grid(visible=False, axis="x")


def _draw_family(ax: Axes, family: Family, rows: list[Row], metric: str) -> None:
    place = family.places
    step = 0.012 * (max(place.values()) - min(place.values()))
    for attack, (colour, marker, shift) in _attacks(rows).items():
        points = [
            (place[x] + shift * step, row)
            for x, found in family.strengths.items()
            for row in found
            if row["attack"] == attack
        ]
        _draw_points(ax, points, metric, colour, marker, "-")
    _draw_references(ax, rows, metric)
    name_family(ax, family)


def _draw_single(ax: Axes, single: dict[str, list[Row]], rows: list[Row], metric: str) -> None:
    for attack, (colour, marker, shift) in _attacks(rows).items():
        points = [
            (i + 0.15 * shift, row)
            for i, found in enumerate(single.values())
            for row in found
            if row["attack"] == attack
        ]
        _draw_points(ax, points, metric, colour, marker, "none")
    _draw_references(ax, rows, metric)
    name_single(ax, single)


def _draw_points(ax: Axes, points: list[tuple[float, Row]], metric: str, colour: str, marker: str, line: str) -> None:
    # A NaN breaks the line: nothing is drawn across a strength without a result.
    mean, low, high = (
        np.array([row[f"{metric}_{part}"] if scored(row) else np.nan for _, row in points], dtype=float)
        for part in ("mean", "low", "high")
    )
    bars = np.nan_to_num(np.array([mean - low, high - mean]).reshape(2, -1)).clip(min=0)
    x = [place for place, _ in points]
    ax.errorbar(x, mean, yerr=bars, color=colour, marker=marker, ls=line, ms=4.5, lw=1.4, elinewidth=1.1, capsize=2)
    lost = [place for place, row in points if row["status"] not in ("ok", "skipped")]
    ax.plot(lost, [0.05] * len(lost), "x", color=colour, ms=6, mew=1.6, transform=ax.get_xaxis_transform())


def _draw_references(ax: Axes, rows: list[Row], metric: str) -> None:
    """Each attack undefended, and the strongest control."""
    undefended = [r for r in rows if r["defense_name"] == "none" and scored(r) and not np.isnan(r[f"{metric}_mean"])]
    looks = _attacks(rows)
    for row in undefended:
        if not row["control"]:
            ax.axhline(row[f"{metric}_mean"], color=looks[row["attack"]][0], ls="--", lw=1, alpha=0.8)
    floors = [row[f"{metric}_mean"] for row in undefended if row["control"]]
    if floors:
        ax.axhline(max(floors), color="0.25", ls=":", lw=1.5)


def _share_height(axes: list[Axes]) -> None:
    limits = np.array([ax.get_ylim() for ax in axes])
    for ax in axes:
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def _legend(rows: list[Row]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, ms=4.5, label=attack)
        for attack, (colour, marker, _) in _attacks(rows).items()
    ]
    handles += [Line2D([], [], color="0.4", ls="--", lw=1, label="the same attack, undefended")]
    if any(row["control"] for row in rows):
        handles += [Line2D([], [], color="0.25", ls=":", lw=1.5, label="strongest floor: no gradient used")]
    if any(row["status"] not in ("ok", "skipped") for row in rows if not row["control"]):
        handles += [Line2D([], [], color="0.4", marker="x", ls="none", mew=1.6, label="no result")]
    return handles
