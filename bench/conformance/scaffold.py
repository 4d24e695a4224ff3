"""Writing the first version of a plugin: a file or a package, with a test that passes."""

from __future__ import annotations

import builtins
import keyword
import re
import sys
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path
from string import Template

from bench.errors import ConfigurationError
from bench.registry.registry import Registry

RESERVED = ("attacks", "bench", "defenses", "leaderboards", "leakboard")
"""Packages of Leakboard, whose names a file beside them must not take."""
TOOLS = {"conftest": "pytest", "setup": "an installer"}
"""Names of files that mean something to a tool -> the tool."""
PUBLIC = frozenset(
    [
        "Adam",
        "Attack",
        "Batch",
        "ConfigurationError",
        "Defense",
        "Descended",
        "Distance",
        "Generator",
        "Guarantee",
        "LBFGS",
        "Lanes",
        "MatchingProblem",
        "Observation",
        "Params",
        "Reconstruction",
        "Run",
        "Schedule",
        "Surrogate",
        "Task",
        "Tensor",
        "ThreatModel",
        "UnsupportedPair",
        "Update",
    ]
)
"""Classes that a plugin imports from leakboard; a test holds them to `leakboard.__all__`."""
TAKEN = PUBLIC | {"ClassVar", "Path"} | set(dir(builtins))
"""Names that the class of a method must not hide in what the templates write."""
OWN = {"defense": ("$class_name", "kept=0.3"), "attack": ("$class_name, layerwise_distance", "iterations=300")}
"""Kind -> what its test imports of it, and a parameter to show."""
_FILE_TEST = """from pathlib import Path

import pytest
import torch
from leakboard import conformance

from $name import $own

FILE = Path(__file__).with_name("$name.py")
"""
_PACKAGE_TEST = """import pytest
import torch
from leakboard import conformance

from $name import $own
"""


def scaffold(kind: str, name: str, folder: Path, *, package: bool = False) -> list[Path]:
    """Write a working plugin of this kind into a folder, and return its files, the plugin first.

    `kind` is "attack" or "defense". A file comes with its test beside it, a package with pyproject.toml, README.md and
    tests/, in a new folder `leakboard-NAME`. Raises ConfigurationError for a name that cannot be one, and where a file
    would be overwritten: then nothing is written.
    """
    check_name(name)
    own, example = OWN[kind]
    distribution = f"leakboard-{name.replace('_', '-')}"
    words = {
        "kind": kind,
        "name": name,
        "class_name": class_name(name),
        "distribution": distribution,
        "example": example,
        "plugins": "" if package else ", plugins=[FILE]",
    }
    words["own"] = Template(own).substitute(words)
    words["imports"] = Template(_PACKAGE_TEST if package else _FILE_TEST).substitute(words)
    home = folder / distribution if package else folder
    wanted = {home / f"{name}.py": kind}
    if package:
        wanted |= {home / "pyproject.toml": "package_pyproject", home / "README.md": "package_readme"}
    wanted[(home / "tests" if package else home) / f"test_{name}.py"] = f"{kind}_test"
    texts = {path: _filled(template, words) for path, template in wanted.items()}
    for path in texts:
        if path.exists():
            raise ConfigurationError(
                f"{path} exists and is not overwritten; choose another name, or another folder (-o)"
            )
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write into {home}: {error.strerror or error}; choose another folder (-o)"
        ) from error
    return [*texts]


def check_name(name: str) -> None:
    """Raise ConfigurationError, with a suggestion, unless a method and its file can have this name."""
    near = suggested(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigurationError(f"{name!r} is no name: a-z, 0-9 and _ are allowed, a letter first; try {near!r}")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in sys.stdlib_module_names:
        raise ConfigurationError(f"{name!r} is a word of Python, or a module of its library; try {near!r}")
    if name in RESERVED or name.startswith("test_"):
        why = "a package of Leakboard" if name in RESERVED else "for pytest a file of tests"
        raise ConfigurationError(f"{name!r} is {why}; try {near!r}")
    if name in TOOLS:
        raise ConfigurationError(f"{name!r} is a file that {TOOLS[name]} runs; try {near!r}")
    if class_name(name) in TAKEN:
        raise ConfigurationError(
            f"the class {class_name(name)} of {name!r} would hide another of that name; try {near!r}"
        )
    registry = Registry()
    for kind in ("attack", "defense"):
        for entry in registry.descriptions(kind):
            if entry.name == name:
                raise ConfigurationError(f"{name!r} is taken: there is {kind} {name} ({entry.origin}); try {near!r}")
    if name in packages_distributions():
        raise ConfigurationError(f"{name!r} is an installed module, which the file would hide; try {near!r}")


def class_name(name: str) -> str:
    """The class of a method: my_method has MyMethod."""
    return "".join(part.capitalize() for part in name.split("_"))


def suggested(name: str) -> str:
    """A name near this one that `check_name` lets through, unless another plugin has it."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    plain = re.sub(r"\W+|_+", "_", snake.encode("ascii", "ignore").decode()).strip("_").removeprefix("test_")
    usable = re.fullmatch(r"[a-z][a-z0-9_]*", plain) and plain != name
    return plain if usable else f"my_{plain}".rstrip("_") if plain else "my_method"


def _filled(template: str, words: dict[str, str]) -> str:
    text = (files("bench.conformance") / "templates" / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(words)
