"""Methods of built-in files, single files and installed packages, listed without importing them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bench.child_process import Unfinished, child_records
from bench.errors import ConfigurationError
from bench.registry.signatures import (
    Parameter,
    check_defaults,
    doc_summary,
    parameters_in,
    parameters_of,
    subclasses_in,
)

BASES = {"attack": "Attack", "defense": "Defense"}
"""Kind -> the class that its methods derive from."""
HOMES = {"attack": "attacks.attack", "defense": "defenses.defense"}
"""Kind -> the module that has it."""
_VERIFY_SECONDS = 120
"""Seconds that the import of a package's method may take before it is called broken."""


@dataclass(frozen=True)
class MethodDescription:
    """A method as far as it is known without being used."""

    name: str
    """The name by which grids call it."""
    kind: str
    """Either "attack" or "defense"."""
    origin: str
    """The method's source: "built-in", "file PATH" or "package NAME VERSION (module:Class)"."""
    summary: str = ""
    """The first line of its docstring."""
    parameters: tuple[Parameter, ...] = ()
    """Its parameters with their types and defaults."""
    broken: str = ""
    """The reason for which it cannot be used, or empty."""
    proves: bool = False
    """True if it is built in and its own source states a proof, by `privacy`."""


@dataclass(frozen=True)
class ImportableMethod:
    """A method that can be imported."""

    description: MethodDescription
    """The method as far as it is known before."""
    load: Callable[[], type]
    """Imports and returns its class; raises ConfigurationError where it cannot."""


def built_in(kind: str) -> Iterator[ImportableMethod]:
    """The files within `attacks/` or `defenses/` that define exactly one public method; nothing is imported."""
    room = importlib.import_module(f"{kind}s")
    folder = Path(str(room.__file__)).parent
    for path in sorted(folder.rglob("*.py"), key=lambda path: path.stem):
        classes = subclasses_in(ast.parse(path.read_bytes()), BASES[kind])
        if len(classes) == 1:
            [node] = classes
            summary = doc_summary(ast.get_docstring(node))
            proves = any(isinstance(own, ast.FunctionDef) and own.name == "privacy" for own in node.body)
            description = MethodDescription(path.stem, kind, "built-in", summary, parameters_in(node), proves=proves)
            module = ".".join((room.__name__, *path.relative_to(folder).with_suffix("").parts))
            yield ImportableMethod(description, _importer(module, node.name))


def from_packages(kind: str) -> Iterator[ImportableMethod]:
    """Methods of installed packages (entry points of `leakboard.attacks` or `.defenses`); not imported."""
    for point in entry_points(group=f"leakboard.{kind}s"):
        package = f"package {point.dist.name} {point.dist.version} " if point.dist else "package "
        problem = "" if point.name.isidentifier() else "its name is no identifier: a-z, 0-9 and _ are allowed"
        description = MethodDescription(point.name, kind, f"{package}({point.value})", broken=problem)
        yield ImportableMethod(description, lambda point=point: _loaded(point, kind))


def describe(description: MethodDescription, cls: type) -> MethodDescription:
    """The description with the summary and the parameters of its imported class, or marked as broken."""
    try:
        parameters = parameters_of(cls)
        check_defaults(cls)
    except ConfigurationError as error:
        return replace(description, broken=str(error))
    return replace(description, summary=doc_summary(vars(cls).get("__doc__")), parameters=parameters)


def verified(description: MethodDescription) -> MethodDescription:
    """A package's description after a child process has imported it; marked as broken if it could not."""
    with TemporaryFile() as errors:
        words = [description.kind, description.name, description.origin]
        try:
            [told] = child_records(
                "bench.registry.sources:describe_in_child",
                words,
                _VERIFY_SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        except Unfinished as end:
            if end.code is None:
                return replace(description, broken=f"its import did not end in {_VERIFY_SECONDS} seconds")
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            return replace(description, broken=last[0] if last else f"its import ended with code {end.code}")
    parameters = tuple(Parameter(**parameter) for parameter in told["parameters"])
    return replace(description, summary=told["summary"], parameters=parameters, broken=told["broken"])


def describe_in_child(write: Callable[[dict[str, Any]], None], kind: str, name: str, origin: str) -> None:
    """The child's side of `verified`: the description as one record."""
    [found] = [f for f in from_packages(kind) if (f.description.name, f.description.origin) == (name, origin)]
    try:
        description = describe(found.description, found.load())
    except ConfigurationError as error:
        description = replace(found.description, broken=str(error))
    parameters = [vars(parameter) for parameter in description.parameters]
    write({"summary": description.summary, "parameters": parameters, "broken": description.broken})


def _importer(module: str, name: str) -> Callable[[], type]:
    def load() -> type:
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise ConfigurationError(f"{module} cannot be imported: {error}; install what it needs") from error

    return load


def _loaded(point: EntryPoint, kind: str) -> type:
    try:
        cls = point.load()
    except (Exception, SystemExit) as error:  # As for a plugin file.
        raise ConfigurationError(failure(error, None)) from error
    base = getattr(importlib.import_module(HOMES[kind]), BASES[kind])
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise ConfigurationError(f"{point.value} is no class derived from leakboard.{BASES[kind]}")
    return cls


@contextmanager
def named(method: str, passes: type[Exception] = ConfigurationError) -> Iterator[None]:
    """Turn whatever the method raises in this block into a ConfigurationError that names it; `passes` goes through."""
    try:
        yield
    except (ConfigurationError, passes):
        raise
    except (Exception, SystemExit) as error:  # As for a plugin file.
        raise ConfigurationError(f"{method}: {failure(error, None)}") from error


def failure(error: BaseException, path: Path | None) -> str:
    """Type, message, and the innermost line of the plugin that failed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is None or Path(frame.filename) == path]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError):
        where = f" ({error.filename}:{error.lineno})"
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}{where}"


def from_file(path: Path) -> list[ImportableMethod]:
    """The attacks and defenses of a plugin file, which is run as `leakboard_plugin_<stem>`.

    A file with one public method is called by the file's stem, several by their class in snake_case. One that
    fails to import is broken; one that holds no method raises ConfigurationError.
    """
    stem, origin = plugin_name(path), f"file {path}"
    name = f"leakboard_plugin_{stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"plugin {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Before it runs: dataclasses look their module up.
    try:
        with redirect_stdout(sys.stderr):  # What it prints must not end up in a table or in JSON.
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # A plugin may raise anything; it stops nobody but itself.
        del sys.modules[name]
        return _broken(path, stem, origin, failure(error, path))
    kinds = {kind: getattr(importlib.import_module(home), BASES[kind]) for kind, home in HOMES.items()}
    classes = [
        (kind, cls)
        for cls in dict.fromkeys(filter(inspect.isclass, vars(module).values()))
        for kind, base in kinds.items()
        if issubclass(cls, base) and cls.__module__ == name and not cls.__name__.startswith("_")
    ]
    if not classes:
        raise ConfigurationError(
            f"plugin {path} defines no attack or defense; derive one public class from leakboard.Attack or "
            "leakboard.Defense"
        )
    names = [stem] if len(classes) == 1 else [_snake_case(cls.__name__) for _, cls in classes]
    return [
        ImportableMethod(describe(MethodDescription(name, kind, origin), cls), lambda cls=cls: cls)
        for name, (kind, cls) in zip(names, classes, strict=True)
    ]


def plugin_name(path: Path) -> str:
    """A plugin file's stem as a name; raises ConfigurationError if there is no such file or it is no name."""
    if not path.is_file():
        raise ConfigurationError(f"plugin {path} does not exist or is not a file; give a Python file's path")
    stem = path.stem.replace("-", "_")
    if not stem.isidentifier():
        raise ConfigurationError(f"plugin {path}: {stem!r} is no name; rename the file to a-z, 0-9 and _")
    return stem


def _broken(path: Path, stem: str, origin: str, reason: str) -> list[ImportableMethod]:
    """The entries of a file that did not import, named as its source says, else by its stem in both kinds."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    classes = [(kind, node.name) for kind, base in BASES.items() for node in subclasses_in(tree, base)]
    named = [(kind, stem if len(classes) == 1 else _snake_case(name)) for kind, name in classes]

    def load() -> type:
        raise ConfigurationError(reason)

    return [
        ImportableMethod(MethodDescription(name, kind, origin, broken=reason), load)
        for kind, name in named or [(kind, stem) for kind in BASES]
    ]


def _snake_case(name: str) -> str:
    """SignCompression -> sign_compression, DPNoise -> dp_noise."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
