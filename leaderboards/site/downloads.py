"""A board to take along: every figure as CSV and Parquet, the leaderboard as LaTeX, and what to cite as BibTeX."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pandas as pd

from leaderboards.entries.entry import Entry
from leaderboards.entries.published import Published
from leaderboards.site.board_page import BoardView, QuestionView
from leaderboards.site.lines import LeaderboardLine, seconds_of_attacks, strongest_cell
from leaderboards.site.text import one_line
from leaderboards.tables.exports import standing_row
from leaderboards.tables.formats import Table, TableSection, to_latex
from leaderboards.tables.labels import slug
from leaderboards.tables.rule_words import words_of

SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "{''}", "@": "{@}",
}  # fmt: skip
BRACES = {"\\": r"\textbackslash{}", "{": r"$\lbrace$", "}": r"$\rbrace$"}
"""BibTeX counts every brace, escaped or not."""


def board_bibtex(published: Published) -> str:
    """The board itself, then every entry."""
    board = published.board
    fields = {
        "author": "{The Leakboard maintainers}",
        "title": f"{{Leakboard: {escaped(board.rules.title)}}}",
        "howpublished": "Leaderboard of privacy defenses in federated learning",
        "note": f"Board {escaped(board.name)}, SHA-256 {board.digest}",
    }
    return "\n".join([_entry(f"leakboard-{board.name}", fields), *(entry_bibtex(own) for own in published.entries)])


def entry_bibtex(entry: Entry) -> str:
    """One entry; its name and its board's, which are in the key, hold letters, digits and dashes only."""
    defenses = ", ".join(entry.defenses)
    fields = {
        "author": f"{{{escaped(entry.manifest.submitter)}}}",
        "title": f"{{{escaped(defenses)} on Leakboard's {escaped(entry.manifest.board)}}}",
        "howpublished": f"Entry {escaped(entry.name)} of a Leakboard leaderboard",
        "note": f"SHA-256 {entry.digest}",
    }
    if entry.manifest.plugin is not None:
        fields["url"] = entry.manifest.plugin.repository
    return _entry(f"leakboard-{slug(entry.manifest.board)}-{entry.name}", fields)


def escaped(text: str) -> str:
    """The text as TeX prints it."""
    return "".join((SIGNS | BRACES).get(sign, sign) for sign in one_line(text))


def _entry(key: str, fields: Mapping[str, str]) -> str:
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}}}\n"


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Signs with which a text begins that a spreadsheet takes for a formula."""


def downloads(board: BoardView) -> dict[str, bytes]:
    """The files by name; the same results give the same bytes."""
    frame, name = figures(board), board.name
    published = board.results.published
    files = {
        f"downloads/{name}.csv": _csv(frame),
        f"downloads/{name}.parquet": _parquet(frame),
        f"downloads/{name}.tex": to_latex([_section(board, view) for view in board.questions.values()]).encode(),
        f"downloads/{name}.bib": board_bibtex(published).encode(),
    }
    files |= {f"downloads/{entry.name}.entry.bib": entry_bibtex(entry).encode() for entry in published.entries}
    return files


def figures(board: BoardView) -> pd.DataFrame:
    """Every figure of a standing for every line, with the board, the entry and its state.

    `ssim` and `psnr_db` are means of the strongest attack, `attack_seconds` those of all attacks, floors aside.
    """
    rows = []
    for asked, view in board.questions.items():
        ranked = {line.defense: line for line in view.lines}
        for standing in board.results.standings[asked]:
            line, row = ranked[standing.defense], standing_row(standing)
            why = {"no_rank": line.rank.note if not line.rank.sort else None}
            strongest = strongest_cell(board.results, asked, standing) or {}
            shown = {name: strongest.get(f"{name}_mean") for name in ("ssim", "psnr_db")}
            shown |= {"attack_seconds": seconds_of_attacks(board.results, asked, standing.defense)}
            rows.append({"board": board.name, "entry": line.entry, "state": line.state, **row, **shown, **why})
    frame = pd.DataFrame(rows).convert_dtypes()
    texts = [str(column) for column in frame.columns if bool(frame[column].isna().to_numpy().all())]
    return frame.astype(dict.fromkeys(texts, "string"))


def _csv(frame: pd.DataFrame) -> bytes:
    safe = frame.copy()
    for column in safe.select_dtypes("string").columns:
        safe[column] = [_no_formula(value) for value in safe[column]]
    return safe.to_csv(index=False, lineterminator="\n").encode("utf-8", "replace")


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _parquet(frame: pd.DataFrame) -> bytes:
    made = io.BytesIO()
    frame.to_parquet(made, index=False)
    return made.getvalue()


def _section(board: BoardView, view: QuestionView) -> TableSection:
    priced = {"lost": "points lost", "epsilon": "epsilon"} if view.has_accuracy else {}
    shown = {"ssim": "SSIM", "psnr_db": "PSNR [dB]", "identified": "identified", **priced}
    rows = [_row(line, list(shown)) for line in view.lines]
    columns = ["defense", "state", "verdicts", "rank", "SSIM gain", "95% interval", *shown.values()]
    table = Table(words_of(board.results.published.board.rule).title, columns, rows, left=3)
    why = f" Nobody is ranked: {view.unranked}." if view.unranked else " Rank 1 leaks least."
    facts = one_line(view.facts + "." + why)
    return TableSection(one_line(f"{board.title}: {view.title}"), facts, [table])


def _row(line: LeaderboardLine, shown: list[str]) -> list[str]:
    figures = [line.rank.text, line.gain.text, line.gain.beside, *(line.figures[name].text for name in shown)]
    return [one_line(text) for text in (line.defense, line.state, ", ".join(line.verdicts), *figures)]
