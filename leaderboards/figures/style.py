"""The style of every figure, and its saving: the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

FIGURE_WIDTH = 9.0
"""Inches; a README shows a figure about 900 pixels wide, so that a point is 1.4 pixels there."""
DPI = 200
"""Dots an inch of a PNG: twice the pixels that a README shows, for screens of that density."""
SMALL, NORMAL, LARGE = 7.5, 8.5, 10.0
"""Font sizes in points."""
HATCH = {"facecolor": "0.93", "edgecolor": "0.7", "hatch": "////", "linewidth": 0.0}
"""The look of a place without a result."""


@contextmanager
def style() -> Iterator[None]:
    """Font sizes and grid lines of the figures made and saved inside, without touching anybody else's."""
    sizes: dict[Any, Any] = {
        "font.size": NORMAL,
        "axes.titlesize": NORMAL,
        "axes.labelsize": NORMAL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": NORMAL,
        "figure.titlesize": LARGE,
        "svg.hashsalt": "leakboard",
        "hatch.linewidth": 0.6,
        "axes.edgecolor": "0.6",
        "grid.color": "0.9",
    }
    with mpl.rc_context(), sns.axes_style("whitegrid"), mpl.rc_context(sizes):
        yield


def empty_figure(width: float, height: float, layout: str = "none") -> Figure:
    """A figure of so many inches that needs no display."""
    figure = Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write name.png and name.svg without date or version."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    figure.savefig(paths[0], dpi=DPI, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths
