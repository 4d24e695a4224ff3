"""L-BFGS over many lanes at once, each lane with its own history and its own stopping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from attacks.descent import Descended, LaneObjective, Lanes, log_spaced
from attacks.progress import report


@dataclass(frozen=True)
class LBFGS:
    """The settings of `torch.optim.LBFGS` without line search, at its defaults.

    `outer_steps` calls of step(), each of up to `inner_steps` iterations; a lane stops for good when its largest
    gradient entry is at most `tolerance_gradient`, or when no step can change anything any more.
    """

    outer_steps: int
    learning_rate: float = 1.0
    inner_steps: int = 20
    history: int = 100
    tolerance_gradient: float = 1e-7
    tolerance_change: float = 1e-9

    def __post_init__(self) -> None:
        if self.outer_steps < 1:
            raise ValueError(f"iterations must be at least 1, got {self.outer_steps}")
        if self.history < 1:
            raise ValueError(f"history must be at least 1, got {self.history}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")


def minimise(objective: LaneObjective, start: Lanes, evidence: Lanes, settings: LBFGS) -> Descended:
    """Minimise the objective of every lane; returns each lane's best iterate (Nocedal & Wright, algorithm 7.5).

    Lane by lane the iterates are those of torch.optim.LBFGS. An outer step that torch ends early is followed by
    another evaluation at the same point there; here the same value is used again, so fewer evaluations are made.
    """
    shapes = {name: v.shape[1:] for name, v in start.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def flat_objective(point: Tensor, evidence: Lanes) -> Tensor:
        parts = zip(shapes.items(), point.split(sizes), strict=True)
        return objective({name: part.view(shape) for (name, shape), part in parts}, evidence)

    evaluate = vmap(grad_and_value(flat_objective))
    x = torch.cat([v.flatten(1) for v in start.values()], dim=1)
    lanes = len(x)
    memory = _Memory.empty(x, settings.history)
    zeros = x.new_zeros(lanes)
    direction, step_size = torch.zeros_like(x), zeros.clone()
    previous_gradient, previous_value = torch.zeros_like(x), zeros.clone()
    outer = torch.zeros(lanes, dtype=torch.long, device=x.device)
    inner, moves = outer.clone(), outer.clone()
    finished = torch.zeros(lanes, dtype=torch.bool, device=x.device)
    best_x, best_value = x.clone(), torch.full_like(zeros, float("inf"))
    trace: dict[int, Tensor] = {}
    total = settings.outer_steps * settings.inner_steps
    watched = log_spaced(total)

    for tick in range(total):
        gradient, value = evaluate(x, evidence)
        better = value < best_value  # false for undefined values: they can never be kept
        best_value = torch.where(better, value, best_value)
        best_x = torch.where(better[:, None], x, best_x)
        if tick in watched:
            trace[tick] = value
        # Within an outer step, torch looks at the last move before it makes the next one.
        inside = inner > 0
        small_move = (direction * step_size[:, None]).abs().amax(1) <= settings.tolerance_change
        small_gain = (value - previous_value).abs() < settings.tolerance_change
        over = inside & (small_move | small_gain)
        outer, inner = outer + over, torch.where(over, 0, inner)
        finished |= (gradient.abs().amax(1) <= settings.tolerance_gradient) | ~torch.isfinite(value)
        finished |= outer >= settings.outer_steps

        first = moves == 0
        memory.push(gradient - previous_gradient, direction * step_size[:, None], ~first & ~finished)
        direction = torch.where(first[:, None], -gradient, memory.direction(gradient))
        previous_gradient, previous_value = gradient, value
        shortest = (1 / gradient.abs().sum(1)).clamp(max=1.0)
        step_size = torch.where(first, shortest, 1.0) * settings.learning_rate
        # No descent left: torch ends the outer step here, and every later one at once.
        finished |= (gradient * direction).sum(1) > -settings.tolerance_change
        x = torch.where(finished[:, None], x, x + direction * step_size[:, None])
        moves = moves + ~finished
        inner = torch.where(finished, inner, inner + 1)
        full = inner == settings.inner_steps
        outer, inner = outer + full, torch.where(full, 0, inner)
        finished |= outer >= settings.outer_steps
        report(tick + 1, total)
        if tick % 10 == 9 and bool(finished.all()):
            break
    _, value = evaluate(x, evidence)
    better = value < best_value
    best_value, best_x = torch.where(better, value, best_value), torch.where(better[:, None], x, best_x)
    parts = best_x.split(sizes, dim=1)
    variables = {name: p.view(lanes, *s) for (name, s), p in zip(shapes.items(), parts, strict=True)}
    trace[tick + 1] = best_value
    return Descended(variables, best_value, trace[0], trace)


@dataclass
class _Memory:
    """A ring of the last moves s and gradient changes y of every lane (lanes, history, n), newest before `head`."""

    s: Tensor
    y: Tensor
    rho: Tensor
    head: Tensor
    diagonal: Tensor
    filled: int = 0

    @classmethod
    def empty(cls, x: Tensor, history: int) -> _Memory:
        lanes, n = x.shape
        ring = x.new_zeros(lanes, history, n)
        head = torch.zeros(lanes, dtype=torch.long, device=x.device)
        return cls(ring, ring.clone(), x.new_zeros(lanes, history), head, x.new_ones(lanes))

    def push(self, y: Tensor, s: Tensor, wanted: Tensor) -> None:
        """Remember a pair in the lanes where it is wanted and has positive curvature."""
        curvature = (y * s).sum(1)
        keep = wanted & (curvature > 1e-10)
        lane, slot = keep.nonzero()[:, 0], self.head[keep]
        self.s[lane, slot], self.y[lane, slot] = s[keep], y[keep]
        self.rho[lane, slot] = 1 / curvature[keep]
        self.diagonal = torch.where(keep, curvature / y.square().sum(1), self.diagonal)
        self.head = torch.where(keep, (self.head + 1) % self.s.shape[1], self.head)
        self.filled = min(self.filled + 1, self.s.shape[1])

    def direction(self, gradient: Tensor) -> Tensor:
        """The two-loop recursion; an empty slot has rho 0 and changes nothing."""
        history = self.s.shape[1]
        every = torch.arange(len(gradient), device=gradient.device)
        slots = [(self.head - 1 - age) % history for age in range(self.filled)]
        q, alphas = -gradient, []
        for slot in slots:
            alpha = self.rho[every, slot] * (self.s[every, slot] * q).sum(1)
            q = q - alpha[:, None] * self.y[every, slot]
            alphas.append(alpha)
        r = q * self.diagonal[:, None]
        for slot, alpha in zip(reversed(slots), reversed(alphas), strict=True):
            beta = self.rho[every, slot] * (self.y[every, slot] * r).sum(1)
            r = r + (alpha - beta)[:, None] * self.s[every, slot]
        return r
