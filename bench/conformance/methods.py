"""Rules for every method: it says what it is, has parameters that a grid file can name, and runs as a cell."""

from __future__ import annotations

import inspect
import re
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bench.conformance.cases import SETTINGS, Subject
from bench.conformance.findings import Broken, NotApplicable
from bench.errors import ConfigurationError
from bench.registry.signatures import doc_summary, parameters_of, untyped
from defenses.defense import Defense
from defenses.schedule import Schedule

_SOURCE = re.compile(r"\b(19|20)\d\d\b|heuristic|control")
_COMPANION = "inverting_gradients(iterations=1)"
"""The attack of a defense's grid; beside an attack, because a grid of nothing but controls is refused."""
_GRID = """
name = "conformance"
[grid]
dataset = "{dataset}"
models = [{model}]
images = {images}
attacks = {attacks}
defenses = {defenses}
controls = false
threat = {{ labels = "known", defense_known = [false, true], public = {held} }}
[engine]
device = "cpu"
execution = "eager"
threads = {threads}
"""


def is_documented(subject: Subject) -> None:
    """The class has a docstring of its own that says what it does and names a source, or that it has none."""
    text = vars(type(subject.method)).get("__doc__") or ""
    if not doc_summary(text) or text.startswith(f"{type(subject.method).__name__}("):
        raise Broken("the class has no docstring; say in one sentence what it does, and where it comes from")
    if not _SOURCE.search(text):
        raise Broken("the docstring names no source: add author and year, or the word heuristic, or control")


def has_typed_parameters(subject: Subject) -> None:
    """Everything that a user may set is an annotated field; capitals and names of the base class are no parameters."""
    cls = type(subject.method)
    known = {parameter.name for parameter in parameters_of(cls)} | set(inspect.get_annotations(cls))
    for name in [name for name in vars(cls) if not name.startswith("_") and not name.isupper() and name not in known]:
        if how := untyped(cls, name):
            raise Broken(f"{name} is no parameter: {how}, or spell a constant in capitals")


def runs_as_a_cell(subject: Subject) -> None:
    """A grid of it over a few images ends with the status ok, where the attack adapts to the defense and where not."""
    from bench.engines.run import run
    from bench.grid.config import from_toml

    reason = ""
    for dataset, model in SETTINGS.values():
        grid = {"dataset": dataset, "model": model, "threads": torch.get_num_threads(), **_methods(subject)}
        grid["held"] = "true" if subject.kind == "attack" and subject.method.needs_public else "false"
        with TemporaryDirectory() as folder:
            try:
                config = from_toml(_GRID.format(**grid), subject.registry, "the grid of the rule run")
                frame = run(config, subject.registry, output=folder, device="cpu").frame()
            except ConfigurationError as error:
                raise Broken(str(error)) from error
        own: Any = frame[frame["attack_name"] == subject.name] if subject.kind == "attack" else frame
        wrong = [row for row in own.to_dict(orient="records") if row["status"] != "ok"]
        if not wrong:
            return
        row = wrong[0]
        reason = f"{row['attack']} / {row['defense']} on {dataset}: {row['status']}: {row['reason']}"
        if row["status"] != "skipped":
            raise Broken(reason)
    raise NotApplicable(reason)


def _methods(subject: Subject) -> dict[str, object]:
    """The attacks, the defenses and the number of images of a grid that runs in a second."""
    if subject.kind == "attack":
        attacks = list(dict.fromkeys([subject.call, _COMPANION]))
        return {"attacks": attacks, "defenses": ["none", "gradient_pruning(ratio=0.5)"], "images": 2}
    defense: Defense = subject.method
    images = 2 * (defense.schedule(Schedule()).images if _changes_the_schedule(defense) else 1)
    return {"attacks": [_COMPANION], "defenses": [subject.call], "images": images}


def _changes_the_schedule(defense: Defense) -> bool:
    return type(defense).schedule is not Defense.schedule
