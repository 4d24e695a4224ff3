"""Faster ways to run a program: compiled by Inductor, or replayed as a CUDA graph."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacks.tracing import Program

SECONDS_PER_OPERATION = 0.03
"""What Inductor takes on a 2-core CPU for an operation of a program it has not seen; a first guess, then remembered."""
EXPECTED_SPEEDUP = 1.3
"""What compiling gains where nothing is remembered; networks of the literature on a 2-core CPU gave 1.1 to 1.6."""


def compile_program(program: Program, arguments: Sequence[Tensor]) -> tuple[Callable[..., Any], float]:
    """The program compiled for flat arguments of these shapes, and the seconds that it took.

    Raises whatever Inductor raises, for instance without a C++ compiler.
    """
    import torch._inductor

    started = time.perf_counter()
    run: Any = torch._inductor.compile(program.graph_module, list(arguments))
    run(*arguments)
    return run, time.perf_counter() - started


def replay_program(run: Callable[..., Any], arguments: Sequence[Tensor]) -> Callable[..., Any]:
    """The program as a CUDA graph: one launch instead of one for each operation.

    Arguments are copied into place when they are other tensors than the last time; results are overwritten by the next
    replay.
    """
    inputs = [t.clone() for t in arguments]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # Libraries choose and allocate before anything can be recorded.
            run(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*inputs)
    latest: list[Tensor | None] = [None] * len(inputs)

    def replay(*tensors: Tensor) -> Any:
        for i, (place, tensor) in enumerate(zip(inputs, tensors, strict=True)):
            # What the last replay returned has the same identity and new contents.
            if latest[i] is not tensor or any(tensor is out for out in outputs):
                place.copy_(tensor)
                latest[i] = tensor
        graph.replay()
        return outputs

    return replay


class Costs:
    """What compiling took and gained, by program, in a JSON file that several processes may write; None forgets."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def expected(self, program: Program) -> tuple[float, float]:
        """Seconds of compiling, and how many times faster an iteration is then."""
        known = self._read().get(program.digest)
        try:
            seconds, speedup = float(known["seconds"]), float(known["speedup"])  # pyright: ignore[reportOptionalSubscript]
        except (TypeError, KeyError, ValueError):
            return SECONDS_PER_OPERATION * program.operations, EXPECTED_SPEEDUP
        return seconds, max(speedup, 0.01)

    def remember(self, program: Program, seconds: float, speedup: float) -> None:
        """Inductor keeps what it compiled: the latest seconds are the best forecast."""
        if self._path is None:
            return
        entries = {**self._read(), program.digest: {"seconds": round(seconds, 2), "speedup": round(speedup, 3)}}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}.tmp")
            partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            return  # A forecast less; no result depends on it.

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            entries = {} if self._path is None else json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
