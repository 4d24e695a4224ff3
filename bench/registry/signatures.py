"""The parameters of a method: read from its source without importing it, or from its class."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin

from bench.errors import ConfigurationError


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method."""

    name: str
    """The name by which grids set it."""
    type: str
    """The annotation's text."""
    default: Any = None
    """The value where none is given; None when `required`."""
    required: bool = False
    """True if a grid must set it."""
    since: int = 0
    """Above 0 if it was added after boards were published, as in
    `depth: int = field(default=1, metadata={"since": 2})`: specs leave it out at its default."""


def subclasses_in(tree: ast.Module, base: str) -> list[ast.ClassDef]:
    """The public classes of a module that name `base` among their bases, in the order written."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and not node.name.startswith("_")
        and any(ast.unparse(parent).rpartition(".")[2] == base for parent in node.bases)
    ]


def doc_summary(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().partition("\n")[0].strip()


def parameters_in(node: ast.ClassDef) -> tuple[Parameter, ...]:
    """The annotated fields of a dataclass's source; a default that is no literal is given as its text."""
    found: list[Parameter] = []
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        text, value, since = ast.unparse(statement.annotation), statement.value, 0
        if text.partition("[")[0].rpartition(".")[2] == "ClassVar":
            continue
        if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "field":
            given = {keyword.arg: keyword.value for keyword in value.keywords}
            if isinstance(flag := given.get("init"), ast.Constant) and flag.value is False:
                continue
            value = given.get("default", given.get("default_factory"))
            since = _since(given.get("metadata"))
        default = None if value is None else _literal(value)
        found.append(Parameter(statement.target.id, text, default, required=value is None, since=since))
    return tuple(found)


def parameters_of(cls: type) -> tuple[Parameter, ...]:
    """The fields of a dataclass that its constructor takes; raises ConfigurationError if it is not a frozen one."""
    # An undecorated subclass of a dataclass looks like one, but its own annotations are no fields.
    if "__dataclass_fields__" not in vars(cls):
        own = [name for name, kind in inspect.get_annotations(cls).items() if not _is_class_variable(kind)]
        if own or "__init__" in vars(cls):
            raise ConfigurationError(f"class {cls.__name__} has parameters but lacks @dataclass(frozen=True)")
    if not is_dataclass(cls):
        return ()
    if not cls.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        raise ConfigurationError(
            f"class {cls.__name__} could change from one client to the next; write @dataclass(frozen=True)"
        )
    found: list[Parameter] = []
    for field in fields(cls):
        if field.init:
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            text = field.type if isinstance(field.type, str) else _type_text(field.type)
            required = default is MISSING
            if field.name == "name":
                raise ConfigurationError(f"class {cls.__name__}: a grid's tables use the key 'name'; rename the field")
            since = field.metadata.get("since", 0)
            found.append(Parameter(field.name, text, None if required else default, required, since))
    return tuple(found)


def annotations_of(cls: type) -> dict[str, Any]:
    """Parameter -> its evaluated type."""
    names = {parameter.name for parameter in parameters_of(cls)}
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except Exception as error:  # An annotation's text may be anything.
        raise ConfigurationError(
            f"class {cls.__name__} has an annotation that cannot be evaluated: {error}; mend its spelling, or import "
            "its name outside TYPE_CHECKING"
        ) from None
    return {name: hint for name, hint in hints.items() if name in names}


def check_defaults(cls: type) -> None:
    """Raise ConfigurationError unless every annotation can be read and every default is of its type."""
    hints = annotations_of(cls)
    for parameter in parameters_of(cls):
        if not parameter.required:
            try:
                validated(hints[parameter.name], parameter.type, parameter.default)
            except ValueError as error:
                raise ConfigurationError(f"the default of {parameter.name} {error}") from error


def untyped(cls: type, name: str) -> str:
    """Advice that makes a parameter of a value that the class sets without a type; empty if it sets no such value."""
    value = vars(cls).get(name)
    inherited = any(name in vars(base) for base in cls.__mro__[1:])
    if inherited or not isinstance(value, bool | int | float | str | list | tuple):
        return ""
    return f"{cls.__name__} sets it without a type; write {name}: {type(value).__name__} = {value!r} in a dataclass"


def is_sequence(annotation: Any) -> bool:
    """True when a list is one value of this type: tuple, list, Sequence, or a union with one of them."""
    origin = get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        return any(is_sequence(part) for part in get_args(annotation))
    if origin is typing.Annotated:
        return is_sequence(get_args(annotation)[0])
    return inspect.isclass(origin) and issubclass(origin, Sequence) and not issubclass(origin, str | bytes)


def validated(annotation: Any, text: str, value: Any) -> Any:
    """The value as its type wants it; raises ValueError that starts with "must be".

    Strict: no string for a number, no bool for an int; an int stands for a float, a list for a tuple.
    """
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        # JSON's strict rules are a grid file's: they alone take a list for a tuple.
        return TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except (PydanticSchemaGenerationError, TypeError):
        raise ValueError(f"must be {text}, which no grid file can hold; use numbers, strings, lists") from None
    except ValidationError as error:
        shown = repr(list(value) if isinstance(value, tuple) else value)
        if get_origin(annotation) is Literal:
            allowed = ", ".join(map(repr, get_args(annotation)))
            raise ValueError(f"must be one of {allowed}, got {shown}") from None
        raise ValueError(f"must be {text}, got {shown}") from error


def _since(metadata: ast.expr | None) -> int:
    told = None if metadata is None else _literal(metadata)
    return told.get("since", 0) if isinstance(told, dict) else 0


def _is_class_variable(kind: Any) -> bool:
    return get_origin(kind) is ClassVar or "ClassVar" in str(kind)


def _type_text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def _literal(node: ast.expr) -> Any:
    """The value of a literal, quotients of numbers such as 3 / 8 included; else the source text."""
    try:
        return ast.literal_eval(_Quotients().visit(copy.deepcopy(node)))
    except ValueError:
        return ast.unparse(node)


class _Quotients(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        match node:
            case ast.BinOp(ast.Constant(int() | float() as a), ast.Div(), ast.Constant(int() | float() as b)) if b:
                return ast.Constant(a / b)
        return node
