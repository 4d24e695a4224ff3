"""What computes: the device, the threads of the CPU, and where compiled programs are kept."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from bench.errors import ConfigurationError
from bench.kept_weights import cache_folder


def choose_device(name: str, execution: str = "auto", precision: str = "float32") -> torch.device:
    """`auto` takes a GPU when there is one, deterministic and in full float32; the engine lets "tf32" in where it may.

    Raises ConfigurationError for cuda, graph or tf32 without one.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device cuda: torch sees no GPU here; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    for key, value, needs in (("execution", execution, "graph"), ("precision", precision, "tf32")):
        if value == needs and name != "cuda":
            raise ConfigurationError(f"engine.{key} = {value!r} needs a GPU and this run is on the CPU; leave it out")
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


def compile_costs() -> Path:
    """Where it is remembered what compiling takes; Inductor's own cache lies beside it."""
    folder = cache_folder().parent
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    return folder / "compiling.json"
