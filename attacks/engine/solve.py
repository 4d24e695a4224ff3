"""Runs the step of an attack over all lanes, cut into chunks that fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attacks.engine.choice import Runner
from attacks.engine.execution import announce, current, is_out_of_memory, record, report, rounding
from attacks.engine.lanes import Lanes, Step, lanes_at


@dataclass(frozen=True)
class Descended:
    """The end of every lane: `variables`, their `objective` (lanes,), that at the `start`, and a `trace`."""

    variables: Lanes
    objective: Tensor
    start: Tensor
    trace: dict[int, Tensor]


Loop = Callable[[Callable[..., Any], Lanes, Lanes, Callable[[int], None]], Descended]
"""All iterations of these lanes, from the step, starts, evidence and a call-back with the number of iterations done."""


def solve(step: Step, loop: Loop, start: Lanes, evidence: Lanes) -> Descended:
    """Run the loop over all lanes; running out of memory halves the chunk and goes on."""
    lanes = len(next(iter(start.values())))
    # Programs are made for the strides of their arguments, and results have those of dense tensors.
    start, evidence = ({name: t.contiguous() for name, t in tensors.items()} for tensors in (start, evidence))
    wanted = current()
    runner: Runner | None = None
    parts: list[Descended] = []
    done = 0
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    while done < lanes:
        try:
            if runner is None:
                with torch.no_grad(), rounding(step.precision):
                    runner = Runner.choose(step, start, evidence, wanted)
                if not parts:
                    announce(runner.choice)
            found = _chunk(runner, step, loop, start, evidence, done)
            parts.append(found)
            done += len(found.objective)
            continue
        except Exception as error:
            chunk = min(lanes, wanted.lanes or lanes) if runner is None else runner.choice.chunk
            if not is_out_of_memory(error) or chunk == 1:
                raise
        # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
        runner = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        wanted = replace(wanted, lanes=-(-chunk // 2))
    assert runner is not None, "there is at least one lane"
    record(runner.measured())
    return _joined(parts)


def _chunk(runner: Runner, step: Step, loop: Loop, start: Lanes, evidence: Lanes, done: int) -> Descended:
    """The lanes from number `done` on, as many as a chunk holds and there are."""
    lanes = len(next(iter(start.values())))
    size = min(runner.choice.chunk, lanes - done)
    # The last chunk is filled up with the last lane: every chunk runs the same program.
    index = torch.arange(done, done + runner.choice.chunk).clamp(max=lanes - 1)

    def tell(iteration: int) -> None:
        if size == lanes:
            report(iteration, step.iterations)
        else:
            report(done * step.iterations + iteration * size, lanes * step.iterations)

    def call(*arguments: Any) -> Any:
        with torch.no_grad(), rounding(step.precision):
            return runner.call(*arguments)

    return _first(loop(call, lanes_at(start, index, lanes), lanes_at(evidence, index, lanes), tell), size)


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
