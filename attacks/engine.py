"""Runs the step of an attack over all lanes, cut into chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attacks.choosing import Runner
from attacks.execution import announce, current, record
from attacks.lanes import Lanes, Step, lanes_at
from attacks.progress import report


@dataclass(frozen=True)
class Descended:
    """Where every lane ended: `variables`, their `objective` (lanes,), that at the `start`, and a `trace`."""

    variables: Lanes
    objective: Tensor
    start: Tensor
    trace: dict[int, Tensor]


Loop = Callable[[Callable[..., Any], Lanes, Lanes, Callable[[int], None]], Descended]
"""Of the step, starts, evidence and whom to tell how many iterations are done: all iterations of these lanes."""


def solve(step: Step, loop: Loop, start: Lanes, evidence: Lanes) -> Descended:
    """Run the loop over all lanes; running out of memory halves the chunk and goes on."""
    lanes = len(next(iter(start.values())))
    wanted = current()
    runner = Runner.choose(step, start, evidence, wanted)
    announce(runner.choice)
    parts: list[Descended] = []
    done = 0
    while done < lanes:
        chunk, size = runner.choice.chunk, min(runner.choice.chunk, lanes - done)
        # The last chunk is filled up with the last lane: every chunk runs the same program.
        index = torch.arange(done, done + chunk).clamp(max=lanes - 1)

        def tell(iteration: int, before: int = done * step.iterations, size: int = size) -> None:
            if size == lanes:
                report(iteration, step.iterations)
            else:
                report(before + iteration * size, lanes * step.iterations)

        try:
            found = loop(runner.call, lanes_at(start, index, lanes), lanes_at(evidence, index, lanes), tell)
        except Exception as error:
            if not is_out_of_memory(error) or chunk == 1:
                raise
            found = None
        if found is not None:
            parts.append(_first(found, size))
            done += size
            continue
        # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
        del runner
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        runner = Runner.choose(step, start, evidence, replace(wanted, lanes=-(-chunk // 2)))
    record(runner.measured())
    return _joined(parts)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the CPU had too little memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def _first(found: Descended, size: int) -> Descended:
    return Descended(
        {name: v[:size] for name, v in found.variables.items()},
        found.objective[:size],
        found.start[:size],
        {i: value[:size] for i, value in found.trace.items()},
    )


def _joined(parts: list[Descended]) -> Descended:
    return Descended(
        {name: torch.cat([p.variables[name] for p in parts]) for name in parts[0].variables},
        torch.cat([p.objective for p in parts]),
        torch.cat([p.start for p in parts]),
        {i: torch.cat([p.trace[i] for p in parts]) for i in parts[0].trace if all(i in p.trace for p in parts)},
    )
