"""The heat map: mean PSNR of every attack against every defense."""

from __future__ import annotations

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from leaderboards.figures.style import FIGURE_WIDTH, HATCH, NORMAL, SMALL, empty_figure
from leaderboards.statistics.summary import Row, scored, status_text
from leaderboards.tables.labels import label_lines

FLOOR = "strongest floor"


def heat_map(rows: list[Row], title: str) -> Figure:
    """Defenses down, attacks across, the strongest control last; cells without a result are hatched."""
    defenses = list(dict.fromkeys(row["defense"] for row in rows))
    attacks = list(dict.fromkeys(row["attack"] for row in rows if not row["control"]))
    cells = {(row["defense"], row["attack"]): row for row in rows if not row["control"]}
    for defense in defenses:
        floors = [row for row in rows if row["control"] and row["defense"] == defense and scored(row)]
        if floors:
            cells[defense, FLOOR] = max(floors, key=lambda row: row["psnr_db_mean"])
    columns = [*attacks, FLOOR] if any(row["control"] for row in rows) else attacks
    values = np.full((len(defenses), len(columns)), np.nan)
    for i, defense in enumerate(defenses):
        for j, column in enumerate(columns):
            if (defense, column) in cells and scored(cells[defense, column]):
                values[i, j] = cells[defense, column]["psnr_db_mean"]
    row_labels = ["\n".join(label_lines(label, 40)) for label in defenses]
    heights = [max(0.32, 0.04 + 0.13 * (1 + label.count("\n"))) for label in row_labels]
    figure = empty_figure(
        min(FIGURE_WIDTH, 4 + 1.5 * len(columns)), max(2.4, 1.2 + max(heights) * len(defenses)), "constrained"
    )
    figure.suptitle(title, x=0.01, ha="left")
    ax = figure.add_subplot()
    sns.heatmap(
        values,
        ax=ax,
        cmap="viridis",
        annot=True,
        fmt=".2f",
        annot_kws={"size": NORMAL},
        linewidths=1.5,
        linecolor="white",
        mask=np.isnan(values),
        # Without any result there is no range to take from the values.
        vmin=None if np.isfinite(values).any() else 0.0,
        vmax=None if np.isfinite(values).any() else 1.0,
        cbar_kws={"label": "mean PSNR [dB]"},
        xticklabels=["\n".join(label_lines(label, 22)) for label in columns],
        yticklabels=row_labels,
    )
    ax.grid(visible=False)
    ax.tick_params(axis="x", labeltop=True, labelbottom=False, rotation=0, length=0)
    ax.tick_params(axis="y", rotation=0, length=0)
    for i, defense in enumerate(defenses):
        for j, column in enumerate(columns):
            if np.isnan(values[i, j]):
                _draw_missing(ax, i, j, cells.get((defense, column)))
    if FLOOR in columns:
        ax.axvline(len(attacks), color="white", lw=6)
    return figure


def _draw_missing(ax: Axes, i: int, j: int, row: Row | None) -> None:
    ax.add_patch(Rectangle((j + 0.02, i + 0.05), 0.96, 0.9, **HATCH))
    text = "not run" if row is None else status_text(row)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=SMALL, color="0.25", bbox=box)
