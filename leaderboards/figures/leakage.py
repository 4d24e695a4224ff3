"""The headline figure: what the strongest attack reaches as a defense grows stronger, adapting to it and not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE
from leaderboards.figures.curves import PANELS_ACROSS, name_family, name_single
from leaderboards.figures.style import FIGURE_WIDTH, empty_figure
from leaderboards.ranking.families import families
from leaderboards.ranking.verdicts import RankingRule, missing
from leaderboards.statistics.intervals import Summary

GREEN, RED = sns.color_palette("colorblind", 4).as_hex()[2:]
LINES = {False: ("not adapting", GREEN, "o", "--"), True: ("adapting to the defense", RED, "s", "-")}


def leakage_curves(question: Question, title: str) -> Figure | None:
    """One panel per family of defenses: its parameter against the mean SSIM of the strongest attack, 95% intervals.

    The attacks as published are one line, the same attacks knowing the defense another. Dashed grey: the undefended
    client; dotted: the strongest floor there. A hollow marker is underpowered, a cross has no whole result.
    Defenses with one strength share the last panel. None without a defense or an SSIM.
    """
    several, single = families([evidence.row for evidence in question.defenses])
    # Without what failed the strongest attack would look weaker than it may be: nothing is drawn there.
    by_label = {e.row["defense"]: e for e in question.defenses if not missing(question, e, RankingRule())}
    if not (several or single) or all(_reached(e, None) is None for e in question.defenses):
        return None
    panels = len(several) + bool(single)
    columns = min(PANELS_ACROSS, panels)
    lines = ceil(panels / columns)
    figure = empty_figure(FIGURE_WIDTH if columns > 1 else 0.62 * FIGURE_WIDTH, 0.9 + 2.6 * lines, "constrained")
    figure.suptitle(title, x=0.01, ha="left")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for ax, family in zip(axes, several, strict=False):
        _draw_lines(ax, [(family.places[x], by_label.get(rows[0]["defense"])) for x, rows in family.strengths.items()])
        name_family(ax, family)
    if single:
        _draw_lines(axes[len(several)], [(i, by_label.get(label)) for i, label in enumerate(single)], joined=False)
        name_single(axes[len(several)], single)
    for ax in axes[panels:]:
        ax.set_visible(False)
    for ax in axes[:panels]:
        _draw_references(ax, question.undefended)
    for ax in axes[::columns]:
        ax.set_ylabel("SSIM of the strongest attack")
    figure.legend(handles=_legend(question, by_label), loc="outside lower left", ncols=2, frameon=False)
    return figure


def _draw_lines(ax: Axes, placed: Sequence[tuple[float, Evidence | None]], joined: bool = True) -> None:
    """Each defense at its place; None where it has no whole result."""
    for adaptive, (_, colour, marker, line) in LINES.items():
        found = [(place, None if own is None else _reached(own, adaptive)) for place, own in placed]
        # A NaN breaks the line: nothing is drawn across a strength without a result.
        mean = np.array([np.nan if own is None else own.mean for _, own in found])
        bounds = [(np.nan, np.nan) if own is None else (own.low, own.high) for _, own in found]
        bars = np.nan_to_num(np.abs(np.array(bounds).T - mean))
        if not np.isnan(mean).all():
            ax.errorbar(
                [place for place, _ in found],
                mean,
                yerr=bars,
                color=colour,
                marker=marker,
                ls=line if joined else "none",
                ms=4.5,
                lw=1.4,
                elinewidth=1.1,
                capsize=2,
            )
            weak = [own is not None and _is_weak(own) for _, own in placed]
            ax.plot(np.array([place for place, _ in found])[weak], mean[weak], **_hollow(colour, marker))
    lost = [place for place, own in placed if own is None]
    ax.plot(lost, [0.05] * len(lost), "x", color="0.4", ms=6, mew=1.6, transform=ax.get_xaxis_transform())


def _is_weak(evidence: Evidence) -> bool:
    return float(evidence.underpowered.mean()) > RankingRule().underpowered_share


def _hollow(colour: str, marker: str) -> dict[str, Any]:
    return {"ls": "none", "marker": marker, "ms": 4.5, "mfc": "white", "mec": colour, "zorder": 3}


def _draw_references(ax: Axes, undefended: Evidence | None) -> None:
    if undefended is None or np.isnan(undefended.floor):
        return
    ax.axhline(float(undefended.score(HEADLINE).mean()), color="0.45", ls=(0, (5, 2)), lw=1)
    ax.axhline(undefended.floor, color="0.25", ls=":", lw=1.5)


def _reached(evidence: Evidence, adaptive: bool | None) -> Summary | None:
    """The strongest attack's mean SSIM; None unless every image has one."""
    return evidence.summarised(evidence.score(HEADLINE, adaptive))


def _legend(question: Question, by_label: Mapping[str, Evidence]) -> list[Line2D]:
    handles = []
    for adaptive, (label, colour, marker, line) in LINES.items():
        if any(_reached(evidence, adaptive) is not None for evidence in question.defenses):
            handles.append(Line2D([], [], color=colour, marker=marker, ls=line, ms=4.5, label=label))
    drawn = [e for e in question.defenses if e.row["defense_name"] != "none"]
    if any(e.row["defense"] not in by_label for e in drawn):
        handles.append(Line2D([], [], color="0.4", marker="x", ls="none", mew=1.6, label="no whole result"))
    if any(_is_weak(e) for e in drawn):
        handles.append(Line2D([], [], label="hollow: underpowered, a lower bound", **_hollow("0.4", "o")))
    if question.undefended is not None:
        handles.append(Line2D([], [], color="0.45", ls=(0, (5, 2)), lw=1, label="ceiling: the undefended client"))
        handles.append(Line2D([], [], color="0.25", ls=":", lw=1.5, label="strongest floor: no gradient used"))
    return handles
