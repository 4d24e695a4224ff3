"""Text of the site: templates that escape, names of pages, and figures as text beside what they are sorted by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import floor, log10
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboards.ranking.verdicts import Verdict
from leaderboards.tables.exports import VERDICTS
from leaderboards.tables.labels import slug
from leaderboards.tables.rule_words import RULE_WORDS

DASH = "\N{EN DASH}"
PERCENT, POINTS = ".0%", ".1f"


@dataclass(frozen=True)
class Figure:
    """A cell of a table."""

    text: str
    sort: str = ""
    """The number that it is sorted by; "" puts it last."""
    beside: str = ""
    """A second text in small print."""
    note: str = ""
    """A text that is shown on demand."""


def number_figure(value: float | None, how: str) -> Figure:
    """A figure in a format; a dash where there is none."""
    if value is None or pd.isna(value):
        return Figure(DASH)
    return Figure(format(value, f"z{how}"), f"{value:.9g}")


def significant(value: float | None) -> Figure:
    """Three significant digits or all before the point, never an exponent; a dash where there is no value."""
    return Figure(DASH) if value is None or pd.isna(value) else Figure(significant_text(value), f"{value:.9g}")


def significant_text(value: float) -> str:
    """A number of at least 0 as `significant` writes it."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}" if value > 0 else "0"


def span(low: float, high: float, how: str) -> str:
    """An interval in a format, "" where there is none; of images that all count as no gain a bootstrap says nothing."""
    return "" if pd.isna(low) or low == high == 0 else f"{low:z{how}} to {high:z{how}}"


LONGEST = 40
"""Characters of the readable part of a page's name, at most."""


def page_name(*words: str) -> str:
    """A readable part of the last word and a short hash of all of them: other words have another name."""
    readable = re.sub(r"[^a-z0-9]+", "-", slug(words[-1]))[:LONGEST].strip("-")
    return f"{readable or 'page'}-{short_hash(*words)}"


def short_hash(*words: str) -> str:
    """Sixteen hexadecimal digits that stand for these words."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def distinct_names(names: Iterable[str]) -> list[str]:
    """The names, the second of two equal ones with a number behind it."""
    found: list[str] = []
    for name in names:
        count, free = 1, name
        while free in found:
            count += 1
            free = f"{name}-{count}"
        found.append(free)
    return found


def one_line(text: str) -> str:
    """The text without line breaks, and without what cannot be printed or turns the direction of its surroundings."""
    kept = "".join(sign if sign.isprintable() and sign not in _TURNS else " " for sign in text)
    return " ".join(kept.split())


_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


STATES = {
    "self-reported": "figures as submitted; nobody has checked them",
    "artefact-checked": "every score was computed again from the submitted images",
    "re-run": "attacks drawn at random, and one training, were run again and agree",
}
EXPLAINED = {
    Verdict.INCOMPLETE: "something that the board asks for has no result",
    Verdict.UNDERPOWERED: "attacks ended above their objective at the truth: a lower bound",
    Verdict.BROKEN_CERTIFICATE: "an attack was right more often than the proof allows",
}
"""The meaning of each verdict that all rules give alike."""


def verdict_meanings(rules: int) -> dict[Verdict, str]:
    """Verdict -> its meaning, for the verdicts that this number of rules can give, in their order."""
    known = EXPLAINED | dict(RULE_WORDS[rules].verdicts)
    return {own: known[own] for own in VERDICTS if own in known}


def verdict_words_of(rules: int) -> dict[str, str]:
    """The `verdict_meanings` by the verdict in words."""
    return {VERDICTS[own]: text for own, text in verdict_meanings(rules).items()}


FOLDER = Path(__file__).with_name("templates")


def pieces(text: str) -> list[str]:
    """The text on one line, cut behind the signs at which a label may be broken."""
    return [piece for piece in re.findall(r"[^_=,(|]*[_=,(|]?", one_line(text)) if piece]


@cache
def environment() -> Environment:
    """Every template with autoescape, by its name; a value that was not given raises."""
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"one_line": one_line, "pieces": pieces, "json": _json, "plain": significant_text}
    made.globals |= {
        "states": STATES,
        "verdicts": list(VERDICTS.values()),
        "verdict_words_of": verdict_words_of,
        "rule_titles": {number: words.title for number, words in RULE_WORDS.items()},
        "version": _version(),
    }
    return made


def render_template(template: str, path: str, **values: Any) -> bytes:
    """The page at `path` of the site, in UTF-8; `root` leads from it to the site's own folder."""
    text = environment().get_template(template).render(root="../" * path.count("/"), path=path, **values)
    # A lone surrogate of a stranger's text has no UTF-8.
    return text.encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _version() -> str:
    try:
        return version("leakboard")
    except PackageNotFoundError:
        return "from source"
