"""Every command of `leakboard` with its arguments and options, from the signatures that typer reads."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from leaderboards.cli import app


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
        default = "required" if required else _default(parameter.default)
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
    """What stands for a value: the choices of a Literal, else the type's name."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Literal:
            return "\\|".join(map(str, get_args(part)))
    names = {str: "TEXT", int: "N", float: "X", Path: "PATH"}
    return next(names[part] for part in (kind, *get_args(kind)) if part in names)


def _default(value: object) -> str:
    return "" if value in (None, False, "") else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
