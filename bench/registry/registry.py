"""Every attack and defense by name, and what a grid says about them made exact."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import ConfigurationError, suggest
from bench.registry.presets import attack_presets, unfolded
from bench.registry.signatures import Parameter, annotations_of, is_sequence, parameters_of, untyped, validated
from bench.registry.sources import (
    BASES,
    ImportableMethod,
    MethodDescription,
    built_in,
    from_file,
    from_packages,
    plugin_name,
    verified,
)
from bench.registry.specs import ChainSpec, MethodSpec, expand, parse


class UnknownName(ConfigurationError):
    """A name that no built-in, package or plugin file has."""


class Registry:
    """The methods at hand: built-ins, installed packages, and the plugin files given.

    Making one runs nothing; plugin files are run when the first method is asked for. Raises
    ConfigurationError for a plugin file that does not exist.
    """

    def __init__(self, plugins: Sequence[Path | str] = ()) -> None:
        self.plugins = tuple(dict.fromkeys(Path(plugin).resolve() for plugin in plugins))
        by_stem: dict[str, Path] = {}
        for path in self.plugins:
            other = by_stem.setdefault(plugin_name(path), path)
            if other != path:
                raise ConfigurationError(f"two plugin files have the same name: {other} and {path}; rename one")
        self._files: list[ImportableMethod] | None = None
        self._found: dict[str, dict[str, ImportableMethod]] = {}

    def descriptions(self, kind: str, *, verify: bool = False) -> list[MethodDescription]:
        """All methods of kind "attack" or "defense" by name.

        Built-ins are read from their source, packages from their metadata; `verify` imports those of packages
        in child processes, to fill in their parameters and find broken ones.
        """
        found = [self._methods(kind)[name].description for name in sorted(self._methods(kind))]
        if not verify:
            return found
        return [verified(e) if e.origin.startswith("package") and not e.broken else e for e in found]

    def foreign(self, kind: str, names: Iterable[str]) -> list[str]:
        """Those of the names that are no built-in's, sorted."""
        own = {method.name for method in self.descriptions(kind) if method.origin == "built-in"}
        return sorted(set(names) - own)

    def cls(self, kind: str, name: str) -> type:
        """The class of a method, imported; raises `UnknownName`, or ConfigurationError for a broken one."""
        methods = self._methods(kind)
        if name not in methods:
            known = [*methods, *(attack_presets() if kind == "attack" else ())]
            raise UnknownName(f"unknown {kind} {name!r}; {suggest(name, known)}")
        described = methods[name].description
        try:
            if described.broken:
                raise ConfigurationError(described.broken)
            return methods[name].load()
        except ConfigurationError as error:
            raise ConfigurationError(f"{kind} {name} from {described.origin} is broken: {error}") from error

    def sources(self, kind: str, name: str) -> Path:
        """The file that defines a method."""
        return Path(inspect.getfile(self.cls(kind, name)))

    def resolve(self, kind: str, spec: MethodSpec) -> MethodSpec:
        """The spec with every parameter, defaults included, each valid in name, type and range.

        A parameter that was added after boards were published (`Parameter.since`) is left out at its default, so that
        published ids, labels and calls stay what they are.
        """
        return self._checked(kind, spec)[0]

    def build(self, kind: str, spec: MethodSpec) -> Any:
        """The attack or defense itself; raises ConfigurationError for a wrong name, type or range."""
        return self._checked(kind, spec)[1]

    def expand(self, kind: str, values: Sequence[object]) -> list[ChainSpec]:
        """All chains that a grid's list names, resolved, in order, without duplicates; attacks have one part.

        A message about a value begins with its position: `[0]: `.
        """
        chains: list[ChainSpec] = []
        for index, value in enumerate(values):
            try:
                chains += self._expand_one(kind, value)
            except ConfigurationError as error:
                raise type(error)(f"[{index}]: {error}") from error
        return list(dict.fromkeys(chains))

    def _expand_one(self, kind: str, value: object) -> Iterator[ChainSpec]:
        parts: list[list[MethodSpec]] = []
        for call in parse(value):
            name, parameters = unfolded(call) if kind == "attack" else call
            specs = expand((name, parameters), self._sequences(kind, name))
            parts.append([self.resolve(kind, spec) for spec in specs])
        if kind == "attack" and len(parts) > 1:
            raise ConfigurationError(f"attacks cannot be chained, got {value!r}; list them one by one")
        for chain in itertools.product(*parts):
            if len(chain) > 1:
                self._check_chain(chain)
            yield chain

    def _check_chain(self, chain: ChainSpec) -> None:
        from defenses.chain import Chain

        try:
            Chain(tuple(self.build("defense", spec) for spec in chain))
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(f"{' | '.join(spec.name for spec in chain)}: {error}") from error

    def _sequences(self, kind: str, name: str) -> set[str]:
        hints = _described(kind, name, self.cls(kind, name))
        return {parameter for parameter, hint in hints.items() if is_sequence(hint)}

    def _checked(self, kind: str, spec: MethodSpec) -> tuple[MethodSpec, Any]:
        cls = self.cls(kind, spec.name)
        hints = _described(kind, spec.name, cls)
        known = {parameter.name: parameter for parameter in parameters_of(cls)}
        for key in spec.parameters:
            if key not in known:
                raise ConfigurationError(
                    f"{kind} {spec.name}: unknown parameter {key!r}; {untyped(cls, key) or suggest(key, known)}"
                )
        defaults: dict[str, Any] = {}
        values: dict[str, Any] = {}
        for key, parameter in known.items():
            if not parameter.required:
                # Validated too: the default 1 of a float is the 1.0 that a user writes.
                defaults[key] = _valid(f"{kind} {spec.name}: the default of {key}", hints, parameter)
            elif key not in spec.parameters:
                raise ConfigurationError(
                    f"{kind} {spec.name}: {key} is required ({parameter.type}); write {spec.name}({key}=...)"
                )
            if key in spec.parameters:
                given = replace(parameter, default=spec.parameters[key])
                values[key] = _valid(f"{kind} {spec.name}: {key}", hints, given)
        try:
            method = cls(**values)
        except ValueError as error:
            raise ConfigurationError(f"{kind} {spec.name}: {error}") from error
        except Exception as error:  # A plugin's own checks may raise anything.
            raise ConfigurationError(f"{kind} {spec.name}: {type(error).__name__}: {error}") from error
        told = {**defaults, **values}
        later = {key for key, parameter in known.items() if parameter.since and repr(told[key]) == repr(defaults[key])}
        told, defaults = ({k: v for k, v in part.items() if k not in later} for part in (told, defaults))
        return MethodSpec.of(spec.name, told, defaults), method

    def _methods(self, kind: str) -> dict[str, ImportableMethod]:
        if kind not in BASES:
            raise ValueError(f"kind must be one of {', '.join(BASES)}, got {kind!r}")
        if kind not in self._found:
            if self._files is None:
                self._files = [found for path in self.plugins for found in from_file(path)]
            own = [found for found in self._files if found.description.kind == kind]
            methods: dict[str, ImportableMethod] = {}
            for found in [*built_in(kind), *from_packages(kind), *own]:
                name = found.description.name
                if name in methods:
                    both = f"{methods[name].description.origin} and {found.description.origin}"
                    raise ConfigurationError(f"{kind} {name} is defined twice: {both}; rename one")
                methods[name] = found
            self._found[kind] = methods
        return self._found[kind]


def _described(kind: str, name: str, cls: type) -> dict[str, Any]:
    try:
        return annotations_of(cls)
    except ConfigurationError as error:
        raise ConfigurationError(f"{kind} {name}: {error}") from error


def _valid(where: str, hints: dict[str, Any], parameter: Parameter) -> Any:
    try:
        return validated(hints[parameter.name], parameter.type, parameter.default)
    except ValueError as error:
        raise ConfigurationError(f"{where} {error}") from error
