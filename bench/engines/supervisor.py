"""Keeps a run alive: the work is done in a child process, which is started again when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import child_process

WORKER = "LEAKBOARD_WORKER"
"""Set in the child's environment: the block in which the child before it died, or nothing."""
STOPPED = "leakboard: stopped; the same command goes on where this one ended"
_STOPPING = (signal.SIGINT, signal.SIGTERM)


def is_worker() -> bool:
    """True if this process is the child."""
    return WORKER in os.environ


def become_worker() -> str | None:
    """Be ready to be stopped, in the child; returns the block in which the child before it died.

    Ctrl-C leaves at once: all that is finished is on disk, and an exception in the middle of an import has made
    libraries fail in ways that would be stored as a block's error.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        newline = "\n" if os.isatty(2) else ""
        os.write(2, f"{newline}{STOPPED}\n".encode())
        os._exit(128 + number)

    signal.signal(signal.SIGINT, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    return os.environ[WORKER] or None


def supervise(arguments: Sequence[str], folder: Path) -> int:
    """Run this command line in a child until it ends by itself; returns its exit code.

    A child that dies in a block (the kernel kills it when memory runs out) is started again; the engine gives a
    block up after its second death. Ctrl-C and termination, of both or of this process alone, end the run; a
    second Ctrl-C does not wait for the child. When this process is killed, the child goes with it.
    """
    from bench.store.store import Store

    died_in = ""
    child: subprocess.Popen[bytes] | None = None
    signals: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if child is not None:
            child.send_signal(signal.SIGKILL if signals.count(signal.SIGINT) > 1 else number)

    previous = {number: signal.signal(number, pass_on) for number in _STOPPING}
    try:
        while True:
            # The child starts with these signals held back, until it can handle them: nothing is lost, and an
            # interpreter that is still starting prints no traceback.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
            child = child_process.start_python(
                "leakboard:main", arguments, own_group=False, environment={WORKER: died_in}
            )
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
            code = child.wait()
            if code == 128 + signal.SIGINT or (signals and code >= 0):
                return code
            if signals or -code in _STOPPING:
                print(STOPPED, file=sys.stderr)
                return 128 + (signals[0] if signals else -code)
            how = f"was killed by signal {-code}" if code < 0 else f"left with code {code}"
            block = Store(folder).marks.blame(child.pid)
            if block is None and code >= 0:
                return code
            if block is None:
                print(f"leakboard: the worker {how} outside of a block; memory may be short", file=sys.stderr)
                return 1
            print(f"leakboard: the worker {how} in block {block}; going on", file=sys.stderr)
            died_in = block
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
