"""Every key of a section with its type, its default and what it sets, from the pydantic models."""

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from bench.settings import Weights, as_list
from bench.specs import MethodSpec

SIGNS = {Ge: ("ge", "at least"), Gt: ("gt", "more than"), Le: ("le", "at most"), Lt: ("lt", "less than")}
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
            if type(one) in SIGNS:
                name, sign = SIGNS[type(one)]
                yield f"{sign} {getattr(one, name):g}"


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "required"
    return "" if value is None else f"`{_plain(value)}`"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return json.dumps(value.label if isinstance(value, Weights) else value)
