"""Axes of a drawing: scales, ticks, and places for labels beside points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from leaderboards.ranking.pareto import LINEAR_LOSS

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in the drawing's own units."""
LETTER_WIDTH, LETTER_HEIGHT = 6.4, 13.0
"""Size of a letter of a label, in the drawing's own units."""


@dataclass(frozen=True)
class Tick:
    """A tick of an axis."""

    at: str
    """Its coordinate."""
    text: str
    """The text beside it."""


@dataclass(frozen=True)
class Label:
    """A text beside a point."""

    x: str
    y: str
    anchor: str
    """`start` or `end`: the end of the text that stands at x."""
    text: str


def coordinate(value: float) -> str:
    """A coordinate in tenths, which suffice for a drawing and are the same on every machine."""
    return f"{value + 0.0:.1f}"


def lost_scale(low: float, high: float, left: float, right: float) -> Callable[[float], float]:
    """Lost accuracy -> x: linear up to `LINEAR_LOSS`, then logarithmic."""
    start, end = _bent(low), _bent(high)
    return lambda value: left + (right - left) * (_bent(value) - start) / (end - start)


def linear_scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A value between `low` and `high` -> a coordinate between `start` and `end`."""
    return lambda value: start + (end - start) * (value - low) / (high - low)


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from low to high, at most so many and at least two if the range has them."""
    step = 10.0 ** floor(log10((high - low) / most))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    return [round(i * step, 10) + 0.0 for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def labels_beside(
    points: Sequence[tuple[float, float, Sequence[str]]], taken: Sequence[Box], inside: Box
) -> list[Label | None]:
    """A place for a text of each point (x, y, texts from the best to the shortest) that covers nothing, else None.

    `taken` are boxes to leave free beside the points themselves.
    """
    boxes = [*taken, *((x - 6, y - 6, x + 6, y + 6) for x, y, _ in points)]
    found: list[Label | None] = []
    for x, y, texts in points:
        made = next((own for text in texts for own in _tries(x, y, text) if _is_free(own[1], boxes, inside)), None)
        if made is not None:
            boxes.append(made[1])
        found.append(None if made is None else made[0])
    return found


def _tries(x: float, y: float, text: str) -> list[tuple[Label, Box]]:
    width, found = LETTER_WIDTH * len(text), []
    for away in (0.0, 12.0, 26.0):
        for dx, dy, anchor in ((9, -7, "start"), (9, 17, "start"), (-9, -7, "end"), (-9, 17, "end"), (11, 4, "start")):
            at_x, at_y = x + dx, y + dy + (away if dy > 5 else -away if dy < 0 else 0)
            left = at_x if anchor == "start" else at_x - width
            label = Label(coordinate(at_x), coordinate(at_y), anchor, text)
            found.append((label, (left - 2, at_y - LETTER_HEIGHT + 2, left + width + 2, at_y + 3)))
    return found


def _is_free(box: Box, taken: Sequence[Box], inside: Box) -> bool:
    if box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]:
        return False
    return not any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken)


def _bent(value: float) -> float:
    size = abs(value)
    bent = 1.6 * size / LINEAR_LOSS if size <= LINEAR_LOSS else 1.6 + log10(size / LINEAR_LOSS)
    return bent if value >= 0 else -bent
