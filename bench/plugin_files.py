"""Methods of single files, as in `--plugin my_defense.py`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from bench.errors import ConfigurationError
from bench.plugins import BASES, HOMES, Entry, Found, describe, failure
from bench.signatures import subclasses_in


def from_file(path: Path) -> list[Found]:
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
        Found(describe(Entry(name, kind, origin), cls), lambda cls=cls: cls)
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


def _broken(path: Path, stem: str, origin: str, reason: str) -> list[Found]:
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
        Found(Entry(name, kind, origin, broken=reason), load)
        for kind, name in named or [(kind, stem) for kind in BASES]
    ]


def _snake_case(name: str) -> str:
    """SignCompression -> sign_compression, DPNoise -> dp_noise."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
