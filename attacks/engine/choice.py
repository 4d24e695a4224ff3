"""The choice of the exact form of a step, of the lanes it runs on at once, and of the execution, by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from attacks.engine.compilation import Costs, compile_program, replay_program
from attacks.engine.execution import Choice, Execution, is_out_of_memory
from attacks.engine.lanes import Lanes, Step, lanes_at
from attacks.engine.program import Program, untraced

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
        for name in names[1:]:
            other = runner._rival(name, step, start, evidence, wanted)
            if other is not None:
                runner = other
        return runner._executed(wanted) if wanted.mode != "auto" else runner._fastest(step, wanted)

    def _rival(self, name: str, step: Step, start: Lanes, evidence: Lanes, wanted: Execution) -> Runner | None:
        """Another form, if it fits where this one does not, or is faster by a margin."""
        crowded = self.choice.chunk < self.choice.lanes or not self._fits(wanted)
        if not crowded and (name in RECOMPUTING or self._seconds_left(step) <= 10 * self.trace_seconds):
            return None
        other = Runner._fitted(name, step, start, evidence, wanted)
        if not isinstance(other.call, Program):
            return None
        if not self._fits(wanted):
            return other if (other.choice.peak_bytes or 0) < (self.choice.peak_bytes or 0) else None
        try:
            return (
                other if other._fits(wanted) and other._seconds_left(step) < MARGIN * self._seconds_left(step) else None
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return None  # What torch cannot run in this form, it runs in the plain one.

    @classmethod
    def _fitted(cls, name: str, step: Step, start: Lanes, evidence: Lanes, wanted: Execution) -> Runner:
        """The form traced for as many lanes as memory holds; untraced where that is not worth it or not possible."""
        lanes = len(next(iter(start.values())))
        chunk = _even(lanes, min(lanes, wanted.lanes or lanes))
        while True:
            started = time.perf_counter()
            index = torch.arange(chunk)
            arguments = step.arguments(lanes_at(start, index, lanes), lanes_at(evidence, index, lanes))
            given = sum(t.numel() * t.element_size() for t in tree_leaves(arguments)) + chunk * step.state_bytes
            plenty = wanted.memory is None or PLENTY * given <= wanted.memory
            choice = Choice("eager", name, step.precision, lanes, chunk, "short: run as it is", None)
            if step.iterations <= SHORT and wanted.mode in ("auto", "eager") and plenty:
                return cls(untraced(step.forms[name]), arguments, choice, 0)
            try:
                program = Program(step.forms[name], arguments, fixed=step.fixed, recomputes=name in RECOMPUTING)
            except Exception as error:  # Whatever the function does that has no place in a graph; it may still run.
                why = f"run as it is, since tracing failed: {_first_line(error)}"
                return cls(untraced(step.forms[name]), arguments, replace(choice, why=why), 0)
            peak = program.peak_bytes + chunk * step.state_bytes
            if wanted.memory is None or peak <= wanted.memory or chunk == 1:
                choice = replace(choice, why="", peak_bytes=peak)
                return cls(program, arguments, choice, time.perf_counter() - started)
            chunk = _even(lanes, max(1, min(chunk - 1, int(chunk * wanted.memory / peak))))

    def _executed(self, wanted: Execution) -> Runner:
        """The same program, run as asked: in another mode than "auto"."""
        leaves = self.program.flat(self.arguments)
        seconds = None
        if wanted.mode == "compile":
            try:
                self.program.run, seconds = compile_program(self.program, leaves)
            except Exception as error:  # Inductor wraps whatever its tools say.
                return self._changed(why=f"as asked, but compiling failed: {_first_line(error)}")
        elif wanted.mode == "graph":
            self.program.run = replay_program(self.program.run, leaves)
        return self._changed(execution=wanted.mode, compile_seconds=seconds, why="as asked")

    def _fastest(self, step: Step, wanted: Execution) -> Runner:
        """Eager, or what pays for itself in the time that is left."""
        best = self._time()
        why = f"eager {best:.3g} ms"
        leaves = self.program.flat(self.arguments)
        if self._device.type == "cuda":
            best, why = self._kept_if_faster("graph", lambda: replay_program(self.program.run, leaves), best, why)
        costs = Costs(wanted.costs)
        expected, speedup, missed = costs.expected(self.program)
        left = self._changed(milliseconds=best)._seconds_left(step)
        if missed + (gain := left * (1 - 1 / speedup)) <= expected:
            costs.miss(self.program, max(gain, 0))
            why += f"; {left:.0f} s left, compiling would take {expected:.0f} s for a gain of {speedup:.2g} times"
            return self._changed(why=why, milliseconds=best)
        before, took = best, []

        def make() -> Callable[..., Any]:
            run, seconds = compile_program(self.program, leaves)
            took.append(seconds)
            return run

        best, why = self._kept_if_faster("compile", make, best, why)
        if not took:
            costs.miss(self.program, -missed)  # Tried again when as much is lost once more.
            return self._changed(why=why, milliseconds=best)
        costs.remember(self.program, took[0], before / best)
        return self._changed(why=f"{why} after {took[0]:.0f} s", milliseconds=best, compile_seconds=took[0])

    def _kept_if_faster(
        self, mode: str, make: Callable[[], Callable[..., Any]], best: float, why: str
    ) -> tuple[float, str]:
        """Run like this from now on, unless it fails or gains too little; the best milliseconds, and why."""
        kept = self.program.run
        try:
            self.program.run = make()
            own = self._time()
        except Exception as error:
            self.program.run = kept
            if is_out_of_memory(error):
                raise
            return best, f"{why}; {mode} failed: {_first_line(error)}"
        if own < MARGIN * best:
            self._changed(execution=mode)
            return own, f"{why}, {mode} {own:.3g} ms"
        self.program.run = kept
        return best, f"{why}, {mode} {own:.3g} ms"

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

    def _fits(self, wanted: Execution) -> bool:
        return wanted.memory is None or (self.choice.peak_bytes or 0) <= wanted.memory

    def _seconds_left(self, step: Step) -> float:
        chunks = -(-self.choice.lanes // self.choice.chunk)
        return (self.choice.milliseconds or self._time()) / 1e3 * step.iterations * chunks

    def _time(self) -> float:
        """Milliseconds of an iteration: the fastest of three, after one that pays what is paid once."""
        seconds: list[float] = []
        for _ in range(4):
            started = time.perf_counter()
            self.call(*self.arguments)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            seconds.append(time.perf_counter() - started)
        self._changed(milliseconds=min(seconds[1:]) * 1e3)
        return min(seconds[1:]) * 1e3

    def _changed(self, **fields: Any) -> Runner:
        self.choice = replace(self.choice, **fields)
        return self


def _even(lanes: int, chunk: int) -> int:
    """The chunk that cuts the lanes into as many parts as this one, of equal size."""
    return -(-lanes // -(-lanes // chunk))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
