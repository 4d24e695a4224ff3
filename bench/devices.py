"""What computes: the device, the threads of the CPU, and how running out of memory shows."""

from __future__ import annotations

import os

import torch

from bench.errors import ConfigurationError


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one, in full float32 and deterministic.

    Raises ConfigurationError for cuda without one.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device cuda: torch sees no GPU here; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # The client computes in float32: an attacker in TF32 could not even reproduce a true gradient.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return torch.device(name)


def default_threads() -> int:
    """What OMP_NUM_THREADS says, else as many threads as cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the CPU had too little memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
