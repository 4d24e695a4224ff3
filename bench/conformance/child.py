"""The conformance suite in a child process: a plugin may crash, leave, print or hang, and only harms itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.conformance.findings import Finding
from bench.errors import ConfigurationError
from bench.registry.registry import Registry
from bench.registry.specs import parse

SECONDS = 600
"""After which a child that is still busy is given up."""
_LOOK = 0.05
"""Seconds between two looks at what the child has found."""


def checked(target: str, plugins: Sequence[Path] = (), seconds: float = SECONDS) -> Iterator[str | Finding]:
    """For every method of the target its title, then one finding per rule as they come.

    `target` is a method's name, a call with parameters, or a Python file with one or several methods. Raises
    ConfigurationError for a mistake in it. What the methods print goes to standard error.
    """
    path = os.pathsep.join(filter(None, sys.path))
    code = "import sys; from bench.conformance import child; child.end_with_parent(); child.answer(*sys.argv[1:])"
    with TemporaryDirectory() as folder:
        told = Path(folder) / "findings"
        told.touch()
        # -P: a folder of the user's that is called "bench" must not be imported instead of ours.
        command = [sys.executable, "-P", "-c", code, str(told), target, *map(str, plugins)]
        child = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=2,
            start_new_session=True,  # A process group of its own: what a plugin starts ends with it.
        )
        try:
            yield from _followed(child, told, seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _followed(child: subprocess.Popen[bytes], told: Path, seconds: float) -> Iterator[str | Finding]:
    end, ended, waiting = time.monotonic() + seconds, False, ["constructs"]
    with told.open(encoding="utf-8") as lines:
        while True:
            over = child.poll() is not None or time.monotonic() > end  # Before reading, so that nothing is missed.
            for line in lines:
                record: dict[str, Any] = json.loads(line)
                if "mistake" in record:
                    raise ConfigurationError(record["mistake"])
                if "title" in record:
                    waiting = record["rules"]
                    yield record["title"]
                elif "rule" in record:
                    waiting.remove(record["rule"])
                    yield Finding(**record)
                ended |= "end" in record
            if ended or over:  # A thread of a plugin's may keep the child busy after all is told.
                break
            time.sleep(_LOOK)
    if not ended:
        yield Finding(
            waiting[0], "failed", f"{_how(child.poll(), seconds)} while this was asked; run it by itself to see"
        )


def _how(code: int | None, seconds: float) -> str:
    if code is None:
        return f"it did not come to an end in {seconds:g} seconds"
    return (
        f"the process was killed by {signal.Signals(-code).name}" if code < 0 else f"the process left with code {code}"
    )


def end_with_parent() -> None:
    """Kill this process group once the parent is gone: a key pressed in its terminal does not reach a session."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def answer(told: str, target: str, *plugins: str) -> None:
    """The child's side of `checked`: write titles, findings and mistakes as lines of JSON."""
    with Path(told).open("a", encoding="utf-8", buffering=1) as file:

        def tell(**record: Any) -> None:
            file.write(json.dumps(record) + "\n")

        try:
            registry, asked = methods_of(target, plugins)
            from bench.conformance.suite import RULES, held, title_of

            for kind, call in asked:
                rules = ["constructs", *(rule.name for rule in RULES[kind])]
                tell(title=title_of(kind, call, registry), rules=rules)
                for finding in held(kind, call, registry):
                    tell(**asdict(finding))
        except ConfigurationError as error:
            tell(mistake=str(error))
        tell(end=True)


def methods_of(target: str, plugins: Sequence[str]) -> tuple[Registry, list[tuple[str, str]]]:
    """The registry, and (kind, call) of every method of the target; a call finds its file in the current folder."""
    from bench.conformance.suite import RULES, kinds_of

    if target.endswith(".py") or Path(target).is_file():
        path = Path(target).resolve()
        registry = Registry([*plugins, path])
        entries = [entry for kind in RULES for entry in registry.entries(kind) if entry.origin == f"file {path}"]
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
