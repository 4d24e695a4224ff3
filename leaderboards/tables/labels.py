"""Long labels of methods and settings, broken for narrow columns or made into file names."""

from __future__ import annotations

import re


def label_lines(label: str, width: int) -> list[str]:
    """A method's label in lines of at most `width` characters where it can be broken.

    "dp_sgd(clip_norm=1.0, noise_multiplier=0.1)" gives its name and each parameter on lines of their own, and
    breaks what is still too long after an underscore or an equals sign. The parts of a chain keep their bar.
    """
    lines: list[str] = []
    for position, part in enumerate(label.split(" | ")):
        name, _, arguments = part.partition("(")
        pieces = [name, *(arguments.removesuffix(")").replace("'", "").split(", ") if arguments else [])]
        if position:
            pieces[0] = f"| {pieces[0]}"
        for piece in pieces:
            lines += _broken(piece, width)
    return lines


def slug(*words: str) -> str:
    """Words as one part of a file name: lower-case letters, digits, dots and dashes."""
    return "-".join(filter(None, (re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-.") for word in words)))


def _broken(piece: str, width: int) -> list[str]:
    if len(piece) <= width:
        return [piece]
    lines = [""]
    for word in re.findall(r"[^_=\s]*[_=\s]?", piece):
        if lines[-1] and len(lines[-1] + word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines if line.strip()]
