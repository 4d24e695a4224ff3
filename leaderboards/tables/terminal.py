"""Tables for a terminal of any width, and as plain text for a file or another program."""

from __future__ import annotations

import io
from itertools import groupby
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from leaderboards.tables.labels import label_lines

if TYPE_CHECKING:  # `leakboard list` draws a table, and waits for no pandas.
    from leaderboards.tables.formats import Table, TableSection

PLAIN_WIDTH = 120
"""Columns of plain text, which does not depend on anybody's window."""


def console_text(content: RenderableType, console: Console | None = None) -> str:
    """The content as a console shows it, or in plain text without colours; no line is cut or broken here."""
    # Wide enough for every line: rich squeezes and cuts whatever does not fit.
    plain = console is None
    console = Console(file=io.StringIO(), width=100_000, color_system=None) if console is None else console
    with console.capture() as shown:
        console.print(content, soft_wrap=True, markup=False, highlight=False, emoji=False)
    text = shown.get()
    return "\n".join(line.rstrip() for line in text.split("\n")) if plain else text


def to_text(sections: list[TableSection], console: Console | None = None) -> str:
    """For this terminal, else for 120 columns; a table with too many columns continues below."""
    width = PLAIN_WIDTH if console is None else console.width
    blocks: list[RenderableType] = []
    for section in sections:
        blocks += ["=" * width, *(Text(line, "bold") for line in wrap(section.title, width))]
        blocks += map(Text, wrap(section.facts, width))
        for table in section.tables:
            blocks += ["", Text(table.title, "bold"), *_pages_of(table, width)]
        blocks += [""]
        for note in section.notes:
            blocks += map(Text, wrap(note, width, subsequent_indent="  "))
    return console_text(Group(*blocks), console)


def _pages_of(table: Table, width: int) -> list[RenderableType]:
    for label, head in ((36, 19), (36, 13), (28, 13), (20, 13)):
        columns = _cells(table, label, head)
        columns = columns[1:] if table.grouped else columns
        widths = [max(line.cell_len for cell in column for line in cell.split(allow_blank=True)) for column in columns]
        left = table.left - table.grouped
        pages = _pages(widths, left, width)
        if len(pages) == 1:
            break
    parts: list[RenderableType] = []
    for page in pages:
        rule = Text("-" * (sum(widths[j] + 2 for j in page) - 2), "dim")
        rows = [[columns[j][i] for j in page] for i in range(len(table.rows) + 1)]
        sides = [(widths[j], j < left) for j in page]
        parts += [""] if parts else []
        parts += [_grid(rows[:1], sides, heading=True), rule]
        for group, own in groupby(enumerate(table.rows, 1), key=lambda row: row[1][0] if table.grouped else None):
            parts += [] if group is None else [Text(group, "bold")]
            parts += [_grid([rows[i] for i, _ in own], sides)]
        parts += [rule]
    return parts


def _grid(rows: list[list[Text]], sides: list[tuple[int, bool]], heading: bool = False) -> Grid:
    grid = Grid.grid(padding=(0, 2))
    grid.width = sum(width + 2 for width, _ in sides) - 2
    for width, is_left in sides:
        justify, vertical = "left" if is_left else "right", "bottom" if heading else "top"
        # Every column is as wide as its widest line, so nothing is cut; rich aligns no text that may overflow.
        grid.add_column(width=width, justify=justify, vertical=vertical, no_wrap=True, overflow="crop")
    for row in rows:
        grid.add_row(*row)
    return grid


def _cells(table: Table, label: int, head: int) -> list[list[Text]]:
    """Every cell in lines, by column, headings first; `label` and `head` limit their width.

    Grouped rows are set in from their group's line.
    """
    columns = []
    for j, heading in enumerate(table.columns):
        is_label = j < table.left
        cells = [label_lines(heading, label if is_label else head)]
        for row in table.rows:
            cells.append(_wrapped(row[j], label) if is_label else [row[j]])
        if table.grouped and j == 1:
            cells = [["  " + line for line in cell] for cell in cells]
        styles = ["bold" if (i, j) in table.strong else "" for i in range(-1, len(table.rows))]
        columns.append([Text("\n".join(lines), style) for lines, style in zip(cells, styles, strict=True)])
    return columns


def _pages(widths: list[int], left: int, limit: int) -> list[list[int]]:
    """Column numbers of each part that fits; every part repeats the left columns."""
    fixed = list(range(left))
    pages = [fixed[:]]
    for j in range(left, len(widths)):
        if len(pages[-1]) > left and sum(widths[k] + 2 for k in [*pages[-1], j]) - 2 > limit:
            pages.append(fixed[:])
        pages[-1].append(j)
    return pages


def _wrapped(label: str, limit: int) -> list[str]:
    """A row's label: whole, broken at its spaces, or with each parameter on its own line."""
    if len(label) <= limit:
        return [label]
    lines = wrap(label, limit, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    if max(map(len, lines)) <= limit:
        return lines
    first, *rest = label_lines(label, limit - 2)
    return [first, *("  " + line for line in rest)]
