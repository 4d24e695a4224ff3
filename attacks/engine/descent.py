"""The one loop of all first-order attacks: signed or plain Adam over many lanes at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from attacks.engine.execution import network_precision
from attacks.engine.lanes import Lanes, Step
from attacks.engine.solve import Descended, solve

LaneObjective = Callable[[Lanes, Lanes], Tensor]
"""A scalar, from the variables and the evidence of ONE lane; pure, and traceable by torch.func.

It is traced once and replayed: what it reads beside its arguments stays as it was at the first call.
"""
LaneGradient = Callable[[Lanes, Lanes], tuple[Lanes, Tensor]]
"""The objective's gradient by its variables, and its value, from the same arguments."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015) with a step schedule."""

    iterations: int
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    milestones: tuple[float, ...] = ()
    """Fractions of `iterations`, at each of which the learning rate is multiplied by `decay`."""
    decay: float = 0.1
    warmup: int = 0
    """Iterations over which the learning rate rises linearly from near 0."""
    annealed: bool = False
    """After the warm-up the rate falls to 0 by half a cosine (Loshchilov & Hutter, "SGDR", ICLR 2017)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0 iterations, got {self.warmup}; 0 starts at the full rate")

    def rate(self, iteration: int) -> float:
        """The learning rate of a 0-based iteration."""
        passed = sum(iteration >= int(self.iterations * m) for m in self.milestones)
        rate = self.learning_rate * self.decay**passed
        if iteration < self.warmup:
            return rate * (iteration + 1) / self.warmup
        done = (iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return rate * (1 + math.cos(math.pi * done)) / 2 if self.annealed else rate

    def corrections(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The step size over 1 - beta1^t and the root of 1 - beta2^t for every iteration t, each (iterations,)."""
        beta1, beta2 = self.betas
        sizes = [self.rate(i) / (1 - beta1 ** (i + 1)) for i in range(self.iterations)]
        roots = [(1 - beta2 ** (i + 1)) ** 0.5 for i in range(self.iterations)]
        return like.new_tensor(sizes), like.new_tensor(roots)


def descend(
    objective: LaneObjective,
    start: Lanes,
    evidence: Lanes,
    adam: Adam,
    *,
    signed: bool,
    box: tuple[Tensor, Tensor] | None,
    gradients: dict[str, LaneGradient] | None = None,
) -> Descended:
    """Minimise the objective of every lane independently; the last iterate is returned with its own objective.

    `signed` feeds Adam the sign of the whole gradient of the variable "images" (Geiping et al., NeurIPS 2020); `box`
    clips "images" after each step to (lowest, highest), both broadcastable to it. Other variables, such as label
    logits, get plain Adam without a box. `gradients` are exact forms of the objective's gradient to choose from, the
    plain one first; the network in them is in the precision of the execution, elsewhere in float32.
    """
    beta1, beta2 = adam.betas
    watched = log_spaced(adam.iterations)

    def step_of(gradient: LaneGradient) -> Callable[..., Any]:
        slopes = vmap(gradient)

        def step(x: Lanes, first: Lanes, second: Lanes, evidence: Lanes, size: Tensor, root: Tensor) -> Any:
            found, value = slopes(x, evidence)
            for name, g in found.items():
                if signed and name == "images":
                    g = g.sign()
                m = torch.lerp(first[name], g, 1 - beta1)
                v = beta2 * second[name] + (1 - beta2) * g * g
                moved = x[name] - size * m / (v.sqrt() / root + adam.epsilon)
                if box is not None and name == "images":
                    moved = moved.clamp(*box)
                x, first, second = {**x, name: moved}, {**first, name: m}, {**second, name: v}
            return x, first, second, value

        return step

    def state(start: Lanes) -> tuple[Lanes, Lanes, Lanes]:
        zeros = [{name: torch.zeros_like(v) for name, v in start.items()} for _ in range(2)]
        return start, zeros[0], zeros[1]

    def loop(step: Callable[..., Any], start: Lanes, evidence: Lanes, tell: Callable[[int], None]) -> Descended:
        x, first, second = state(start)
        trace: dict[int, Tensor] = {}
        for i in range(adam.iterations):
            x, first, second, value = step(x, first, second, evidence, sizes[i], roots[i])
            if i in watched:
                trace[i] = value.clone()  # A replayed step writes over what it returned.
            tell(i + 1)
        # The objective of the iterate that is returned, not of the one before it.
        x = {name: v.clone() for name, v in x.items()}
        trace[adam.iterations] = step(x, first, second, evidence, sizes[-1], roots[-1])[-1].clone()
        return Descended(x, trace[adam.iterations], trace[0], trace)

    sizes, roots = adam.corrections(next(iter(start.values())))
    forms = gradients or {"double_backward": grad_and_value(objective)}
    step = Step(
        {name: step_of(gradient) for name, gradient in forms.items()},
        lambda start, evidence: (*state(start), evidence, sizes[0], roots[0]),
        3,
        adam.iterations,
        precision=network_precision(gradients is not None),
    )
    return solve(step, loop, start, evidence)


def log_spaced(iterations: int) -> set[int]:
    """0 and powers of two below `iterations`: where a trace is kept."""
    return {0} | {2**k for k in range(iterations.bit_length()) if 2**k < iterations}
