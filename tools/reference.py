"""Write docs/reference.md from the code: commands, keys of grid files and boards, methods, variables, columns."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo, OptionInfo

from attacks.threat import switches
from bench.columns import THREAT
from bench.grid.config import Config
from bench.grid.sections import BoardRules, Weights, as_list
from bench.registry.registry import Registry
from bench.registry.specs import MethodSpec
from leaderboards.cli.grids import listing
from leaderboards.cli.main import app


def commands() -> Iterator[str]:
    """A section for each command, in the order of `leakboard --help`."""
    for words, function in walk(app, ()):
        yield from _section(words, function)


def walk(group: typer.Typer, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """The words and the function of every command in the group and the groups inside it."""
    for command in group.registered_commands:
        assert command.callback is not None, "a command has a function"
        name = command.name or command.callback.__name__.replace("_", "-")
        yield (*words, name), command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None, "a group has an application"
        yield from walk(inner.typer_instance, (*words, str(inner.name)))


def _section(words: tuple[str, ...], function: Callable[..., Any]) -> Iterator[str]:
    hints = get_type_hints(function, include_extras=True)
    arguments, rows = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[:2]
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else _default_of_option(parameter.default)
        if isinstance(info, ArgumentInfo):
            shown = info.metavar or name.upper()
            arguments.append(shown if required else f"[{shown}]")
            rows.append((f"`{shown}`", default, info.help))
        elif isinstance(info, OptionInfo):
            rows.append((_option(name, kind, info), default, info.help))
    yield f"### `{' '.join(('leakboard', *words, *arguments))}`"
    yield inspect.cleandoc(function.__doc__ or "")
    lines = ["| argument or option | default | meaning |", "|:--|:--|:--|"]
    lines += [f"| {names} | {default} | {_cell(text or '')} |" for names, default, text in rows]
    if rows:
        yield "\n".join(lines)


def options(function: Callable[..., Any]) -> set[str]:
    """Every option of a command's function, as it is typed."""
    hints = get_type_hints(function, include_extras=True)
    found = {name: get_args(hints[name])[:2] for name in inspect.signature(function).parameters}
    return {f for name, (kind, info) in found.items() if isinstance(info, OptionInfo) for f in _flags(name, kind, info)}


def _flags(name: str, kind: Any, info: OptionInfo) -> list[str]:
    plain = name.replace("_", "-")
    # Inside Annotated the first declaration stands where typer elsewhere has the default.
    flags = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str)]
    return flags or ([f"--{plain}", f"--no-{plain}"] if kind is bool else [f"--{plain}"])


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    flags = _flags(name, kind, info)
    shown = "" if kind is bool else f" {info.metavar or _value(kind)}"
    several = " (may be repeated)" if any(get_origin(part) is list for part in (kind, *get_args(kind))) else ""
    return ", ".join(f"`{flag}{shown}`" for flag in flags) + several


def _value(kind: Any) -> str:
    """The placeholder of an option's value: the choices of a Literal, else the type's name."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Literal:
            return "\\|".join(map(str, get_args(part)))
    names = {str: "TEXT", int: "N", float: "X", Path: "PATH"}
    return next(names[part] for part in (kind, *get_args(kind)) if part in names)


def _default_of_option(value: object) -> str:
    return "" if value in (None, False, "") else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "more than"), Le: ("le", "at most"), Lt: ("lt", "less than")}
WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    Path: "path",
    MethodSpec: "method",
}


def keys_of(
    model: type[BaseModel], notes: Mapping[str, str], under: str = "", but: tuple[str, ...] = ()
) -> Iterator[str]:
    """The docstring and a table of the keys of the model, then those of the sections inside it, without `but`."""
    yield f"### `[{under}]`" if under else "### At the top"
    yield inspect.cleandoc(model.__doc__ or "")
    lines, inner = ["| key | type | default | what it sets |", "|:--|:--|:--|:--|"], []
    hints = get_type_hints(model, include_extras=True)
    for name, field in model.model_fields.items():
        key = f"{under}.{name}" if under else name
        section = section_in(hints[name])
        if key not in but and section is not None:
            inner.append((section, key))
        if key not in but:
            folded = section is not None and section is not Weights and not field.is_required()
            default = "" if folded else _default(field.default)
            told = notes[key].replace("|", "\\|")
            lines.append(f"| `{key}` | {words(hints[name])} | {default} | {told} |")
    yield "\n".join(lines)
    for section, key in inner:
        yield from keys_of(section, notes, key, but)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section behind an annotation: itself, or itself or None, or a list of it."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in get_args(annotation) if (found := section_in(part)) is not None), None)


def words(annotation: Any, *metadata: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if parts[0] in (MethodSpec, str, bool):
            return WORDS[parts[0]]
        return words(parts[0], *parts[1:], *metadata)
    if origin in (Union, UnionType):
        return words(*(part for part in parts if part is not type(None)), *metadata)
    if origin is Literal:
        return " or ".join(f'`"{part}"`' for part in parts)
    if origin is tuple:
        single = any(getattr(item, "func", None) is as_list for item in metadata)
        return f"{words(parts[0])}, or a list" if single else f"list of: {words(parts[0])}"
    if section_in(annotation) is not None:
        return "table"
    return WORDS[annotation] + "".join(f", {limit}" for limit in _limits(metadata))


def _limits(metadata: tuple[Any, ...]) -> Iterator[str]:
    for item in metadata:
        for one in getattr(item, "metadata", [item]):  # A Field holds its bounds in a list.
            if type(one) in BOUNDS:
                name, sign = BOUNDS[type(one)]
                yield f"{sign} {getattr(one, name):g}"


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    return "" if value is None else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return json.dumps(value.label if isinstance(value, Weights) else value)


HERE = Path(__file__).resolve().parents[1] / "docs"
REFERENCE_PAGE = HERE / "reference.md"
NOTES = HERE / "reference.toml"
REFERENCE_HEAD = """# Reference

Made from the code by `make reference`; a test compares. What a run does in order is in [quickstart.md](quickstart.md).
"""


def words_for_the_page() -> dict[str, dict[str, str]]:
    """The tables of docs/reference.toml; what they say of the threat model is said where its fields are declared."""
    told = tomllib.loads(NOTES.read_text(encoding="utf-8"))
    axes = {f"grid.threat.{switch.name}": f"{switch.meaning}. An axis" for switch in switches()}
    columns = {name.format(threat=", ".join(THREAT)): text for name, text in told["columns"].items()}
    return told | {"keys": told["keys"] | axes, "columns": columns}


def reference_page() -> str:
    """The whole page."""
    notes = words_for_the_page()
    parts = [
        REFERENCE_HEAD,
        "## Commands",
        *commands(),
        "## Exit codes",
        _table(("code", "meaning"), notes["exit_codes"]),
        "## Keys of a grid file",
        "A grid file is TOML. A key that takes one or a list is an axis of the grid. Unknown keys are errors.",
        *keys_of(Config, notes["keys"], but=("board",)),
        "## Keys of a board",
        "A board's file is a grid without defenses, and the table `[board]`.",
        *keys_of(BoardRules, notes["keys"], under="board"),
        "## Environment variables",
        _table(("variable", "meaning"), notes["environment"]),
        "## Columns",
        "`leakboard export RUN --to FILE` writes a row for every attacked image, or for every block without a result:",
        _table(("column", "meaning"), notes["columns"]),
        "With `--jobs` it writes a row for every training and certificate:",
        _table(("column", "meaning"), notes["job_columns"]),
        "## Attacks",
        "Presets are settings of an attack under a versioned name, whose meaning never changes.",
        _methods("attacks"),
        "## Defenses",
        _methods("defenses"),
        "## Presets of grids",
        _methods("presets"),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _methods(kind: str) -> str:
    """A row for each built-in name, with its parameters; what else is installed here is nobody's reference."""
    rows: dict[str, str] = {}
    for row in listing(kind, Registry()):
        own_or_preset = row.get("origin", "built-in").startswith(("built-in", "preset of"))
        if own_or_preset and not row["summary"].endswith("[an attack]"):
            own = ", ".join(
                p["name"] if p["required"] else f"{p['name']}={p['default']!r}" for p in row.get("parameters", [])
            )
            rows[row["name"]] = row["summary"] + (f" `{own}`" if own else "")
    return _table(("name", "what it is, and its parameters"), rows)


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|:--|:--|"]
    for names, text in rows.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    REFERENCE_PAGE.write_text(reference_page(), encoding="utf-8")
