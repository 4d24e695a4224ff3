"""The way an attack is asked to run (eager, compiled, replayed; gradient, precision), its record, and its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

Mode = Literal["auto", "eager", "compile", "graph"]
Precision = Literal["float32", "tf32", "bfloat16"]
GradientForm = Literal["auto", "double_backward", "forward_over_reverse", "checkpointed"]


@dataclass(frozen=True)
class Execution:
    """The way to run a step. But for `precision`, nothing here changes a result by more than rounding."""

    mode: Mode = "eager"
    """"eager" runs one operation after the other, "compile" the code that Inductor makes of them, "graph" replays them
    as a CUDA graph; "auto" measures a few steps and weighs the cost of the others against the time they would save."""
    gradient: GradientForm = "double_backward"
    """The exact form of the objective's gradient; "auto" takes the fastest that fits."""
    precision: Precision = "float32"
    """"bfloat16" computes the network in it, "tf32" lets a GPU round the inputs of matrix products; objective and
    optimiser stay in float32."""
    lanes: int | None = None
    """Lanes that run at once; None for as many as fit into `memory`."""
    memory: int | None = None
    """Bytes that a step may hold; None for no limit."""
    costs: Path | None = None
    """A JSON file that remembers what compiling took and gained."""

    def __post_init__(self) -> None:
        if self.lanes is not None and self.lanes < 1:
            raise ValueError(f"lanes must be at least 1, got {self.lanes}; None runs as many as fit")


@dataclass(frozen=True)
class Choice:
    """The way in which one descent was run, and why."""

    execution: Literal["eager", "compile", "graph"]
    gradient: str
    """The form of the gradient that was chosen."""
    precision: Precision
    lanes: int
    """All lanes of the descent."""
    chunk: int
    """Lanes that ran at once."""
    why: str
    """The reason in words, with the milliseconds that decided."""
    peak_bytes: int | None
    """Memory of a step beside its inputs: measured on a GPU, counted from its operations on the CPU, None if not
    traced."""
    milliseconds: float | None = None
    """Time of one iteration of one chunk; None where none was measured."""
    compile_seconds: float | None = None


Heard = Callable[[Choice], None]
_current: ContextVar[tuple[Execution, list[Choice], Heard] | None] = ContextVar("execution", default=None)


@contextmanager
def executing(execution: Execution, heard: Heard = lambda _: None) -> Iterator[list[Choice]]:
    """Run the attacks inside the block like this; the list gets one choice for each of their descents.

    `heard` is told a choice before the descent that it is for begins.
    """
    choices: list[Choice] = []
    token = _current.set((execution, choices, heard))
    try:
        yield choices
    finally:
        _current.reset(token)


def current() -> Execution:
    """The execution in force here: eager outside every `executing`."""
    found = _current.get()
    return Execution() if found is None else found[0]


def network_precision(honoured: bool) -> Precision:
    """The precision that a descent's network is really in: bfloat16 needs forms of the gradient that honour it."""
    asked = current().precision
    return "float32" if asked == "bfloat16" and not honoured else asked


def known_chunk() -> int | None:
    """The lanes that the latest descent inside the innermost `executing` ran at once; None before any."""
    found = _current.get()
    return found[1][-1].chunk if found is not None and found[1] else None


def is_out_of_memory(error: BaseException) -> bool:
    """True if the device or the CPU had too little memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


@contextmanager
def rounding(precision: Precision) -> Iterator[None]:
    """Let a GPU round the inputs of matrix products inside this block if the precision is "tf32"."""
    if precision != "tf32":  # Every iteration passes here.
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = True
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def announce(choice: Choice) -> None:
    """Tell whoever listens at the innermost `executing` that a descent begins."""
    found = _current.get()
    if found is not None:
        found[2](choice)


def record(choice: Choice) -> None:
    """Leave the choice to the innermost `executing`: the descent is over."""
    found = _current.get()
    if found is not None:
        found[1].append(choice)


_listener: ContextVar[Callable[[int, int], None] | None] = ContextVar("listener", default=None)


def report(done: int, total: int) -> None:
    """Say that `done` of `total` iterations are over; whoever listens may raise to stop the attack."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)


@contextmanager
def listening(listener: Callable[[int, int], None]) -> Iterator[None]:
    """Hear the reports of all attacks that run inside the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
