"""Families: the defenses of a table that are one defense at several strengths."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Any

from leaderboards.statistics.summary import Row


@dataclass(frozen=True)
class Family:
    """Defenses that differ in one numeric parameter only."""

    title: str
    """The defense's name, and the other parameters that tell it from other families."""
    parameter: str
    """The name of the parameter that differs."""
    strengths: dict[float, list[Row]]
    """Value of the parameter, rising -> the rows of that defense."""

    @property
    def scale(self) -> str:
        """The scale of an axis on which the strengths can be told apart.

        "logarithmic" where they span more than a factor of 20, "even" where a linear axis would press two of
        them together (ratios .99 and .999), else "linear".
        """
        values = sorted(self.strengths)
        if values[0] > 0 and values[-1] > 20 * values[0]:
            return "logarithmic"
        closest = min(b - a for a, b in pairwise(values))
        return "even" if closest < 0.13 * (values[-1] - values[0]) else "linear"

    @property
    def places(self) -> dict[float, float]:
        """Strength -> position on the axis."""
        if self.scale == "even":
            return {x: float(i) for i, x in enumerate(self.strengths)}
        return {x: log10(x) if self.scale == "logarithmic" else x for x in self.strengths}


def families(rows: list[Row]) -> tuple[list[Family], dict[str, list[Row]]]:
    """The families of a setting's rows, and label -> rows of the defenses that have one strength.

    The undefended rows belong to neither. Where several parameters of a defense vary, the numeric one with the
    most values is the strength, and every combination of the others is a family of its own.
    """
    named: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row["defense_name"] != "none":
            named.setdefault(row["defense_name"], {}).setdefault(row["defense"], []).append(row)
    found: list[Family] = []
    single: dict[str, list[Row]] = {}
    for name, defenses in named.items():
        parameters = {label: _parameters(cells[0]) for label, cells in defenses.items()}
        strength = _strength(list(parameters.values()))
        if strength is None:
            single |= defenses
            continue
        varying = [key for key in _varying(list(parameters.values())) if key != strength]
        groups: dict[str, dict[float, list[Row]]] = {}
        labels: dict[str, list[str]] = {}
        for label, cells in defenses.items():
            others = ", ".join(f"{_plain(key)}={parameters[label].get(key)}" for key in varying)
            groups.setdefault(others, {})[float(parameters[label][strength])] = cells
            labels.setdefault(others, []).append(label)
        for others, strengths in groups.items():
            if len(strengths) == 1:
                single |= {label: defenses[label] for label in labels[others]}
                continue
            title = f"{name}({others})" if others else name
            found.append(Family(title, _plain(strength), dict(sorted(strengths.items()))))
    return found, single


def _parameters(row: Row) -> dict[str, Any]:
    """All parameters of a chain, keyed by position and name."""
    parts = json.loads(row["defense_parameters"])
    return {f"{i}.{key}": value for i, part in enumerate(parts) for key, value in part.items()}


def _varying(parameters: list[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for each in parameters for key in each)
    return [key for key in keys if len({json.dumps(each.get(key)) for each in parameters}) > 1]


def _strength(parameters: list[dict[str, Any]]) -> str | None:
    numeric = [
        key
        for key in _varying(parameters)
        if all(isinstance(p.get(key), (int, float)) and not isinstance(p[key], bool) for p in parameters)
    ]
    return max(numeric, key=lambda key: len({p[key] for p in parameters}), default=None)


def _plain(key: str) -> str:
    return key.partition(".")[2]
