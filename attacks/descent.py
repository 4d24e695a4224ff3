"""The one loop of all first-order attacks: signed or plain Adam over many lanes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from attacks.progress import report

Lanes = dict[str, Tensor]
"""Variable or evidence name -> (lanes, ...)."""
LaneObjective = Callable[[Lanes, Lanes], Tensor]
"""Of the variables and the evidence of ONE lane, a scalar; traceable by torch.func."""


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, ICLR 2015) with a step schedule.

    The learning rate is multiplied by `decay` at each of `milestones`, fractions of `iterations`.
    """

    iterations: int
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    milestones: tuple[float, ...] = ()
    decay: float = 0.1

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")

    def rate(self, iteration: int) -> float:
        """The learning rate of a 0-based iteration."""
        passed = sum(iteration >= int(self.iterations * m) for m in self.milestones)
        return self.learning_rate * self.decay**passed


@dataclass(frozen=True)
class Descended:
    """Where every lane ended: `variables`, their `objective` (lanes,), that at the `start`, and a `trace`."""

    variables: Lanes
    objective: Tensor
    start: Tensor
    trace: dict[int, Tensor]


def descend(
    objective: LaneObjective,
    start: Lanes,
    evidence: Lanes,
    adam: Adam,
    *,
    signed: bool,
    box: tuple[Tensor, Tensor] | None,
) -> Descended:
    """Minimise the objective of every lane independently; the last iterate is returned with its own objective.

    `signed` feeds Adam the sign of the whole gradient of the variable "images" (Geiping et al., NeurIPS 2020); `box`
    clips "images" after each step to (lowest, highest), both broadcastable to it. Other variables, such as label
    logits, get plain Adam without a box.
    """
    step = vmap(grad_and_value(objective))
    x = {name: v.clone() for name, v in start.items()}
    first = {name: torch.zeros_like(v) for name, v in x.items()}
    second = {name: torch.zeros_like(v) for name, v in x.items()}
    beta1, beta2 = adam.betas
    trace: dict[int, Tensor] = {}
    watched = log_spaced(adam.iterations)
    for i in range(adam.iterations):
        gradients, value = step(x, evidence)
        if i in watched:
            trace[i] = value
        root = (1 - beta2 ** (i + 1)) ** 0.5
        size = adam.rate(i) / (1 - beta1 ** (i + 1))
        for name, g in gradients.items():
            if signed and name == "images":
                g = g.sign()
            first[name].lerp_(g, 1 - beta1)
            second[name].mul_(beta2).addcmul_(g, g, value=1 - beta2)
            x[name].addcdiv_(first[name], second[name].sqrt().div_(root).add_(adam.epsilon), value=-size)
        if box is not None:
            torch.clamp(x["images"], *box, out=x["images"])
        report(i + 1, adam.iterations)
    # The objective of the iterate that is returned, not of the one before it.
    final = vmap(objective)(x, evidence)
    trace[adam.iterations] = final
    return Descended(x, final, trace[0], trace)


def log_spaced(iterations: int) -> set[int]:
    """0 and powers of two below `iterations`: where a trace is kept."""
    return {0} | {2**k for k in range(iterations.bit_length()) if 2**k < iterations}
