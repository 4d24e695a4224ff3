"""The headline figure: what the strongest attack reaches as a defense grows stronger, adapting to it and not."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.comparison import independent
from bench.statistics import Summary, summary_of
from leaderboards.curves import SCALES
from leaderboards.evidence import METRICS, Evidence, Question
from leaderboards.families import Family, families
from leaderboards.figures import WIDTH, empty_figure
from leaderboards.labels import label_lines
from leaderboards.verdicts import Rule, missing

COLUMNS = 3
LINES = {False: ("not adapting", "o", "--"), True: ("adapting to the defense", "s", "-")}


def leakage_curves(question: Question, title: str) -> Figure | None:
    """One panel per family of defenses: its parameter against the mean SSIM of the strongest attack, 95% intervals.

    The attacks as published are one line, the same attacks knowing the defense another. Dashed grey: the undefended
    client; dotted: the strongest floor there. A hollow marker is underpowered, a cross has no whole result.
    Defenses with one strength share the last panel. None without a defense or an SSIM.
    """
    several, single = families([evidence.row for evidence in question.defenses])
    # Without what failed the strongest attack would look weaker than it may be: nothing is drawn there.
    by_label = {e.row["defense"]: e for e in question.defenses if not missing(question, e, Rule())}
    if not (several or single) or all(_reached(e, None) is None for e in question.defenses):
        return None
    panels = len(several) + bool(single)
    columns = min(COLUMNS, panels)
    lines = ceil(panels / columns)
    figure = empty_figure(WIDTH if columns > 1 else 0.62 * WIDTH, 0.9 + 2.6 * lines, "constrained")
    figure.suptitle(title, x=0.01, ha="left")
    axes = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False).ravel())
    for ax, family in zip(axes, several, strict=False):
        _draw_family(ax, family, by_label)
    if single:
        _draw_single(axes[len(several)], {label: by_label.get(label) for label in single})
    for ax in axes[panels:]:
        ax.set_visible(False)
    for ax in axes[:panels]:
        _draw_references(ax, question.undefended)
    for ax in axes[::columns]:
        ax.set_ylabel("SSIM of the strongest attack")
    figure.legend(handles=_legend(question), loc="outside lower left", ncols=2, frameon=False)
    return figure


def _draw_family(ax: Axes, family: Family, by_label: dict[str, Evidence]) -> None:
    ax.set_title("\n".join(label_lines(family.title, 40)))
    ax.set_xlabel(family.parameter + SCALES[family.scale])
    _draw_lines(ax, [(family.places[x], by_label.get(rows[0]["defense"])) for x, rows in family.strengths.items()])
    shown = list(family.strengths)[:: ceil(len(family.strengths) / 6)]
    ax.set_xticks([family.places[x] for x in shown], [f"{x:g}" for x in shown])


def _draw_single(ax: Axes, single: dict[str, Evidence | None]) -> None:
    ax.set_title("defenses at one strength")
    _draw_lines(ax, enumerate(single.values()), joined=False)
    ax.set_xlim(-0.5, len(single) - 0.5)
    ax.set_xticks(range(len(single)), ["\n".join(label_lines(label, 15)) for label in single])
    ax.grid(visible=False, axis="x")


def _draw_lines(ax: Axes, points: Iterable[tuple[float, Evidence | None]], joined: bool = True) -> None:
    placed = list(points)
    for adaptive, (_, marker, line) in LINES.items():
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
                color=_colours()[adaptive],
                marker=marker,
                ls=line if joined else "none",
                ms=4.5,
                lw=1.4,
                elinewidth=1.1,
                capsize=2,
            )
            weak = [own is not None and _is_weak(own) for _, own in placed]
            ax.plot(np.array([place for place, _ in found])[weak], mean[weak], **_hollow(adaptive, marker))
    lost = [place for place, own in placed if own is None]
    ax.plot(lost, [0.05] * len(lost), "x", color="0.4", ms=6, mew=1.6, transform=ax.get_xaxis_transform())


def _is_weak(evidence: Evidence) -> bool:
    return float(evidence.underpowered.mean()) > Rule().underpowered_share


def _hollow(adaptive: bool, marker: str) -> dict[str, Any]:
    return {"ls": "none", "marker": marker, "ms": 4.5, "mfc": "white", "mec": _colours()[adaptive], "zorder": 3}


def _draw_references(ax: Axes, undefended: Evidence | None) -> None:
    if undefended is None:
        return
    score, gain = undefended.score(METRICS[0]), undefended.gain(METRICS[0])
    if not np.isnan(gain).any():
        ax.axhline(float(score.mean()), color="0.45", ls=(0, (5, 2)), lw=1)
        ax.axhline(float((score - gain).mean()), color="0.25", ls=":", lw=1.5)


def _reached(evidence: Evidence, adaptive: bool | None) -> Summary | None:
    """The strongest attack's mean SSIM; None unless every image has one."""
    score = evidence.score(METRICS[0], adaptive)
    if not len(score) or np.isnan(score).any():
        return None
    return summary_of(score, independent(score, evidence.groups))


def _colours() -> dict[bool, str]:
    grey, strong = sns.color_palette("colorblind", 4).as_hex()[2:]
    return {False: grey, True: strong}


def _legend(question: Question) -> list[Line2D]:
    handles = []
    for adaptive, (label, marker, line) in LINES.items():
        if any(_reached(evidence, adaptive) is not None for evidence in question.defenses):
            handles.append(Line2D([], [], color=_colours()[adaptive], marker=marker, ls=line, ms=4.5, label=label))
    drawn = [e for e in question.defenses if e.row["defense_name"] != "none"]
    if any(missing(question, e, Rule()) for e in drawn):
        handles.append(Line2D([], [], color="0.4", marker="x", ls="none", mew=1.6, label="no whole result"))
    if any(_is_weak(e) for e in drawn):
        hollow = {**_hollow(True, "o"), "mec": "0.4"}
        handles.append(Line2D([], [], label="hollow: underpowered, a lower bound", **hollow))
    if question.undefended is not None:
        handles.append(Line2D([], [], color="0.45", ls=(0, (5, 2)), lw=1, label="ceiling: the undefended client"))
        handles.append(Line2D([], [], color="0.25", ls=":", lw=1.5, label="strongest floor: no gradient used"))
    return handles
