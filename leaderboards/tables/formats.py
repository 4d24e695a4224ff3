"""Sections of tables laid out as text, Markdown or LaTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import wrap

import pandas as pd

from leaderboards.tables.labels import label_lines

WIDTH = 120


@dataclass(frozen=True)
class Table:
    """A title, the columns' headings and rows of ready strings; the first `left` columns are aligned left.

    `strong` names the cells (row, column) that stand out. Where the rows are `grouped`, text shows the first
    column as a line above its rows.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int = 1
    strong: frozenset[tuple[int, int]] = frozenset()
    grouped: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.title!r} has {len(self.columns)} columns and a row of another length")


@dataclass(frozen=True)
class Section:
    """A heading, what holds for all its tables, the tables, and notes."""

    title: str
    facts: str
    tables: list[Table]
    notes: list[str] = field(default_factory=list)


def to_text(sections: list[Section]) -> str:
    """For a terminal of 120 columns; a table with too many columns continues below."""
    blocks = []
    for section in sections:
        blocks += ["=" * WIDTH, *wrap(section.title, WIDTH), *wrap(section.facts, WIDTH)]
        for table in section.tables:
            blocks += ["", table.title, *_text_table(table)]
        blocks += [""]
        for note in section.notes:
            blocks += wrap(note, WIDTH, subsequent_indent="  ")
    return "\n".join(blocks) + "\n"


def to_markdown(sections: list[Section]) -> str:
    """GitHub's tables; what stands out is bold."""
    blocks = []
    for section in sections:
        blocks += [f"### {section.title}", "", section.facts, ""]
        for table in section.tables:
            blocks += [f"**{table.title}**", "", _markdown_row([f"`{c}`" if "(" in c else c for c in table.columns])]
            blocks += ["|" + "|".join([":--"] * table.left + ["--:"] * (len(table.columns) - table.left)) + "|"]
            for i, row in enumerate(table.rows):
                cells = [f"`{cell}`" if j < table.left and cell else cell for j, cell in enumerate(row)]
                blocks += [_markdown_row([f"**{c}**" if (i, j) in table.strong else c for j, c in enumerate(cells)])]
            blocks += [""]
        blocks += [f"- {note}" for note in section.notes]
        blocks += [""]
    return "\n".join(blocks).rstrip() + "\n"


def to_latex(sections: list[Section]) -> str:
    r"""Tables for the booktabs package, to be \input; what stands out is bold."""
    blocks = ["% needs \\usepackage{booktabs}"]
    for section in sections:
        for number, table in enumerate(section.tables):
            caption = f"{table.title}. {section.title}. {section.facts}"
            blocks += ["\\begin{table}", "\\centering", "\\footnotesize", f"\\caption{{{_tex(caption)}}}"]
            blocks += [_tabular(table)]
            if number == len(section.tables) - 1:
                blocks += [f"\\par\\smallskip\\raggedright {_tex(note)}" for note in section.notes]
            blocks += ["\\end{table}", ""]
    return "\n".join(blocks)


def _text_table(table: Table) -> list[str]:
    for label, head in ((36, 19), (36, 13), (28, 13), (20, 13)):
        cells = _cells(table, label, head)
        shown = cells[1:] if table.grouped else cells
        widths = [max(len(line) for cell in column for line in cell) for column in shown]
        left = table.left - table.grouped
        pages = _pages(widths, left)
        if len(pages) == 1:
            break
    lines: list[str] = []
    for page in pages:
        rule = "-" * (sum(widths[j] + 2 for j in page) - 2)
        lines += [""] if lines else []
        group = ""
        for i in range(len(table.rows) + 1):
            if table.grouped and i and table.rows[i - 1][0] != group:
                group = table.rows[i - 1][0]
                lines.append(group)
            row = [column[i] for column in shown]
            lines += _text_row(row, widths, page, left, bottom=i == 0) + ([rule] if i == 0 else [])
        lines += [rule]
    return lines


def _cells(table: Table, label: int, head: int) -> list[list[list[str]]]:
    """The lines of every cell, by column, headings first; `label` and `head` limit their width.

    Grouped rows are set in from their group's line.
    """
    columns = []
    for j, heading in enumerate(table.columns):
        is_label = j < table.left
        lines = [label_lines(heading, label if is_label else head)]
        for row in table.rows:
            lines.append(_wrapped(row[j], label) if is_label else [row[j]])
        if table.grouped and j == 1:
            lines = [["  " + line for line in cell] for cell in lines]
        columns.append(lines)
    return columns


def _pages(widths: list[int], left: int) -> list[list[int]]:
    """Column numbers of each part that fits; every part repeats the left columns."""
    fixed = list(range(left))
    pages = [fixed[:]]
    for j in range(left, len(widths)):
        if len(pages[-1]) > left and sum(widths[k] + 2 for k in [*pages[-1], j]) - 2 > WIDTH:
            pages.append(fixed[:])
        pages[-1].append(j)
    return pages


def _text_row(row: list[list[str]], widths: list[int], columns: list[int], left: int, bottom: bool) -> list[str]:
    height = max(len(row[j]) for j in columns)
    lines = []
    for i in range(height):
        cells = []
        for j in columns:
            k = i - (height - len(row[j])) if bottom else i
            cell = row[j][k] if 0 <= k < len(row[j]) else ""
            cells.append(cell.ljust(widths[j]) if j < left else cell.rjust(widths[j]))
        lines.append("  ".join(cells).rstrip())
    return lines


def _wrapped(label: str, limit: int) -> list[str]:
    """A row's label: whole, broken at its spaces, or with each parameter on its own line."""
    if len(label) <= limit:
        return [label]
    lines = wrap(label, limit, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    if max(map(len, lines)) <= limit:
        return lines
    first, *rest = label_lines(label, limit - 2)
    return [first, *("  " + line for line in rest)]


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tabular(table: Table) -> str:
    cells = pd.DataFrame(table.rows, columns=range(len(table.columns)), dtype=object)
    shown = cells.style.hide(axis="index").format(_tex)
    shown = shown.relabel_index([_tex(heading) for heading in table.columns], axis="columns")
    for row, column in table.strong:
        shown = shown.map(lambda _: "textbf:--rwrap;", subset=([row], [column]))
    return shown.to_latex(
        column_format="l" * table.left + "r" * (len(table.columns) - table.left), hrules=True
    ).rstrip()


def _tex(text: str) -> str:
    """The text as TeX prints it.

    pandas escapes the cells of a table alone, and leaves the signs that TeX's fonts lack.
    """
    text = text.replace("\\", r"\textbackslash ")
    text = re.sub(r"([&%$#_{}])", r"\\\1", text)
    signs = {"±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "|": r"$|$", "~": r"\textasciitilde{}", "^": r"\^{}"}
    for sign, command in signs.items():
        text = text.replace(sign, command)
    return text
