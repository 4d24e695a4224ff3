"""The table of every attack on every defense, whose cells are the darker the more they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.columns import facts_of, granted_text
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import CellFile
from leaderboards.evidence.record import Variant
from leaderboards.site.lines import anchor_of
from leaderboards.site.results import Asked, Faced, Results
from leaderboards.site.text import DASH
from leaderboards.statistics.summary import Row, status_text

SHADES = 10
"""Grounds of a cell, from that of no similarity to that of 1; the style sheet has as many."""


@dataclass(frozen=True)
class HeatCell:
    """A cell of the table: a value, or a status in words."""

    text: str
    step: int | None
    """The darkness of its ground, 0 to 9; None for none."""
    page: str
    """The page of the cell behind it; "" without one."""
    note: str = ""
    failed: bool = False


@dataclass(frozen=True)
class HeatRow:
    """A defense, its page, and a cell for every column."""

    defense: str
    page: str
    anchor: str
    cells: list[HeatCell]


@dataclass(frozen=True)
class Heat:
    """Attacks with what they were granted, across; defenses in the order of the leaderboard, down."""

    attacks: list[tuple[str, str]]
    rows: list[HeatRow]


def cell_page(entry: Entry, cell: CellFile) -> str:
    """The address of a cell's page within its board."""
    return f"cells/{entry.name}-{cell.identity.cell}.html"


def heat(results: Results, asked: Asked, defenses: list[str], pages: Mapping[str, str]) -> Heat:
    """Mean SSIM of every attack and of the strongest floor; of an attack on labels, uncoloured, the share it found."""
    own, columns = results.summary[asked], _columns(results.summary[asked])
    rows = []
    for defense in defenses:
        cells = [_cell(results, asked, (defense, *faced)) for faced in columns]
        rows.append(HeatRow(defense, pages[defense], anchor_of(defense), [*cells, _floor(own, defense)]))
    return Heat([*((attack, _words(*granted)) for attack, *granted in columns), ("strongest floor", "")], rows)


def _columns(rows: Mapping[Faced, Row]) -> list[Variant]:
    attacks = [row for row in rows.values() if not row["control"]]
    attacks.sort(key=lambda row: (row["attack_order"], row["attack"], facts_of(row)))
    return list(dict.fromkeys((row["attack"], *facts_of(row)) for row in attacks))


def _words(*granted: bool) -> str:
    return granted_text(*granted).removeprefix(", ") or "as published"


def _cell(results: Results, asked: Asked, faced: Faced) -> HeatCell:
    row, behind = results.summary[asked].get(faced), results.cells[asked].get(faced, [])
    if row is None or not behind:
        return HeatCell("not run", None, "", failed=True)
    entry, cell = behind[0]
    page = cell_page(entry, cell)
    if row["status"] != "ok":
        return HeatCell(status_text(row), None, page, row["reason"], failed=True)
    of_labels = cell.identity.recovers_labels
    value = row["label_accuracy_mean"] if of_labels else row["ssim_mean"]
    if np.isnan(value):
        return HeatCell(DASH, None, page)
    if of_labels:
        return HeatCell(f"{value:.0%}", None, page, "of the labels")
    return HeatCell(f"{value:z.2f}", step_of(value), page, f"{row['psnr_db_mean']:z.1f} dB")


def _floor(rows: Mapping[Faced, Row], defense: str) -> HeatCell:
    own = [row for (other, *_), row in rows.items() if other == defense and row["control"] and row["status"] == "ok"]
    best = max((row for row in own if not np.isnan(row["ssim_mean"])), key=lambda row: row["ssim_mean"], default=None)
    if best is None:
        return HeatCell(DASH, None, "")
    return HeatCell(f"{best['ssim_mean']:z.2f}", step_of(best["ssim_mean"]), "", best["attack_name"])


def step_of(share: float) -> int:
    """0 for nothing and less, 9 for everything."""
    return int(min(max(share, 0.0) * SHADES, SHADES - 1))
