"""L-BFGS over many lanes at once, each lane with its own history, line search and stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from attacks.descent import LaneGradient, LaneObjective, log_spaced
from attacks.engine import Descended, solve
from attacks.execution import network_precision
from attacks.inverse_hessian import InverseHessian
from attacks.lanes import Lanes, Step
from attacks.line_search import LineSearch, StrongWolfe


@dataclass(frozen=True)
class LBFGS:
    """The settings of `torch.optim.LBFGS`, at its defaults.

    `outer_steps` calls of step(), each of up to `inner_steps` iterations; a lane stops for good when its largest
    gradient entry is at most `tolerance_gradient`, when its objective leaves the real numbers, or when no step can
    change anything any more.
    """

    outer_steps: int
    learning_rate: float = 1.0
    inner_steps: int = 20
    history: int = 100
    tolerance_gradient: float = 1e-7
    tolerance_change: float = 1e-9
    line_search: LineSearch = "none"

    def __post_init__(self) -> None:
        if self.outer_steps < 1:
            raise ValueError(f"iterations must be at least 1, got {self.outer_steps}")
        if self.history < 1:
            raise ValueError(f"history must be at least 1, got {self.history}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")
        if self.line_search not in get_args(LineSearch):
            raise ValueError(f"line_search must be one of {get_args(LineSearch)}, got {self.line_search!r}")

    @property
    def evaluations(self) -> int:
        """How many an outer step may make, as torch counts: with one at its start, and checked between iterations."""
        return self.inner_steps * 5 // 4

    @property
    def ticks(self) -> int:
        """Evaluations at most: all but the first of an outer step belong to its iterations."""
        return 1 + self.outer_steps * (self.inner_steps if self.line_search == "none" else self.evaluations)


def minimise(
    objective: LaneObjective,
    start: Lanes,
    evidence: Lanes,
    settings: LBFGS,
    gradients: dict[str, LaneGradient] | None = None,
) -> Descended:
    """Minimise the objective of every lane; returns each lane's best point (Nocedal & Wright, algorithm 7.5).

    Lane by lane the points are those of torch.optim.LBFGS. An outer step that torch starts where the last one ended
    evaluates that point again there; here its value is used again, so fewer evaluations are made. One evaluation of
    all lanes is a tick, the trace's unit. `gradients` are as in `descend`.
    """
    shapes = {name: v.shape[1:] for name, v in start.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def step_of(gradient: LaneGradient) -> Callable[[Tensor, Lanes], tuple[Tensor, Tensor]]:
        def flat(point: Tensor, evidence: Lanes) -> tuple[Tensor, Tensor]:
            parts = zip(shapes.items(), point.split(sizes), strict=True)
            found, value = gradient({name: part.view(shape) for (name, shape), part in parts}, evidence)
            return torch.cat([found[name].flatten() for name in shapes]), value

        return vmap(flat)

    def flattened(start: Lanes) -> Tensor:
        return torch.cat([v.flatten(1) for v in start.values()], dim=1)

    def loop(step: Callable[..., Any], start: Lanes, evidence: Lanes, tell: Callable[[int], None]) -> Descended:
        best, value, trace = _lanes_minimised(step, flattened(start), evidence, tell, settings)
        parts = zip(shapes.items(), best.split(sizes, dim=1), strict=True)
        return Descended({name: p.view(-1, *shape) for (name, shape), p in parts}, value, trace[0], trace)

    forms = gradients or {"double_backward": grad_and_value(objective)}
    step = Step(
        {name: step_of(gradient) for name, gradient in forms.items()},
        lambda start, evidence: (flattened(start), evidence),
        1,
        settings.ticks,
        state_bytes=InverseHessian.bytes(flattened(start)[:1], settings.history),
        precision=network_precision(gradients is not None),
    )
    return solve(step, loop, start, evidence)


def _lanes_minimised(
    evaluate: Callable[..., Any], x: Tensor, evidence: Lanes, tell: Callable[[int], None], settings: LBFGS
) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
    """The best points (lanes, n), their values (lanes,) and the trace."""
    searches, ticks = settings.line_search == "strong_wolfe", settings.ticks
    watched = log_spaced(ticks)
    trace: dict[int, Tensor] = {}
    memory, search, lanes = InverseHessian.empty(x, settings.history), StrongWolfe.over(x), len(x)
    point, direction, previous_gradient = x, torch.zeros_like(x), torch.zeros_like(x)
    step, previous_value = x.new_zeros(lanes), x.new_zeros(lanes)
    outer = torch.zeros(lanes, dtype=torch.long, device=x.device)
    inner, evaluations, finished = outer, outer, outer.bool()  # the first two of the current outer step
    best_x, best_value = x, torch.full_like(step, float("inf"))

    for tick in range(ticks):
        gradient, value = (found.clone() for found in evaluate(point, evidence))  # A replay writes over them.
        better = value < best_value  # false for undefined values: they can never be kept
        best_value, best_x = torch.where(better, value, best_value), torch.where(better[:, None], point, best_x)
        if tick in watched:
            trace[tick] = value
        evaluations, turning = evaluations + 1, ~finished
        if searches:
            trial = torch.stack([step, value, (gradient * direction).sum(1)], 1)
            search, arrived, step = search.advanced(trial, gradient, settings.tolerance_change)
            turning, value, gradient = turning & arrived, search.accepted[:, 1], search.low_gradient
        move = direction * step[:, None]
        x = torch.where(turning[:, None], x + move, x)

        small = move.abs().amax(1) <= settings.tolerance_change
        small = small | ((value - previous_value).abs() < settings.tolerance_change)
        full = (inner == settings.inner_steps) | (evaluations >= settings.evaluations)
        over = turning & (inner > 0) & (small | full)
        outer, inner = outer + over, torch.where(over, 0, inner)
        evaluations = torch.where(over, 1, evaluations)
        stops = (gradient.abs().amax(1) <= settings.tolerance_gradient) | ~torch.isfinite(value)
        finished = finished | (turning & (stops | (outer == settings.outer_steps)))

        turning = turning & ~finished
        if tick == 0:
            downhill, size = -gradient, (1 / gradient.abs().sum(1)).clamp(max=1.0) * settings.learning_rate
        else:
            downhill = memory.direction(gradient, gradient - previous_gradient, move, turning)
            size = torch.full_like(step, settings.learning_rate)
        slope = (gradient * downhill).sum(1)
        # No descent left: torch ends the outer step here, and every later one at once.
        finished = finished | (turning & (slope > -settings.tolerance_change))
        turning = turning & ~finished
        step, previous_value = torch.where(turning, size, step), torch.where(turning, value, previous_value)
        direction = torch.where(turning[:, None], downhill, direction)
        previous_gradient = torch.where(turning[:, None], gradient, previous_gradient)
        inner = inner + turning
        if searches:
            begin = torch.stack([torch.zeros_like(value), value, slope], 1)
            left = settings.evaluations - evaluations
            search = search.begun(turning, begin, gradient, left, downhill.abs().amax(1))
        point = torch.where(finished[:, None], x, x + direction * step[:, None])
        tell(tick + 1)
        if tick % 10 == 9 and bool(finished.all()):
            trace |= dict.fromkeys((i for i in watched if i > tick), value)  # Nothing moves any more.
            break
    trace[ticks] = best_value
    return best_x, best_value, trace
