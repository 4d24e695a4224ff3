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

from attacks.engine.program import Program

SECONDS_PER_OPERATION = 0.065
"""Seconds of Inductor on a 2-core CPU for an operation of a program it has not seen; a first guess, then remembered."""
WARM = 0.1
"""The part of it that is left when the program lies in Inductor's cache on disk; 0.06 was measured."""
EXPECTED_SPEEDUP = 1.3
"""Speed-up by compiling where nothing is remembered; networks of the literature on a 2-core CPU gave 1.1 to 1.9."""


def compile_program(program: Program, arguments: Sequence[Tensor]) -> tuple[Callable[..., Any], float]:
    """The program compiled for flat arguments of these shapes, and the seconds that it took.

    Raises whatever Inductor raises, for instance without a C++ compiler.
    """
    import torch._inductor

    started = time.perf_counter()
    # Unlike `torch._inductor.compile`, this finds whole programs in the cache on disk.
    run: Any = torch._inductor.standalone_compile(
        program.graph_module, list(arguments), dynamic_shapes="from_example_inputs"
    )
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
    """Seconds and speed-up of compiling, by program, in a JSON file that several processes may write; None forgets."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def expected(self, program: Program) -> tuple[float, float, float]:
        """Seconds of compiling, how many times faster an iteration is then, and the seconds missed by not doing it."""
        known = self._entry(program)
        seconds = known.get("seconds", SECONDS_PER_OPERATION * program.operations)
        return seconds, max(known.get("speedup", EXPECTED_SPEEDUP), 0.01), known.get("missed", 0.0)

    def remember(self, program: Program, seconds: float, speedup: float) -> None:
        """Store what compiling took; after the first time, the next will find the program in Inductor's cache."""
        part = 1 if "seconds" in self._entry(program) else WARM
        self._write(program, {"seconds": round(seconds * part, 2), "speedup": round(speedup, 3)})

    def miss(self, program: Program, seconds: float) -> None:
        """Add what a descent loses that is too short to compile for.

        Programs come back, in other cells and runs: one that has lost as much as compiling takes should be compiled.
        """
        known = self._entry(program)
        self._write(program, {**known, "missed": round(known.get("missed", 0.0) + seconds, 2)})

    def _entry(self, program: Program) -> dict[str, float]:
        entry = self._read().get(program.digest)
        if not isinstance(entry, dict):
            return {}
        return {key: float(value) for key, value in entry.items() if isinstance(value, int | float)}

    def _write(self, program: Program, entry: dict[str, float]) -> None:
        if self._path is None:
            return
        entries = {**self._read(), program.digest: entry}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}.tmp")
            partial.write_text(json.dumps(entries, indent=1), encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            return  # A forecast less; no result depends on it.

    def _read(self) -> dict[str, Any]:
        try:
            entries = {} if self._path is None else json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}
