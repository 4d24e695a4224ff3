"""The page's pictures: every line's PSNR beside the paper's, and what was reconstructed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from leaderboards.figures.gallery import StoredImages
from leaderboards.figures.style import NORMAL, SMALL, empty_figure, style
from leaderboards.statistics.intervals import summarise_metric
from tools.paper.claims import ClaimVariant, PaperLine

PICTURE_DPI = 110
"""Dots an inch of every picture of the page."""
OUR_COLOUR, PAPER_COLOUR, FLOOR_COLOUR = "#1f6f9f", "#c44e2b", "0.55"
RUN = "Run"
"""The key in a picture's metadata that holds the digest of the results that it shows."""


def digest(frame: pd.DataFrame) -> str:
    """The digest of these results, which no other run has: 16 hex digits."""
    rows = frame[["cell", "image", "seed", "psnr_db"]].sort_values(["cell", "image", "seed"])
    text = rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shows(path: Path, frame: pd.DataFrame) -> bool:
    """True if this picture is there and shows these results."""
    if not path.is_file():
        return False
    with Image.open(path) as picture:
        return picture.info.get(RUN) == digest(frame)


def chart(variant: ClaimVariant, frame: pd.DataFrame, path: Path) -> None:
    """Mean PSNR and its SD over images of every attack; a grey bar is the strongest floor, hollow is the paper.

    Beside it the update's norm of every image, where the claim is about norms too.
    """
    shown = [(line, below) for line, below in _with_floors(variant.lines, frame) if not line.cells.of(frame).empty]
    with_norms = any(held.ordering.metric == "update_norm" for held in variant.held)
    with style():
        figure = empty_figure(7.5, 0.95 + 0.27 * len(shown), "constrained")
        axes = figure.subplots(1, 1 + with_norms, sharey=True, squeeze=False, width_ratios=[3, 1][: 1 + with_norms])[0]
        for y, (line, below) in enumerate(shown):
            _draw_line(axes[0], y, line, line.cells.of(frame), below)
        axes[0].set_yticks(range(len(shown)), [line.cells.label for line, _ in shown])
        axes[0].set_ylim(len(shown) - 0.4, -0.6)
        axes[0].set_xlabel("PSNR in dB: mean and SD over images")
        if with_norms:
            for y, (line, _) in enumerate(shown):
                norms = line.cells.of(frame)["update_norm"]
                axes[1].plot(norms, [y] * len(norms), "o", color=OUR_COLOUR, markersize=3, alpha=0.6)
            axes[1].set_xscale("log")
            axes[1].set_xlabel("update's norm")
        _legend(axes[0], papers=any(line.paper for line, _ in shown))
        figure.savefig(path, dpi=PICTURE_DPI, metadata={"Software": None, RUN: digest(frame)})


def _draw_line(ax: Axes, y: int, line: PaperLine, rows: pd.DataFrame, below: float | None) -> None:
    if below is not None:
        ax.plot([below, below], [y - 0.38, y + 0.38], color=FLOOR_COLOUR, linewidth=3, solid_capstyle="butt")
    if (rows["status"] == "ok").all():
        found = summarise_metric(rows, "psnr_db")
        ax.errorbar(found.mean, y, xerr=np.nan_to_num(found.sd), fmt="o", color=OUR_COLOUR, capsize=2, markersize=5)
    if line.paper is not None:
        paper = {"fmt": "o", "color": PAPER_COLOUR, "markerfacecolor": "white", "capsize": 2, "markersize": 5}
        ax.errorbar(line.paper.mean, y + 0.22, xerr=line.paper.sd, elinewidth=0.8, **paper)


def paper_gallery(variant: ClaimVariant, frame: pd.DataFrame, images: StoredImages, path: Path) -> None:
    """The private image and every attack's reconstruction: best, median and worst by mean PSNR over the columns."""
    columns = [(line.cells.label, line.cells.of(frame)) for line in variant.lines if "control" not in line.cells.where]
    columns += [
        (line.cells.label, line.cells.of(frame)) for line in variant.lines if line.cells.where.get("control") is False
    ]
    columns = [(label, rows[rows["seed"] == rows["seed"].min()]) for label, rows in columns if not rows.empty]
    scores = pd.concat([rows for _, rows in columns]).groupby("image")["psnr_db"].mean().sort_values()
    ranked = [int(image) for image in scores.index[::-1]]
    chosen = dict.fromkeys([ranked[0], ranked[(len(ranked) - 1) // 2], ranked[-1]])
    headings = [_heading(label) for label in ["private image", *(label for label, _ in columns)]]
    side, head = 0.95, 0.12 + 0.115 * max(1 + heading.count("\n") for heading in headings)
    with style():
        width, height = (len(columns) + 1) * (side + 0.06), head + len(chosen) * (side + 0.17)
        figure = empty_figure(width, height)
        for j, (words, rows) in enumerate(zip(headings, [None, *(rows for _, rows in columns)], strict=True)):
            x = j * (side + 0.06) + 0.03
            place = ((x + side / 2) / width, 1 - (head - 0.05) / height)
            figure.text(*place, words, fontsize=6.5, ha="center", va="bottom")
            for i, image in enumerate(chosen):
                y = height - head - (i + 1) * side - i * 0.17
                ax = figure.add_axes((x / width, y / height, side / width, side / height))
                ax.set_axis_off()
                if rows is None:
                    _show(ax, images.truth(image), f"#{image}")
                    continue
                own = rows[rows["image"] == image].iloc[0]
                picture = images.reconstruction(own["cell"], image)
                if picture is not None:
                    _show(ax, picture, f"{own['psnr_db']:.1f} dB")
        figure.savefig(path, dpi=PICTURE_DPI, metadata={"Software": None, RUN: digest(frame)})


def _with_floors(lines: tuple[PaperLine, ...], frame: pd.DataFrame) -> list[tuple[PaperLine, float | None]]:
    """The attacks' lines, each with the PSNR of the floor that stands next below it in the table, or last before."""
    paired: list[tuple[PaperLine, float | None]] = []
    waiting: list[PaperLine] = []
    value: float | None = None
    for line in lines:
        if not line.cells.strongest:
            waiting.append(line)
            continue
        rows = line.cells.of(frame)
        value = None if rows.empty else float(rows["psnr_db"].mean())
        paired += [(attack, value) for attack in waiting]
        waiting = []
    return paired + [(attack, value) for attack in waiting]


def _heading(label: str) -> str:
    """A label in lines as narrow as a picture, the attack on lines of its own."""
    return "\n".join(fill(part, 17) for part in label.split(": "))


def _legend(ax: Axes, papers: bool) -> None:
    ax.plot([], [], "o", color=OUR_COLOUR, label="here")
    if papers:
        ax.plot([], [], "o", color=PAPER_COLOUR, markerfacecolor="white", label="the paper")
    ax.plot([], [], color=FLOOR_COLOUR, linewidth=3, label="strongest floor")
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.legend(loc="outside lower center", ncols=3, fontsize=NORMAL)


def _show(ax: Axes, picture: np.ndarray, caption: str) -> None:
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    smooth = "nearest" if max(picture.shape[:2]) <= 128 else "antialiased"
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    ax.text(0.5, -0.03, caption, transform=ax.transAxes, ha="center", va="top", fontsize=SMALL)
