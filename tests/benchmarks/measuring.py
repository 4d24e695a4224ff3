"""What a benchmark reads off the machine: seconds, FLOP/s, bytes, and the machine's name."""

import ctypes
import os
import platform
import re
import subprocess
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


def synchronise(device):
    """Wait until everything that was asked of the device is done; on the CPU it always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call, device):
    """Wall-clock seconds of one call, and what it returned."""
    synchronise(device)
    started = time.perf_counter()
    result = call()
    synchronise(device)
    return time.perf_counter() - started, result


@cache
def matrix_multiply_peak(device, precision):
    """FLOP/s of the best of ten large square matrix products in this precision: the machine's measured peak."""
    size = 8192 if device.type == "cuda" else 2048
    square = torch.ones(size, size, device=device, dtype=DTYPES[precision])
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        seconds(lambda: square @ square, device)
        best = min(seconds(lambda: square @ square, device)[0] for _ in range(10))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * size**3 / best


def flops(call):
    """FLOPs of the convolutions and matrix products of a call, not of elementwise work; and what it returned."""
    with FlopCounterMode(display=False) as counter:
        result = call()
    return counter.get_total_flops(), result


class Memory:
    """MiB that a call holds at its peak, and how that was found; None and the reason where it cannot be.

    On a GPU the most that torch had allocated; on the CPU the peak resident set beyond what was resident before.
    """

    def __init__(self, device):
        self.device, self.mib, self.how = device, None, "the call made no second report"
        if device.type == "cpu":
            with suppress(AttributeError, OSError):
                # What earlier calls freed must go back first, or this one would grow into it unseen.
                ctypes.CDLL(None).malloc_trim(0)
            self.before = _status_kib("VmRSS")

    def reset(self):
        """Begin to watch."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError as error:
            self.before, self.how = None, f"the peak resident set cannot be reset here: {error}"

    def read(self):
        """Take the peak since the reset; only the first reading counts."""
        if self.mib is not None:
            return
        if self.device.type == "cuda":
            self.mib, self.how = torch.cuda.max_memory_allocated(self.device) / 2**20, "torch.cuda.max_memory_allocated"
        elif self.before is not None:
            self.mib = (_status_kib("VmHWM") - self.before) / 2**10
            self.how = "VmHWM beyond VmRSS before the call"


def _status_kib(key):
    """A figure of this process; None where the system does not keep it."""
    with suppress(OSError):
        found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) if found else None


def machine(device):
    """Processor or GPU as it names itself, threads, and versions."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor():
    """The processor's model as lscpu names it, else what Python knows."""
    try:
        listed = subprocess.run(
            ["lscpu"], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.CalledProcessError):
        return platform.processor() or platform.machine()
    found = re.search(r"Model name:\s*(.+)", listed.stdout)
    return found[1].strip() if found else platform.machine()
