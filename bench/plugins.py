"""Methods of built-in files and of installed packages, listed without importing them."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bench.errors import ConfigurationError
from bench.signatures import Parameter, check_defaults, parameters_in, parameters_of, subclasses_in, summary_of

BASES = {"attack": "Attack", "defense": "Defense"}
"""Kind -> the class that its methods derive from."""
HOMES = {"attack": "attacks.attack", "defense": "defenses.client"}
"""Kind -> the module that has it."""
_VERIFY_SECONDS = 120


@dataclass(frozen=True)
class Entry:
    """What is known of a method without using it; `broken` is the reason why it cannot be used, or empty.

    `origin` says where it comes from: "built-in", "file PATH" or "package NAME VERSION (module:Class)".
    """

    name: str
    kind: str
    origin: str
    summary: str = ""
    parameters: tuple[Parameter, ...] = ()
    broken: str = ""


@dataclass(frozen=True)
class Found:
    """An entry, and how to import its class."""

    entry: Entry
    load: Callable[[], type]


def built_in(kind: str) -> Iterator[Found]:
    """The files of `attacks/` or `defenses/` that define exactly one public method; nothing is imported."""
    room = importlib.import_module(f"{kind}s")
    for path in sorted(Path(str(room.__file__)).parent.glob("*.py")):
        classes = subclasses_in(ast.parse(path.read_bytes()), BASES[kind])
        if len(classes) == 1:
            [node] = classes
            summary = summary_of(ast.get_docstring(node))
            entry = Entry(path.stem, kind, "built-in", summary, parameters_in(node))
            yield Found(entry, _importer(f"{kind}s.{path.stem}", node.name))


def from_packages(kind: str) -> Iterator[Found]:
    """Methods of installed packages (entry points of `leakboard.attacks` or `.defenses`); not imported."""
    for point in entry_points(group=f"leakboard.{kind}s"):
        package = f"package {point.dist.name} {point.dist.version} " if point.dist else "package "
        problem = "" if point.name.isidentifier() else "its name is no identifier: a-z, 0-9 and _ are allowed"
        entry = Entry(point.name, kind, f"{package}({point.value})", broken=problem)
        yield Found(entry, lambda point=point: _loaded(point, kind))


def describe(entry: Entry, cls: type) -> Entry:
    """The entry with the summary and the parameters of its imported class, or marked as broken."""
    try:
        parameters = parameters_of(cls)
        check_defaults(cls)
    except ConfigurationError as error:
        return replace(entry, broken=str(error))
    return replace(entry, summary=summary_of(vars(cls).get("__doc__")), parameters=parameters)


def verified(entry: Entry) -> Entry:
    """A package's entry after a child process has imported it; marked as broken if it could not."""
    code = "import sys; from bench.plugins import report; report(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # -P: a folder of the user's that is called "bench" must not be imported instead of ours.
    command = [sys.executable, "-P", "-c", code, entry.kind, entry.name, entry.origin]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_VERIFY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return replace(entry, broken=f"its import did not end in {_VERIFY_SECONDS} seconds")
    lines = child.stdout.splitlines()
    if child.returncode or not lines:
        last = child.stderr.strip().splitlines()[-1:] or [f"its import ended with code {child.returncode}"]
        return replace(entry, broken=last[0])
    told: dict[str, Any] = json.loads(lines[-1])
    parameters = tuple(Parameter(**parameter) for parameter in told["parameters"])
    return replace(entry, summary=told["summary"], parameters=parameters, broken=told["broken"])


def report(kind: str, name: str, origin: str) -> None:
    """The child's side of `verified`: print the entry as a line of JSON."""
    [found] = [f for f in from_packages(kind) if (f.entry.name, f.entry.origin) == (name, origin)]
    try:
        entry = describe(found.entry, found.load())
    except ConfigurationError as error:
        entry = replace(found.entry, broken=str(error))
    parameters = [vars(parameter) for parameter in entry.parameters]
    print("\n" + json.dumps({"summary": entry.summary, "parameters": parameters, "broken": entry.broken}, default=repr))


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
