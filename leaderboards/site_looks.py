"""Colours and shapes of the defenses on a drawing: the strengths of one entry's family share theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leaderboards.families import families
from leaderboards.site_results import Asked, Results
from leaderboards.summary import Row

LOOKS = 8
"""So many colours and shapes, then they begin anew; the undefended client has its own."""
UNDEFENDED = "star"
SHAPES = ("disc", "square", "diamond", "up", "down", "cross", "hexagon", "bow")


@dataclass(frozen=True)
class Name:
    """A defense's entry and family, its strength as "parameter=value" ("" for one alone), and its look."""

    entry: str
    family: str
    strength: str
    look: int
    shape: str


def names(results: Results, asked: Asked) -> Mapping[str, Name]:
    """Defense -> its entry, family, strength and look; the undefended client first, no family across entries."""
    by_entry: dict[str, list[Row]] = {}
    found: dict[str, Name] = {}
    for evidence in results.questions[asked].defenses:
        row = evidence.row
        entry = results.owners[row["defense"]].name
        by_entry.setdefault(entry, []).append(row)
        if row["defense_name"] == "none":
            found[row["defense"]] = Name(entry, row["defense"], "", LOOKS, UNDEFENDED)
    groups: list[tuple[str, str, dict[str, str]]] = []
    for entry, rows in by_entry.items():
        several, single = families(rows)
        for f in several:
            own = {rows[0]["defense"]: f"{f.parameter}={x:g}" for x, rows in f.strengths.items()}
            groups.append((entry, f.title, own))
        groups += [(entry, label, {label: ""}) for label in single]
    for i, (entry, title, own) in enumerate(groups):
        look = i % LOOKS
        found |= {label: Name(entry, title, strength, look, SHAPES[look]) for label, strength in own.items()}
    return found
