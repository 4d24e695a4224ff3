"""Which exact form of a step runs, on how many lanes at once, and how: by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from attacks.compilation import Costs, compile_program, replay_program
from attacks.execution import Choice, Execution
from attacks.lanes import Lanes, Step, lanes_at
from attacks.tracing import Program, untraced

RECOMPUTING = ("checkpointed",)
"""Forms that compute things twice on purpose."""
SHORT = 40
"""Iterations up to which running a step as it is costs less than tracing it."""
PLENTY = 200
"""A short descent is traced for its memory only where so many times its arguments would not fit."""
MARGIN = 0.9
"""Another form or execution has to take less than this part of the plain one's time: choices should be stable."""


@dataclass
class Runner:
    """A program for chunks of lanes, and how it came to be chosen."""

    call: Callable[..., Any]
    """The program, or, for a short descent, the step as it is."""
    arguments: tuple[Any, ...]
    choice: Choice
    trace_seconds: float

    @classmethod
    def choose(cls, step: Step, start: Lanes, evidence: Lanes, wanted: Execution) -> Runner:
        asked = wanted.gradient
        names = list(step.forms) if asked == "auto" else [asked if asked in step.forms else next(iter(step.forms))]
        runner = cls._fitted(names[0], step, start, evidence, wanted)
        if not isinstance(runner.call, Program):
            return runner
        if wanted.mode != "auto" and len(names) == 1:
            return runner._executed(wanted, why="as asked")
        runner._time()
        for name in names[1:]:
            left = runner._seconds_left(step)
            crowded = runner.choice.chunk < runner.choice.lanes
            if name in RECOMPUTING and not crowded:
                continue
            if left > 10 * runner.trace_seconds or crowded:
                other = cls._fitted(name, step, start, evidence, wanted)
                other._time()
                if other._seconds_left(step) < MARGIN * left:
                    runner = other
        if wanted.mode != "auto":
            return runner._executed(wanted, why="as asked")
        return runner._fastest(step, wanted)

    @classmethod
    def _fitted(cls, name: str, step: Step, start: Lanes, evidence: Lanes, wanted: Execution) -> Runner:
        """The form traced for as many lanes as memory holds."""
        lanes = len(next(iter(start.values())))
        chunk = _even(lanes, min(lanes, wanted.lanes or lanes))
        while True:
            started = time.perf_counter()
            index = torch.arange(chunk)
            arguments = step.arguments(lanes_at(start, index, lanes), lanes_at(evidence, index, lanes))
            given = sum(t.numel() * t.element_size() for t in tree_leaves(arguments))
            plenty = wanted.memory is None or PLENTY * given <= wanted.memory
            if step.iterations <= SHORT and wanted.mode in ("auto", "eager") and plenty:
                choice = Choice("eager", name, wanted.precision, lanes, chunk, "short: run as it is", None)
                return cls(untraced(step.forms[name]), arguments, choice, 0)
            program = Program(step.forms[name], arguments, fixed=step.fixed, recomputes=name in RECOMPUTING)
            peak = program.peak_bytes
            if wanted.memory is None or peak <= wanted.memory or chunk == 1:
                choice = Choice("eager", name, wanted.precision, lanes, chunk, "", peak)
                return cls(program, arguments, choice, time.perf_counter() - started)
            chunk = _even(lanes, max(1, min(chunk - 1, int(chunk * wanted.memory / peak))))

    def _executed(self, wanted: Execution, why: str) -> Runner:
        """The same program, run as asked."""
        leaves = self.program.flat(self.arguments)
        seconds = None
        if wanted.mode == "compile":
            try:
                self.program.run, seconds = compile_program(self.program, leaves)
            except Exception as error:  # Inductor wraps whatever its tools say.
                return self._changed(why=f"{why}, but compiling failed: {_first_line(error)}")
        elif wanted.mode == "graph":
            self.program.run = replay_program(self.program.run, leaves)
        mode = "eager" if wanted.mode == "auto" else wanted.mode
        return self._changed(execution=mode, compile_seconds=seconds, why=why)

    def _fastest(self, step: Step, wanted: Execution) -> Runner:
        """Eager, or what pays for itself in the time that is left."""
        eager, leaves = self._milliseconds, self.program.flat(self.arguments)
        why = f"eager {eager:.3g} ms"
        best, plain = eager, self.program.run
        if self._device.type == "cuda":
            self.program.run = replay_program(plain, leaves)
            self._time()
            why += f", replayed {self._milliseconds:.3g} ms"
            if self._milliseconds < MARGIN * best:
                best = self._milliseconds
                self._changed(execution="graph")
            else:
                self.program.run = plain
        costs = Costs(wanted.costs)
        expected, speedup = costs.expected(self.program)
        left = self._iterations_left(step) * best / 1e3
        if left * (1 - 1 / speedup) <= expected:
            why += f"; {left:.0f} s left, compiling would take {expected:.0f} s for a gain of {speedup:.2g} times"
            return self._changed(why=why, milliseconds=best)
        kept = self.program.run
        try:
            self.program.run, seconds = compile_program(self.program, leaves)
        except Exception as error:  # Inductor wraps whatever its tools say.
            self.program.run = kept
            return self._changed(why=f"{why}; compiling failed: {_first_line(error)}", milliseconds=best)
        self._time()
        costs.remember(self.program, seconds, eager / self._milliseconds)
        why += f", compiled {self._milliseconds:.3g} ms after {seconds:.0f} s"
        if self._milliseconds < best:
            best = self._milliseconds
            self._changed(execution="compile")
        else:
            self.program.run = kept
        return self._changed(why=why, milliseconds=best, compile_seconds=seconds)

    def measured(self) -> Choice:
        """The choice, with what a GPU really held."""
        if self._device.type != "cuda":
            return self.choice
        return replace(self.choice, peak_bytes=torch.cuda.max_memory_allocated(self._device))

    @property
    def program(self) -> Program:
        assert isinstance(self.call, Program), "a short descent is over before it could be run otherwise"
        return self.call

    @property
    def _device(self) -> torch.device:
        return tree_leaves(self.arguments)[0].device

    @property
    def _milliseconds(self) -> float:
        assert self.choice.milliseconds is not None, "timed before it is compared"
        return self.choice.milliseconds

    def _iterations_left(self, step: Step) -> int:
        return step.iterations * -(-self.choice.lanes // self.choice.chunk)

    def _seconds_left(self, step: Step) -> float:
        return self._milliseconds / 1e3 * self._iterations_left(step)

    def _time(self) -> None:
        """Milliseconds of an iteration: the fastest of three, after one that pays what is paid once."""
        seconds: list[float] = []
        for _ in range(4):
            started = time.perf_counter()
            self.call(*self.arguments)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            seconds.append(time.perf_counter() - started)
        self._changed(milliseconds=min(seconds[1:]) * 1e3)

    def _changed(self, **fields: Any) -> Runner:
        self.choice = replace(self.choice, **fields)
        return self


def _even(lanes: int, chunk: int) -> int:
    """The chunk that cuts the lanes into as many parts as this one, of equal size."""
    return -(-lanes // -(-lanes // chunk))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
