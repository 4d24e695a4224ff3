"""The gallery: private images beside what an attack made of each defended update."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from textwrap import wrap
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bench.store.store import Store
from leaderboards.figures.style import FIGURE_WIDTH, HATCH, LARGE, NORMAL, SMALL, empty_figure
from leaderboards.statistics.summary import Row, records
from leaderboards.tables.labels import label_lines

MOST_COLUMNS = 9
"""Pictures in a row, the private image included."""
LABEL, GAP, CAPTION, LINE = 0.85, 0.06, 0.2, 0.135
"""Inches: the rows' labels, the space between images, a caption, a line of a heading."""


class Images(Protocol):
    """A source of pictures (h w c), uint8."""

    def truth(self, image: int) -> np.ndarray:
        """The private image of this dataset index."""
        ...

    def reconstruction(self, cell: str, image: int) -> np.ndarray | None:
        """The reconstruction by the attack of this cell; None where there is none."""
        ...


def gallery(frame: pd.DataFrame, images: Images, title: str) -> Figure | None:
    """First, median and worst image of the first attack: truth, then every defense, PSNR and SSIM under each.

    `frame` holds the store's rows of one setting; its lowest seed is shown. First is the lowest dataset index;
    median and worst are those of the attack's PSNR on the undefended client, or on the first defense with
    results where there is none: nobody chooses. None where that attack has no results at all.
    """
    rows = [row for row in records(frame) if not row["control"]]
    order = min((row["attack_order"] for row in rows), default=None)
    seed = min((row["seed"] for row in rows if row["attack_order"] == order), default=None)
    chosen = [row for row in rows if (row["attack_order"], row["seed"]) == (order, seed)]
    cells: dict[str, list[Row]] = {}
    for row in sorted(chosen, key=lambda row: row["defense_order"]):
        cells.setdefault(row["defense"], []).append(row)
    finished = [row for row in chosen if row["status"] == "ok"]
    if not finished:
        return None
    undefended = [row for row in finished if row["defense_name"] == "none"]
    reference = (undefended or sorted(finished, key=lambda row: row["defense_order"]))[0]["defense"]
    shown = _chosen({int(row["image"]): row["psnr_db"] for row in finished if row["defense"] == reference})
    how = ", knowing the defense" if finished[0]["defense_known"] else ""
    explanation = (
        f"Attack: {finished[0]['attack']}{how}. Rows by rule: lowest index, median and lowest PSNR on "
        f"{'the undefended update' if undefended else reference}. Captions: PSNR, SSIM."
    )
    return _draw(title, explanation, shown, cells, images)


def _chosen(scores: dict[int, float]) -> dict[int, str]:
    """Image -> what it stands for; an image that is two of them is shown once."""
    ranked = sorted(scores, key=lambda image: (-scores[image], image))
    roles = {"first": min(scores), "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}
    shown: dict[int, str] = {}
    for role, image in roles.items():
        shown[image] = f"{shown[image]}, {role}" if image in shown else role
    return shown


def _bands(defenses: list[str]) -> list[list[str]]:
    """The defenses in as few bands as fit the width, of equal length; each band begins with the truth."""
    count = ceil(len(defenses) / (MOST_COLUMNS - 1))
    size = ceil(len(defenses) / count)
    return [defenses[i : i + size] for i in range(0, len(defenses), size)]


def _draw(title: str, explanation: str, shown: dict[int, str], cells: dict[str, list[Row]], images: Images) -> Figure:
    bands = _bands(list(cells))
    columns = 1 + max(map(len, bands))
    side = min(1.25, (FIGURE_WIDTH - LABEL) / columns - GAP)
    width = max(LABEL + columns * (side + GAP), 6.5)
    characters = int(side / 0.062)
    heads = [["\n".join(label_lines(d, characters)) for d in ["private image", *band]] for band in bands]
    head_heights = [0.1 + LINE * max(1 + head.count("\n") for head in band) for band in heads]
    titles = [(line, LARGE, "0.0") for line in wrap(title, int(width / 0.082))]
    titles += [(line, SMALL, "0.3") for line in wrap(explanation, int(width / 0.06))]
    top = 0.15 + 0.19 * len(titles)
    height = top + sum(head_heights) + len(bands) * len(shown) * (side + CAPTION) + 0.1 * len(bands)
    figure = empty_figure(width, height)
    for i, (line, size, colour) in enumerate(titles):
        figure.text(0.08 / width, 1 - (0.2 + 0.19 * i) / height, line, fontsize=size, va="center", color=colour)
    y = height - top
    for band, names, head_height in zip(bands, heads, head_heights, strict=True):
        y -= head_height
        for j, name in enumerate(names):
            x = LABEL + j * (side + GAP) + side / 2
            figure.text(x / width, (y + 0.05) / height, name, fontsize=SMALL, ha="center", va="bottom", linespacing=1.1)
        for image, role in shown.items():
            y -= side
            label = "\n".join([*role.split(", "), f"#{image}"])
            figure.text((LABEL - 0.1) / width, (y + side / 2) / height, label, fontsize=NORMAL, ha="right", va="center")
            for j, defense in enumerate([None, *band]):
                box = ((LABEL + j * (side + GAP)) / width, y / height, side / width, side / height)
                ax = figure.add_axes(box)
                if defense is None:
                    _show(ax, images.truth(image), "")
                else:
                    _draw_cell(ax, cells[defense], image, images)
            y -= CAPTION
        y -= 0.1
    return figure


def _draw_cell(ax: Axes, rows: list[Row], image: int, images: Images) -> None:
    for row in (row for row in rows if row["status"] == "ok" and row["image"] == image):
        picture = images.reconstruction(row["cell"], image)
        if picture is not None:
            measured = "" if np.isnan(row["ssim"]) else f" dB, {row['ssim']:.2f}"
            _show(ax, picture, f"{row['psnr_db']:.1f}{measured}")
            return
    ax.set_axis_off()
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, **HATCH))
    status = next((row["status"] for row in rows if row["status"] != "ok"), "no image")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(0.5, 0.5, status, transform=ax.transAxes, ha="center", va="center", fontsize=SMALL, bbox=box)


def _show(ax: Axes, picture: np.ndarray, caption: str) -> None:
    """Pixels as they are: small images are enlarged without smoothing."""
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    smooth = "nearest" if max(picture.shape[:2]) <= 128 else "antialiased"
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    ax.set_axis_off()
    ax.text(0.5, -0.02, caption, transform=ax.transAxes, ha="center", va="top", fontsize=SMALL)


class StoredImages:
    """Reads a run's truth once and its reconstructions block by block; all uint8 (h w c)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._truth = store.truth()
        self._blocks = {cell["cell"]: cell["blocks"] for cell in store.plan()["cells"]}
        self._load = lru_cache(maxsize=64)(self._by_image)

    def truth(self, image: int) -> np.ndarray:
        """The private image."""
        return self._truth[image]

    def reconstruction(self, cell: str, image: int) -> np.ndarray | None:
        """The reconstruction that the referee matched to the image; None without a result."""
        for block in self._blocks.get(cell, []):
            if block["start"] <= image < block["stop"]:
                return self._load(block["id"]).get(image)
        return None

    def _by_image(self, block: str) -> dict[int, np.ndarray]:
        record = self._store.record(block)
        if record is None or record["status"] != "ok":
            return {}
        images = self._store.arrays(block)["images"].transpose(0, 1, 3, 4, 2)
        return {row["image"]: images[row["position"][0], row["position"][1]] for row in record["images"]}
