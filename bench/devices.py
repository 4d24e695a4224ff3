"""Devices: which one computes, its threads and memory, and where compiled programs and trained weights are kept."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from bench.errors import ConfigurationError
from defenses.task import Params, Task


def cache_folder() -> Path:
    """The folder of trained weights: `weights` in $LEAKBOARD_CACHE or in ~/.cache/leakboard."""
    return Path(os.environ.get("LEAKBOARD_CACHE") or "~/.cache/leakboard").expanduser() / "weights"


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
    """The number in OMP_NUM_THREADS, else as many threads as cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_costs() -> Path:
    """The file of the times that compiling took; Inductor's own cache is set to lie beside it."""
    folder = cache_folder().parent
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    return folder / "compiling.json"


SHARE = 0.4
"""Part of the memory that the lanes of an attack may fill; the rest is for what operations need inside."""
COPIES = 8
"""Tensors of the size of each activation that an attack with a loop of its own is taken to hold; a cautious guess."""
_TOGETHER = 2**26
"""Numbers that the updates, and the activations, of the clients computed at once may fill."""


def budget(device: torch.device) -> int:
    """Bytes that the lanes of an attack may fill.

    What is free at the moment does not enter, so that a run that is resumed is cut the same way.
    """
    if device.type == "cuda":
        return int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(SHARE * min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _container_limit()))


def _container_limit() -> float:
    """Bytes that the control group of this process may use; infinite without a limit."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text().replace("max", "inf"))
    except (OSError, ValueError):
        return float("inf")


def trials_that_fit(task: Task, params: Params, restarts: int, device: torch.device) -> int:
    """Trials per chunk of an attack whose steps the engine does not see, from the activations of a forward pass."""
    weights = sum(p.numel() for p in params.values())
    floats = COPIES * activations(task, params) * task.schedule.images
    return max(1, int(budget(device) / (4 * task.schedule.steps * (floats + 4 * weights) * restarts)))


def clients_at_once(task: Task, params: Params) -> int:
    """Clients whose updates are computed together, so that neither these nor their activations fill the memory."""
    # An example's gradient is as large as an update, and DP-SGD holds those of all examples.
    updates = sum(p.numel() for p in params.values()) * task.schedule.images
    work = COPIES * activations(task, params) * task.schedule.images
    return max(1, _TOGETHER // max(updates, work))


def activations(task: Task, params: Params) -> int:
    """Numbers that the layers of the network put out for one image."""
    floats = 0

    def count(_: nn.Module, __: object, output: object) -> None:
        nonlocal floats
        floats += output.numel() if isinstance(output, torch.Tensor) else 0

    handles = [m.register_forward_hook(count) for m in task.model.modules() if not list(m.children())]
    try:
        with torch.no_grad():
            # A batch norm that takes the batch's statistics may not work on one.
            images = min(2, task.schedule.images)
            task.logits(params, torch.zeros(images, *task.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return floats // images
