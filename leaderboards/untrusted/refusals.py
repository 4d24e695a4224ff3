"""Refusals to read a stranger's file, and the limits of what is read."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import ConfigurationError


class Refused(ConfigurationError):
    """A file of a submission is not read: "FILE: what is wrong; what to do", FILE relative to the submission."""


@dataclass(frozen=True)
class ReadLimits:
    """The most that is read of a submission, in bytes, characters, pixels and counts."""

    most_files: int = 4000
    """Files and folders together."""
    most_bytes: int = 200 * 2**20
    """All files together."""
    folders_deep: int = 2
    """Folders inside each other, below the submission's own."""
    name_length: int = 100
    """Characters in the name of one file or folder, without the folders that it lies in."""
    json_bytes: int = 4 * 2**20
    """One JSON file."""
    json_depth: int = 16
    """Lists and objects inside each other."""
    json_values: int = 1_000_000
    """Values of one file, counted by commas and opening brackets, so that an empty list counts as two."""
    text_length: int = 2000
    """Characters of one text or key; `Folder.json` allows more where its caller says so."""
    number_length: int = 40
    """Characters of a number as it is written."""
    png_bytes: int = 8 * 2**20
    """One PNG file."""
    png_pixels: int = 16 * 10**6
    """Width times height of one picture."""
    png_side: int = 16_384
    """Pixels of the longer side."""
    png_chunks: int = 4096
    """Chunks of one file."""


LIMITS = ReadLimits()


def refused(file: str, wrong: str, remedy: str) -> Refused:
    """The refusal of a file, with a remedy; a stranger's own text stands in `wrong` only as `shown` gives it."""
    return Refused(f"{shown(file, 160)}: {wrong}; {remedy}")


def shown(text: str, length: int = 60) -> str:
    """A stranger's text in a message: ASCII, so that nothing steers a terminal or looks like what it is not; cut."""
    cut = text if len(text) <= length else f"{text[: length - 3]}..."
    return ascii(cut)[1:-1]
