"""Published settings of attacks under versioned names: `ig@neurips20`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bench.registry.specs import Call

FILE = "attacks.toml"
"""In `bench/presets`, beside the grids."""


@dataclass(frozen=True)
class AttackPreset:
    """The attack behind a name, and its parameters: all of them, so that no later default changes a preset."""

    attack: str
    """The attack's name."""
    summary: str
    """One line for lists of attacks."""
    parameters: dict[str, Any]
    """All of the attack's parameters, by name."""


@cache
def attack_presets() -> dict[str, AttackPreset]:
    """Name -> preset, as written in `bench/presets/attacks.toml`."""
    text = (files("bench") / "presets" / FILE).read_text(encoding="utf-8")
    return {name: AttackPreset(**table) for name, table in tomllib.loads(text).items()}


def unfolded(call: Call) -> Call:
    """The call of the attack itself, where its name is a preset's; what the call gives stands above the preset."""
    name, given = call
    preset = attack_presets().get(name)
    if preset is None:
        return call
    # What was written first is the slowest axis.
    return preset.attack, given | {key: value for key, value in preset.parameters.items() if key not in given}
