"""What `leakboard list` shows: names, what they are, and their parameters; torch stays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from bench.attack_presets import attack_presets
from bench.errors import ConfigurationError, suggest
from bench.plugins import Entry
from bench.registry import Registry

KINDS = ("attacks", "defenses", "datasets", "models", "presets")


def listing(kind: str, registry: Registry, *, verify: bool = False) -> list[dict[str, Any]]:
    """One JSON-able row a name, sorted; attacks and defenses with origin, parameters and why one is broken.

    `verify` imports installed packages in child processes. Raises ConfigurationError for an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"nothing to list under {kind!r}; {suggest(kind, KINDS)}")
    if kind in ("attacks", "defenses"):
        rows = [_row(entry, entry.name) for entry in registry.entries(kind[:-1], verify=verify)]
        return sorted(rows + (_preset_rows(registry) if kind == "attacks" else []), key=lambda row: row["name"])
    return [{"name": name, "summary": summary} for name, summary in sorted(_summaries(kind).items())]


def render_listing(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned text: name and summary, and below them the parameters with their defaults."""
    if not rows:
        return "(none)"
    width = max(len(row["name"]) for row in rows)
    lines: list[str] = []
    for row in rows:
        lines.append(f"{row['name']:{width}}  {_remark(row)}".rstrip())
        parameters = [
            p["name"] if p["required"] else f"{p['name']}={p['default']!r}" for p in row.get("parameters", [])
        ]
        indent = " " * (width + 6)
        lines += wrap(", ".join(parameters), 110, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def _row(entry: Entry, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": entry.summary,
        "origin": entry.origin,
        "parameters": [dict(vars(parameter)) for parameter in entry.parameters],
        "broken": entry.broken,
    }


def _preset_rows(registry: Registry) -> list[dict[str, Any]]:
    """The presets of attacks as attacks, with their settings for defaults."""
    entries = {entry.name: entry for entry in registry.entries("attack")}
    rows: list[dict[str, Any]] = []
    for name, preset in attack_presets().items():
        row = _row(entries[preset.attack], name)
        for parameter in row["parameters"]:
            parameter["default"] = preset.parameters[parameter["name"]]
        rows.append(row | {"summary": preset.summary, "origin": f"preset of {preset.attack}"})
    return rows


def _remark(row: Mapping[str, Any]) -> str:
    if row.get("broken"):
        return f"BROKEN, {row['origin']}: {row['broken']}"
    origin = row.get("origin", "built-in")
    return row["summary"] if origin == "built-in" else f"{row['summary']} [{origin}]".lstrip()


def _summaries(kind: str) -> Mapping[str, str]:
    if kind == "presets":
        from bench.grid_sources import presets

        grids = {name: text.partition("\n")[0].lstrip("# ") for name, text in presets().items()}
        return grids | {name: f"{preset.summary} [an attack]" for name, preset in attack_presets().items()}
    from bench import catalogue

    return catalogue.DATASETS if kind == "datasets" else catalogue.MODELS
