"""Reading a grid by file or by the name of a preset, changing it from the command line, and its error messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from bench.errors import ConfigurationError, suggest
from bench.registry.presets import FILE


@dataclass(frozen=True)
class GridText:
    """A grid whose text somebody else has found by name, such as a board's."""

    name: str
    """The name of the run."""
    text: str
    """The grid file's text."""
    title: str
    """The grid's name in messages."""
    fixed: bool = False
    """True if only the engine can be overridden, as the results would be another grid's, and a defense is needed."""


GridSource = str | Path | GridText
"""A grid by the name of a preset, by the path of a TOML file, or as text."""


def presets() -> dict[str, str]:
    """Name -> TOML text of the grids that come with Leakboard."""
    folder = files("bench") / "presets"
    return {
        file.name.removesuffix(".toml"): file.read_text(encoding="utf-8")
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".toml") and file.name != FILE
    }


Location = tuple[int | str, ...]


def read_grid(spec: GridSource, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str, str]:
    """The table of a preset, a text or a file, the name that it gives to its run, and what messages call it."""
    if isinstance(spec, GridText):
        for override in overrides if spec.fixed else ():
            if not re.match(r"\s*engine\.(?!precision)\w+\s*=", override):
                raise ConfigurationError(
                    f"--set {override}: a board is fixed, and run in float32; only engine.* can be set, and -o names "
                    "another folder"
                )
        return _table(spec.text, spec.title), spec.name, spec.title
    known = presets()
    if isinstance(spec, str) and spec in known:
        return _table(known[spec], f"preset {spec}"), spec, f"preset {spec}"
    path = Path(spec)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is neither a preset nor a file"
        raise ConfigurationError(f"{str(spec)!r} {what}; {suggest(str(spec), known)}, or give the path of a TOML file")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Some editors put a byte order mark in front.
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read as text: {error}") from error
    return _table(text, str(path)), path.stem, str(path)


def run_name(spec: GridSource, overrides: Sequence[str], model: type[BaseModel]) -> str:
    """The name of the run, which names its folder, before anything else of the grid is checked."""
    table, name, _ = read_grid(spec, overrides)
    for override in overrides:
        apply_override(table, override, model)
    return str(table.get("name", name))


def add_methods(table: dict[str, Any], spec: GridSource, defenses: Sequence[str], attacks: Sequence[str]) -> None:
    """Let `defenses` and `attacks` join those of the grid; a board's own defenses are the undefended client alone."""
    grid = table.get("grid")
    if not isinstance(grid, dict):
        return
    if "board" in table:
        if isinstance(spec, GridText) and spec.fixed and not defenses:
            raise ConfigurationError(
                f'{spec.title} needs a defense: add --defense NAME, or --defense "NAME(KEY=VALUE)"'
            )
        grid.setdefault("defenses", ["none"])
    for key, more in (("defenses", defenses), ("attacks", attacks)):
        if more:
            own = grid.get(key, [])
            grid[key] = [*(own if isinstance(own, list) else [own]), *more]


def apply_override(table: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    """Write one `KEY=VALUE` into the table; KEY is dotted, VALUE is TOML, else a string."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigurationError(f"--set {override!r} is not KEY=VALUE; for example --set grid.images=8")
    known = list(_dotted_keys(model))
    if key not in known:
        raise ConfigurationError(f"--set {key}: unknown key; {_nearest(key, known)}")
    *parents, last = key.split(".")
    for parent in parents:
        inner = table.setdefault(parent, {})
        if parent == "dataset" and isinstance(inner, str):
            inner = table[parent] = {"name": inner}
        if not isinstance(inner, dict):
            raise ConfigurationError(f"--set {key}: {parent} is {inner!r} in the file, not a table; set it whole")
        table = inner
    table[last] = _override_value(key, text.strip())


def list_mistakes(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """Everything that is wrong, one line a mistake, unknown keys first."""
    mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    return "\n".join(f"{source}: {_mistake(mistake, model)}" for mistake in mistakes)


def _mistake(mistake: Any, model: type[BaseModel]) -> str:
    location, context = mistake["loc"], mistake.get("ctx", {})
    key, got = _dotted(location), f"got {mistake['input']!r}"
    match mistake["type"]:
        case "extra_forbidden":
            inside = _dotted(location[:-1])
            siblings = _dotted_keys(_model_at(model, location[:-1]), inside + "." if inside else "")
            return f"unknown key {key}; {_nearest(key, list(siblings))}"
        case "missing":
            return f"{key} is missing; add it"
        case "value_error":
            text = str(context["error"])
            return f"{key}{text}" if text[0] in "[.:" else f"{key} {text}"
        case "literal_error":
            return f"{key} must be {context['expected']}, {got}"
        case "greater_than_equal":
            return f"{key} must be at least {context['ge']}, {got}"
        case "less_than_equal":
            return f"{key} must be at most {context['le']:,}, {got}"
        case "greater_than":
            return f"{key} must be more than {context['gt']:g}, {got}"
        case "model_type" | "model_attributes_type":
            return f"{key} must be a table, {got}"
        case "tuple_type":
            return f"{key} must be a list, {got}; write [{mistake['input']}]"
    return f"{key}: {mistake['msg'].replace('Input should be', 'must be')}, {got}"


def _table(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source} is not valid TOML: {error}") from error


def _override_value(key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text[:1] in {"[", "{", '"', "'"}:
            raise ConfigurationError(
                f"--set {key}: {text} is not valid TOML: {error}; quote it for the shell, as in "
                """--set 'grid.defenses=["none"]'"""
            ) from error
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


def _nearest(key: str, known: list[str]) -> str:
    """Suggest among dotted keys, with its neighbours; the same last word in another section is near too."""
    same_word = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    near = get_close_matches(key, known, n=1, cutoff=0.85) or same_word or get_close_matches(key, known, n=1)
    if not near:
        return suggest(key, known)
    beside = [other for other in known if other.rpartition(".")[0] == near[0].rpartition(".")[0]]
    return f"did you mean {near[0]!r}? known: {', '.join(beside)}"


def _dotted(location: Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _dotted_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _dotted_keys(inner, f"{prefix}{name}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section behind `Section` or `Section | None`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return model
