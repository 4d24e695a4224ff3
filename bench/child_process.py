"""Child processes of Python: they import what their parent imports, may die or hang alone, and end with it."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

_LOOK = 0.05
"""Seconds between two looks, at what a child has written and at whether its parent lives: too short to be felt."""


class Unfinished(Exception):
    """A child that ended before its function did (`code`, negative for a signal), or was given up (None)."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


def start_python(
    function: str,
    arguments: Sequence[str],
    *,
    own_group: bool,
    environment: Mapping[str, str] | None = None,
    stdout: int | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a Python process that calls a function, "module:name", and is killed when this process is gone.

    The function finds the arguments in `sys.argv`, and the files of `pass_fds` open under the same numbers. With a
    process group of its own the child hears no key pressed in the terminal, and what it starts ends with it.
    """
    # -P: a folder of the user's that is called "bench" must not be imported instead of ours.
    command = [sys.executable, "-P", "-m", "bench.child_process", str(os.getpid()), function, *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL if own_group else None,
        stdout=stdout,
        stderr=stderr,
        start_new_session=own_group,
        pass_fds=pass_fds,
    )


def child_records(
    function: str,
    arguments: Sequence[str],
    seconds: float,
    *,
    stdout: int = 2,
    stderr: int | IO[bytes] | None = None,
) -> Iterator[dict[str, Any]]:
    """The dicts that a function, "module:name", writes in a child process, as they come.

    The function is called with what writes a dict, then with the arguments.

    All that the child started ends with it. What it prints goes to standard error unless `stdout` says otherwise.
    Raises `Unfinished` when it dies, or is still busy after so many seconds.
    """
    with TemporaryDirectory() as folder:
        written = Path(folder) / "records"
        written.touch()
        passed = [str(written), function, *arguments]
        child = start_python("bench.child_process:write_records", passed, own_group=True, stdout=stdout, stderr=stderr)
        try:
            yield from _read(child, written, seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _read(child: subprocess.Popen[bytes], written: Path, seconds: float) -> Iterator[dict[str, Any]]:
    end = time.monotonic() + seconds
    with written.open(encoding="utf-8") as lines:
        while True:
            over = child.poll() is not None or time.monotonic() > end  # Before reading, so that nothing is missed.
            for line in lines:
                record = json.loads(line)
                if record is None:  # A thread of a plugin's may keep the child busy after its function has ended.
                    return
                yield record
            if over:
                raise Unfinished(child.poll())
            time.sleep(_LOOK)


def write_records() -> None:
    """The child's side of `child_records`: a line of JSON for each dict, and null at the end."""
    written, function, *arguments = sys.argv[1:]
    with Path(written).open("a", encoding="utf-8", buffering=1) as file:

        def write(record: dict[str, Any]) -> None:
            file.write(json.dumps(record, default=repr) + "\n")

        _function(function)(write, *arguments)
        file.write("null\n")


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _end_with(parent: int) -> None:
    """Kill this process, and the group that it leads, once the parent is gone.

    A thread that looks, because the kernel's own way (Linux alone has one) ends one process and no group.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _end_with(int(sys.argv[1]))
    call = _function(sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    call()
