"""BibTeX for boards and entries: every text escaped, so that braces stay balanced and nothing is a command."""

from __future__ import annotations

from collections.abc import Mapping

from leaderboards.entries import Entry
from leaderboards.labels import slug
from leaderboards.publications import Published
from leaderboards.site_names import one_line

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
