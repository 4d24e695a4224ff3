"""The conformance suite in a child process: a plugin may crash, leave, print or hang, and only harms itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.child_process import Unfinished, child_records
from bench.conformance.findings import Finding
from bench.errors import ConfigurationError
from bench.registry.registry import Registry
from bench.registry.specs import parse

SECONDS = 600
"""After which a child that is still busy is given up."""


def checked(target: str, plugins: Sequence[Path] = (), seconds: float = SECONDS) -> Iterator[str | Finding]:
    """For every method of the target its title, then one finding per rule as they come.

    `target` is a method's name, a call with parameters, or a Python file with one or several methods. Raises
    ConfigurationError for a mistake in it. What the methods print goes to standard error.
    """
    waiting = ["constructs"]
    try:
        for record in child_records("bench.conformance.child:answer", [target, *map(str, plugins)], seconds):
            if "mistake" in record:
                raise ConfigurationError(record["mistake"])
            if "title" in record:
                waiting = record["rules"]
                yield record["title"]
            else:
                waiting.remove(record["rule"])
                yield Finding(**record)
    except Unfinished as end:
        yield Finding(waiting[0], "failed", f"{_how(end.code, seconds)} while this was asked; run it by itself to see")


def _how(code: int | None, seconds: float) -> str:
    if code is None:
        return f"it did not come to an end in {seconds:g} seconds"
    return (
        f"the process was killed by {signal.Signals(-code).name}" if code < 0 else f"the process left with code {code}"
    )


def answer(write: Callable[[dict[str, Any]], None], target: str, *plugins: str) -> None:
    """The child's side of `checked`: titles, findings and mistakes as records."""
    try:
        registry, asked = methods_of(target, plugins)
        from bench.conformance.suite import RULES, hold, title_of

        for kind, call in asked:
            rules = ["constructs", *(rule.name for rule in RULES[kind])]
            write({"title": title_of(kind, call, registry), "rules": rules})
            hold(kind, call, registry, lambda finding: write(asdict(finding)))
    except ConfigurationError as error:
        write({"mistake": str(error)})


def methods_of(target: str, plugins: Sequence[str]) -> tuple[Registry, list[tuple[str, str]]]:
    """The registry, and (kind, call) of every method of the target; a call finds its file in the current folder."""
    from bench.conformance.suite import RULES, kinds_of

    if target.endswith(".py") or Path(target).is_file():
        path = Path(target).resolve()
        registry = Registry([*plugins, path])
        entries = [entry for kind in RULES for entry in registry.descriptions(kind) if entry.origin == f"file {path}"]
        # A file that cannot be read at all stands for a method of either kind: once is enough.
        return registry, [
            (e.kind, e.name) for i, e in enumerate(entries) if e.name not in [o.name for o in entries[:i]]
        ]
    [(name, _), *_] = parse(target)
    beside = Path(f"{name}.py")
    if beside.is_file() and not any(Path(plugin).stem == name for plugin in plugins):
        plugins = [*plugins, str(beside)]
    registry = Registry(plugins)
    return registry, [(kind, target) for kind in kinds_of(target, registry)]
