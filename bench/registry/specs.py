"""A method with its parameters, as a grid names it: `gradient_pruning(ratio=0.9)`."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import ConfigurationError

Value = Any
"""A parameter's value: None, bool, int, float, str, or a tuple of values; hashable."""
Call = tuple[str, dict[str, Any]]
"""A method's name and its parameters as written, in the order written; lists may be axes."""


@dataclass(frozen=True, eq=False)
class MethodSpec:
    """A method's name and parameters; equal when both are equal."""

    name: str
    """The method's name."""
    items: tuple[tuple[str, Value], ...] = ()
    """(parameter, value) pairs sorted by name: all of them once the registry has resolved the spec, but for those that
    were added after boards were published and are at their defaults."""
    defaults: tuple[tuple[str, Value], ...] = ()
    """The pairs that the class itself supplies, once the registry has resolved the spec."""

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> MethodSpec:
        """A spec from plain mappings; lists become tuples."""
        return cls(name, _pairs(name, parameters), _pairs(name, defaults or {}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MethodSpec) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        # By text: to Python, 1 == 1.0 == True.
        return self.name, tuple((key, repr(value)) for key, value in self.items)

    @property
    def parameters(self) -> dict[str, Value]:
        return dict(self.items)

    @property
    def label(self) -> str:
        """The name, with every parameter that is not at the class's default."""
        defaults = {key: repr(value) for key, value in self.defaults}
        return _call(self.name, [(k, _text(v)) for k, v in self.items if defaults.get(k) != repr(v)])

    @property
    def call(self) -> str:
        """The name with every parameter, as a string that a grid file reads back as this one spec."""
        return _call(self.name, [(k, _text((v,) if _is_nested(v) else v)) for k, v in self.items])

    @property
    def canonical(self) -> dict[str, Any]:
        """Name and all parameters as plain JSON values, for a cell's id."""
        return {"name": self.name, "parameters": {key: _plain(value) for key, value in self.items}}


ChainSpec = tuple[MethodSpec, ...]
"""The parts of a defense, in the order written."""


def chain_name(chain: ChainSpec) -> str:
    """The names of a chain's parts, without their parameters."""
    return " | ".join(part.name for part in chain)


def chain_label(chain: ChainSpec) -> str:
    """`norm_clipping(clip_norm=1.0) | gaussian_noise(std=0.01)`."""
    return " | ".join(spec.label for spec in chain)


def parse(value: object) -> list[Call]:
    """The parts of what a grid names: a name, a call, a chain of calls, a table with `name`, or specs."""
    if isinstance(value, MethodSpec):
        return [(value.name, value.parameters)]
    if isinstance(value, tuple):
        return [call for part in value for call in parse(part)]
    if isinstance(value, Mapping):
        return [_parse_table(value)]
    if not isinstance(value, str):
        raise ConfigurationError(f"a method is 'name', 'name(key=value)' or a table {{name = ..., ...}}, got {value!r}")
    if re.fullmatch(r"\s*[\w.@-]+\s*", value):
        return [(value.strip(), {})]
    try:
        # In brackets, so that a chain may go over several lines.
        tree = ast.parse(f"({value.strip()})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigurationError(f"cannot read {value!r}: {error}; write name(key=value) | ...") from None
    parts: list[ast.expr] = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        parts.insert(0, tree.right)
        tree = tree.left
    return [_parse_call(part, value) for part in [tree, *parts]]


def expand(call: Call, sequences: Collection[str] = ()) -> list[MethodSpec]:
    """The cartesian product of a call's lists, the axis written first slowest.

    For the parameters in `sequences`, whose type is itself a sequence, only a list of lists is an axis.
    """
    name, parameters = call
    axes: list[tuple[Value, ...]] = []
    for key, value in parameters.items():
        frozen = _freeze(f"{name}: {key}", value)
        is_axis = _is_nested(frozen) if key in sequences else isinstance(frozen, tuple)
        if is_axis and not frozen:
            raise ConfigurationError(f"{name}: {key} is an empty list; give at least one value")
        axes.append(frozen if is_axis else (frozen,))
    rows = itertools.product(*axes)
    return list(dict.fromkeys(MethodSpec.of(name, dict(zip(parameters, row, strict=True))) for row in rows))


def _parse_table(table: Mapping[Any, Any]) -> Call:
    name = table.get("name")
    if not isinstance(name, str):
        raise ConfigurationError(f"a method's table needs a name, got {dict(table)!r}; write {{name = ..., ...}}")
    return name, {str(key): value for key, value in table.items() if key != "name"}


def _parse_call(node: ast.expr, text: str) -> Call:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and isinstance(node.left, ast.Name):
        name, parameters = _parse_call(node.right, text)
        return f"{node.left.id}@{name}", parameters
    if isinstance(node, ast.Name):
        return node.id, {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ConfigurationError(f"cannot read {ast.unparse(node)!r} in {text!r}; write name(key=value) | ...")
    name = node.func.id
    if node.args:
        raise ConfigurationError(
            f"{name}: {ast.unparse(node.args[0])} in {text!r} has no name; write {name}(key=value)"
        )
    parameters: dict[str, Any] = {}
    for keyword in node.keywords:
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            raise ConfigurationError(
                f"{name}: {ast.unparse(keyword)} in {text!r} is not a plain value; "
                "allowed: numbers, 'strings', True, False, None and lists"
            ) from None
        if keyword.arg is None:
            raise ConfigurationError(f"{name}: ** is not allowed in {text!r}; write {name}(key=value)")
        if keyword.arg in parameters:
            raise ConfigurationError(f"{name}: {keyword.arg} is given twice in {text!r}")
        parameters[keyword.arg] = value
    return name, parameters


def _pairs(name: str, parameters: Mapping[str, Any]) -> tuple[tuple[str, Value], ...]:
    return tuple((key, _freeze(f"{name}: {key}", parameters[key])) for key in sorted(parameters))


def _freeze(where: str, value: object) -> Value:
    """The hashable form of a parameter's value; raises ConfigurationError for what no grid file can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{where} must be finite, got {value!r}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return tuple(_freeze(where, item) for item in value)
    raise ConfigurationError(f"{where} must be a number, a string, true, false or a list of these, got {value!r}")


def _is_nested(value: Value) -> bool:
    """True for a non-empty sequence of nothing but sequences."""
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, tuple) for item in value)


def _plain(value: Value) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _text(value: Value) -> str:
    return repr(_plain(value))


def _call(name: str, items: list[tuple[str, str]]) -> str:
    return f"{name}({', '.join(f'{key}={text}' for key, text in items)})" if items else name
