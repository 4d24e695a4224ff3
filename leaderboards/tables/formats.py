"""Sections of tables, and their layout in Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import pandas as pd


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

    def without_empty(self, absent: str, always: Collection[str] = ()) -> Table:
        """The table without the columns in which every row has `absent`, but for those on the left and `always`."""
        full = [any(row[j] != absent for row in self.rows) or own in always for j, own in enumerate(self.columns)]
        kept = [j for j, some in enumerate(full) if j < self.left or some]
        strong = frozenset((i, kept.index(j)) for i, j in self.strong if j in kept)
        rows = [[row[j] for j in kept] for row in self.rows]
        return replace(self, columns=[self.columns[j] for j in kept], rows=rows, strong=strong)


@dataclass(frozen=True)
class TableSection:
    """A heading, what holds for all its tables, the tables, and notes."""

    title: str
    facts: str
    tables: list[Table]
    notes: list[str] = field(default_factory=list)


def to_markdown(sections: list[TableSection]) -> str:
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


def to_latex(sections: list[TableSection]) -> str:
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


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _tabular(table: Table) -> str:
    cells = pd.DataFrame(table.rows, columns=range(len(table.columns)), dtype=object)
    shown = cells.style.hide(axis="index")
    shown.format(_tex)
    shown.relabel_index([_tex(heading) for heading in table.columns], axis="columns")
    for row, column in table.strong:
        shown.map(lambda _: "textbf:--rwrap;", subset=([row], [column]))
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
