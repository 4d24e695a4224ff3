"""Errors that a user can mend: a message, never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

MOST_LISTED = 12
"""Known names that a message still lists when it has a suggestion."""


class ConfigurationError(ValueError):
    """Something in the grid, a plugin or the data is wrong; the message says what, where and what to do."""


class Unwritable(RuntimeError):
    """A file cannot be written, most likely because the disk is full; everything published before is kept."""

    def __init__(self, path: Path, error: OSError) -> None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        super().__init__(
            f"cannot write {path}: {error.strerror or error}; {'free some space' if full else 'make it writable'} and "
            "give the same command again, everything finished is kept"
        )


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, and all of them or the few near ones."""
    names = sorted(known)
    near = get_close_matches(name, names, n=5, cutoff=0.5)
    guess = f"did you mean {near[0]!r}? " if near else ""
    if near and len(names) > MOST_LISTED:
        others = f"near are also {', '.join(near[1:])}; " if near[1:] else ""
        return f"{guess}{others}{len(names)} names are known"
    return f"{guess}known: {', '.join(names) or 'none'}"
