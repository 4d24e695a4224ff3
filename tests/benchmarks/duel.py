"""The engine against the plain loop on the same clients: do they agree, and what does an iteration cost each?"""

import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import torch
from measuring import Memory, flops, matrix_multiply_peak, seconds, synchronise
from reference import invert, invert_euclidean, start_of

from attacks.attack import Attack
from attacks.engine.execution import Execution, executing, listening
from attacks.observation import Observation
from attacks.optimisation.euclidean import Euclidean


class _Chosen(Exception):
    """The engine has said how it would run an attack."""


@dataclass(frozen=True)
class Duel:
    """An attack on t clients at once by the engine, and on one of them by the plain loop.

    Trial i starts from seed i in both.
    """

    observation: Observation
    attack: Attack
    execution: Execution

    def plain(self, lane=0, **changes):
        """Images in normalised space and the objective at every iteration, of one trial by the plain loop."""
        seen, attack = self.observation, replace(self.attack, **changes)
        update = {name: u[lane] for name, u in seen.updates.items()}
        like = next(iter(update.values()))
        start = start_of(lane, (1, *seen.task.input_shape), like.dtype).to(like.device)
        client = (seen.task, seen.params, update, seen.labels[lane], start)
        if isinstance(attack, Euclidean):
            return invert_euclidean(*client, outer_steps=attack.iterations)
        return invert(*client, iterations=attack.iterations, tv_weight=attack.tv_weight, signed=attack.signed)

    def engine(self, listener=lambda done, total: None, **changes):
        """The reconstruction of all trials, and how the engine chose to run it."""
        attack = replace(self.attack, **changes)
        with executing(self.execution) as choices, listening(listener):
            found = attack.reconstruct(self.observation, list(range(self.observation.trials)))
        return found, asdict(choices[-1]) if choices else {}

    def disagreement(self, until=5, found=None, **changes):
        """The largest relative difference of the objectives before iteration `until`, of the first and last trial.

        Of a reconstruction of this attack, or of a new one with `changes` to the attack's parameters.
        """
        if found is None:
            found, _ = self.engine(**changes)
        apart = []
        for lane in sorted({0, self.observation.trials - 1}):
            _, values = self.plain(lane, **changes)
            watched = [i for i in found.trace if i < min(until, len(values))]
            apart += [abs(float(found.trace[i][lane]) / values[i] - 1) for i in watched]
        return float(torch.tensor(apart).max())  # an undefined one wins, unlike with max()

    def with_faster_form(self):
        """This duel with the form of the gradient that the engine chooses for a long attack, by measurement."""
        chosen = []

        def heard(choice):
            chosen.append(choice.gradient)
            raise _Chosen

        long = replace(self.execution, mode="eager", gradient="auto")
        with suppress(_Chosen), executing(long, heard):
            replace(self.attack, iterations=4800).reconstruct(self.observation, list(range(self.observation.trials)))
        return replace(self, execution=replace(self.execution, gradient=chosen[0]))

    def figures(self, stretch, rival=None):
        """The reconstruction, and what an iteration costs, in milliseconds per iteration and trial.

        The `rival` (by default the plain loop; a call that returns how many iterations it made) and stretches of the
        engine's iterations take turns, so that whatever else the machine does falls on both; medians of both.
        `set_up_seconds` pass before the first iteration is over: tracing, compiling, measuring. `share_of_peak`
        counts the FLOPs of the plain loop's iteration, so that its numerator is the work of the algorithm, not of
        an implementation, and divides by the engine's time and the machine's measured matrix product in the same
        precision.
        """
        device, trials = self.observation.device, self.observation.trials
        rival = rival or (lambda: len(self.plain()[1]))
        rival()
        turns = Turns(device, stretch, rival)
        cost = turns.of(self)
        work, (_, values) = flops(lambda: self.plain(iterations=1))
        peak = matrix_multiply_peak(device, self.execution.precision)
        engine = cost["engine"] / trials
        return turns.found, {
            "trials": trials,
            "mode": turns.choice.get("execution", "eager"),
            "precision": self.execution.precision,
            "gradient": turns.choice.get("gradient", "double_backward"),
            "choice": turns.choice,
            "engine_ms": engine * 1e3,
            "rival_ms": cost["rival"] * 1e3,
            "ratio": cost["rival"] / engine,
            "rounds": len(turns.rival_times),
            "set_up_seconds": turns.set_up,
            "flops_per_iteration": work / len(values),
            "peak_flops_per_second": peak,
            "share_of_peak": work / len(values) / engine / peak,
            "peak_memory_mib": turns.memory.mib,
            "peak_memory_how": turns.memory.how,
        }


class Turns:
    """Listens to an attack, and between stretches of its iterations stops the clock and lets the rival run."""

    def __init__(self, device, stretch, rival=None):
        self.device, self.stretch, self.rival = device, stretch, rival
        self.engine_times, self.rival_times = [], []

    def of(self, duel, **changes):
        """Median seconds per iteration: "engine" of all lanes, "rival" of its one, None without one."""
        self.last, self.memory = None, Memory(self.device)
        started = time.perf_counter()
        self.found, self.choice = duel.engine(self, **changes)
        self.set_up = self.begun - started
        if not self.engine_times:
            raise ValueError(f"no report came {self.stretch} iterations after the first: give the attack more of them")
        rival = statistics.median(self.rival_times) if self.rival_times else None
        return {"engine": statistics.median(self.engine_times), "rival": rival}

    def __call__(self, done, total):
        if self.last is None:
            synchronise(self.device)
            self.begun = time.perf_counter()
            self.memory.reset()
        elif done - self.last < self.stretch:
            return
        else:
            synchronise(self.device)
            self.engine_times.append((time.perf_counter() - self.clock) / (done - self.last))
            self.memory.read()  # the first reading counts: the rival has not run yet
            if self.rival is not None:
                elapsed, iterations = seconds(self.rival, self.device)
                self.rival_times.append(elapsed / iterations)
        self.last, self.clock = done, time.perf_counter()
