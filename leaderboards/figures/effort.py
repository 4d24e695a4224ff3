"""Effort curves: leakage against an attack's iterations, one line per defense."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import ceil

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.columns import granted_text
from leaderboards.evidence.attempt import Attempt
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.question import Question
from leaderboards.evidence.record import HEADLINE, Variant
from leaderboards.figures.curves import PANELS_ACROSS
from leaderboards.figures.style import FIGURE_WIDTH, empty_figure
from leaderboards.tables.labels import label_lines

EffortGroup = tuple[str, *tuple[bool, ...]]
"""An attack with all its parameters but the iterations, and what it was granted."""


def effort_curves(question: Question, title: str) -> Figure | None:
    """One panel per attack that ran with several numbers of iterations: these against the mean SSIM, 95% intervals.

    A line is a defense. Dotted: the strongest floor of the undefended client. None without such an attack.
    """
    groups = {group: own for group, own in _by_effort(question).items() if len(own) > 1}
    if not groups:
        return None
    columns = min(PANELS_ACROSS, len(groups))
    lines = ceil(len(groups) / columns)
    defenses = [evidence.row["defense"] for evidence in question.defenses]
    colours = dict(zip(defenses, sns.color_palette("colorblind", len(defenses)).as_hex(), strict=True))
    width = FIGURE_WIDTH if columns > 1 else 0.62 * FIGURE_WIDTH
    figure = empty_figure(width, 0.8 + 2.6 * lines + 0.17 * ceil(len(defenses) / 2), "constrained")
    figure.suptitle(title, x=0.01, ha="left")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for ax, ((name, *granted), efforts) in zip(axes, groups.items(), strict=False):
        ax.set_title("\n".join(label_lines(name, 40)) + granted_text(*granted))
        variants: dict[int, Variant] = {iterations: (label, *granted) for iterations, label in efforts.items()}
        _draw(ax, question, variants, colours)
    for ax in axes[len(groups) :]:
        ax.set_visible(False)
    for ax in axes[::columns]:
        ax.set_ylabel("SSIM")
    handles = [Line2D([], [], color=colour, marker="o", ms=4, label=label) for label, colour in colours.items()]
    handles.append(Line2D([], [], color="0.25", ls=":", lw=1.5, label="strongest floor, undefended"))
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False)
    return figure


def _by_effort(question: Question) -> dict[EffortGroup, dict[int, str]]:
    """Group -> iterations -> the attack's label."""
    found: dict[EffortGroup, dict[int, str]] = {}
    for (label, *granted), (first, *_) in question.attempts.items():
        parameters = json.loads(first.parameters)
        iterations = parameters.pop("iterations", None)
        if isinstance(iterations, int):
            others = _differing(question, first.name, parameters)
            found.setdefault((f"{first.name}{others}", *granted), {})[iterations] = label
    return {group: dict(sorted(efforts.items())) for group, efforts in found.items()}


def _differing(question: Question, name: str, parameters: Mapping[str, object]) -> str:
    """The parameters, in brackets, by which attacks of this name differ beside their iterations."""
    alike = [json.loads(own[0].parameters) for own in question.attempts.values() if own[0].name == name]
    keys = [key for key, value in parameters.items() if any(other.get(key) != value for other in alike)]
    return f"({', '.join(f'{key}={parameters[key]}' for key in keys)})" if keys else ""


def _draw(ax: Axes, question: Question, variants: dict[int, Variant], colours: Mapping[str, str]) -> None:
    for evidence in question.defenses:
        figures = [_bounds(evidence, evidence.attempt(variant)) for variant in variants.values()]
        mean, low, high = np.array(figures).T
        bars = np.nan_to_num(np.array([mean - low, high - mean])).clip(min=0)
        colour = colours[evidence.row["defense"]]
        ax.errorbar(list(variants), mean, yerr=bars, color=colour, marker="o", ms=4, lw=1.3, elinewidth=1, capsize=2)
    if question.undefended is not None and not np.isnan(question.undefended.floor):
        ax.axhline(question.undefended.floor, color="0.25", ls=":", lw=1.5)
    ax.set_xscale("log")
    ax.set_xlabel("iterations (logarithmic)")
    ax.set_xticks(list(variants), [str(n) for n in variants])
    ax.minorticks_off()


def _bounds(evidence: Evidence, attempt: Attempt | None) -> tuple[float, float, float]:
    found = None if attempt is None or not attempt.whole else evidence.summarised(attempt.score[HEADLINE])
    return (np.nan, np.nan, np.nan) if found is None else (found.mean, found.low, found.high)
