"""Why a stranger's file is not read, and how much of one is read at all."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import ConfigurationError


class Refused(ConfigurationError):
    """A file of a submission is not read: "FILE: what is wrong; what to do", FILE relative to the submission."""


@dataclass(frozen=True)
class Limits:
    """The most that is read; bytes, characters, pixels and counts."""

    most_files: int = 4000
    """Files and folders together."""
    most_bytes: int = 200 * 2**20
    """All files together."""
    folders_deep: int = 2
    name_length: int = 100
    """Of one file or folder, without the folders that it lies in."""
    json_bytes: int = 4 * 2**20
    json_depth: int = 16
    json_values: int = 1_000_000
    """Counted by commas and opening brackets, so that an empty list counts as two."""
    text_length: int = 2000
    """Of one text or key; `Folder.json` allows more where its caller says so."""
    number_length: int = 40
    """Characters of a number as it is written."""
    png_bytes: int = 8 * 2**20
    png_pixels: int = 16 * 10**6
    png_side: int = 16_384
    png_chunks: int = 4096


LIMITS = Limits()


def refused(file: str, wrong: str, remedy: str) -> Refused:
    """What is said of a file; what a stranger wrote stands in `wrong` only as `shown` gives it."""
    return Refused(f"{shown(file, 160)}: {wrong}; {remedy}")


def shown(text: str, length: int = 60) -> str:
    """A stranger's text in a message: ASCII, so that nothing steers a terminal or looks like what it is not; cut."""
    cut = text if len(text) <= length else f"{text[: length - 3]}..."
    return ascii(cut)[1:-1]
