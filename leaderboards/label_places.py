"""Where to write beside points so that no text covers another, or a point."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from leaderboards.figures import SMALL

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
