"""The names of pages and of places on them: of a stranger's text only letters, digits and dashes are left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from leaderboards.labels import slug

LONGEST = 40


def page_name(*words: str) -> str:
    """A readable part of the last word and a short hash of all of them: other words have another name."""
    readable = re.sub(r"[^a-z0-9]+", "-", slug(words[-1]))[:LONGEST].strip("-")
    return f"{readable or 'page'}-{short_hash(*words)}"


def short_hash(*words: str) -> str:
    """Sixteen hexadecimal digits that stand for these words."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def distinct(names: Iterable[str]) -> list[str]:
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
