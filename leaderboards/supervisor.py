"""Keeps a run alive: the work is done in a child process, which is started again when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

WORKER = "LEAKBOARD_WORKER"
"""Set in the child's environment to the folder of the run."""


def is_worker() -> bool:
    """Whether this process is the child."""
    return WORKER in os.environ


def supervise(arguments: Sequence[str], folder: Path) -> int:
    """Run this command line in a child until it ends by itself; returns its exit code.

    A child that a signal kills (the kernel's, when memory runs out) is blamed on the block that it had in flight and
    started again; the engine gives a block up after its second death. Ctrl-C and termination are the child's to
    handle and end the run. When this process is killed itself, the child goes with it.
    """
    from bench.store import Store

    environment = {**os.environ, WORKER: str(folder)}
    command = [sys.executable, "-m", "leaderboards.cli", *arguments]
    while True:
        child = subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent(os.getpid()))
        previous = {
            signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
            signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_, child=child: child.terminate()),
        }
        code = child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
        if code >= 0:
            return code
        if -code in (signal.SIGINT, signal.SIGTERM):
            return 128 - code
        block = Store(folder).count_death(child.pid)
        if block is None:
            print(f"leakboard: the worker was killed by signal {-code} before it started a block", file=sys.stderr)
            return 1
        print(f"leakboard: the worker was killed by signal {-code} in block {block}; going on", file=sys.stderr)


def _die_with_parent(parent: int):
    """On Linux, have the kernel kill the child when the parent dies; elsewhere it finishes its run."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_pdeathsig = 1

    def prepare() -> None:
        libc.prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call
            os._exit(1)

    return prepare
