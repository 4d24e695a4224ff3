"""The command that runs an entry again: made from what the entry holds, never its submitter's own words."""

from __future__ import annotations

import shlex

from leaderboards.board import Board
from leaderboards.entries import Entry
from leaderboards.site_names import one_line


def command_of(entry: Entry, board: Board) -> str:
    """As a shell reads it: every label is one quoted word, whatever is in it."""
    words = ["leakboard", "run", f"board:{board.name}"]
    for defense in entry.defenses:
        words += ["--defense", one_line(defense)]
    attacks = dict.fromkeys(cell.identity.attack for cell in entry.cells if not cell.identity.control)
    for attack in attacks:
        words += [] if attack in board.rules.required else ["--attack", one_line(attack)]
    plugin = entry.manifest.plugin
    return shlex.join([*words, *(["--plugin", plugin.file] if plugin else [])])
