"""Figures as tables print them: the text, and what it is sorted by."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import pandas as pd

ABSENT = "\N{EN DASH}"
PERCENT, POINTS = ".0%", ".1f"


@dataclass(frozen=True)
class Figure:
    """A cell of a table: its text, what it is sorted by (empty: last), a second text in small print, and a note."""

    text: str
    sort: str = ""
    beside: str = ""
    note: str = ""


def number(value: float | None, how: str) -> Figure:
    """A figure in a format; a dash where there is none."""
    if value is None or pd.isna(value):
        return Figure(ABSENT)
    return Figure(format(value, f"z{how}"), f"{value:.9g}")


def significant(value: float | None) -> Figure:
    """Three significant digits or all before the point, never an exponent; a dash where there is no value."""
    return Figure(ABSENT) if value is None or pd.isna(value) else Figure(plain(value), f"{value:.9g}")


def plain(value: float) -> str:
    """A number of at least 0 as `significant` writes it."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}" if value > 0 else "0"


def span(low: float, high: float, how: str) -> str:
    """An interval in a format, "" where there is none; of images that all count as no gain a bootstrap says nothing."""
    return "" if pd.isna(low) or low == high == 0 else f"{low:z{how}} to {high:z{how}}"
