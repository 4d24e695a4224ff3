"""L-BFGS over many lanes at once, each lane with its own history, curvature, line search and stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from attacks.engine.descent import LaneGradient, LaneObjective, log_spaced
from attacks.engine.execution import network_precision
from attacks.engine.lanes import Lanes, Step
from attacks.engine.line_search import LineSearch, StrongWolfe
from attacks.engine.solve import Descended, solve


@dataclass
class InverseHessian:
    """The last moves s and gradient changes y of every lane, in rings written at `head`.

    `pairs` (lanes, 2 history, n) holds s and y in turns. With R the upper triangle of s_i . y_j, pairs from old to
    new, `inverse` is R^-1 and `curvature` R's diagonal; `yy` are the y_i . y_j and `scale` the newest
    s . y / y . y, all in float64. Nothing is ever sorted by age: R^-1 without the oldest pair is the inverse of R
    without it, so a slot is simply overwritten, and zeros stand where there is no pair yet.
    """

    pairs: Tensor
    inverse: Tensor
    yy: Tensor
    curvature: Tensor
    scale: Tensor
    head: Tensor
    filled: int = 0

    @classmethod
    def bytes(cls, lane: Tensor, history: int) -> int:
        """The history of one lane, (1, n) each."""
        return 2 * history * lane.numel() * lane.element_size() + 2 * history * history * 8

    @classmethod
    def empty(cls, x: Tensor, history: int) -> InverseHessian:
        lanes, n = x.shape
        zeros = torch.zeros(lanes, history, history, dtype=torch.float64, device=x.device)
        head = torch.zeros(lanes, dtype=torch.long, device=x.device)
        pairs = x.new_zeros(lanes, 2 * history, n)
        return cls(pairs, zeros, zeros.clone(), zeros[:, 0].clone(), torch.ones_like(zeros[:, 0, 0]), head)

    def direction(self, gradient: Tensor, y: Tensor, s: Tensor, wanted: Tensor) -> Tensor:
        """Remember (s, y) in the lanes where it is wanted and curves upwards, and return -H gradient.

        The two loops of Nocedal & Wright, algorithm 7.4, are two triangular systems in the inner products: with D
        the diagonal of R, the first gives R a = -S g, and the second R^T c = D a + scale (Y g + Y Y^T a) with
        H g = -(scale (-g - Y^T a) + S^T c). The pairs are read twice, for all inner products and for the sum.
        """
        lanes, history = self.curvature.shape
        self.filled = h = min(self.filled + 1, history)
        ys = (y * s).sum(1)
        keep = wanted & (ys > 1e-10)
        _write(self.pairs.view(lanes, history, -1), self.head, torch.cat([s, y], 1), keep)
        products = torch.bmm(torch.stack([gradient, y], 1), self.pairs[:, : 2 * h].mT).double().view(lanes, 2, h, 2)
        (in_s, by_s), (in_y, by_y) = (products[..., i].unbind(1) for i in (0, 1))
        self._extend(by_s, by_y, ys.double(), keep)

        inverse, yy = self.inverse[:, :h, :h], self.yy[:, :h, :h]
        a = -_times(in_s, inverse.mT)
        c = _times(self.curvature[:, :h] * a + self.scale[:, None] * (in_y + _times(a, yy)), inverse)
        weights = torch.stack([c, -self.scale[:, None] * a], 2).to(gradient.dtype).view(lanes, 2 * h)
        return _times(weights, self.pairs[:, : 2 * h]) - self.scale[:, None].to(gradient.dtype) * gradient

    def _extend(self, by_s: Tensor, by_y: Tensor, ys: Tensor, keep: Tensor) -> None:
        """Let the newest pair take its place, in the lanes to keep; by_s and by_y are its y times all s and y."""
        history, slot = self.curvature.shape[1], self.head[:, None]
        inverse, yy = (matrix[:, : by_s.shape[1], : by_s.shape[1]] for matrix in (self.inverse, self.yy))
        # The pair that was here is the oldest: but for this row, its column is empty.
        _write(inverse, self.head, torch.zeros_like(by_s), keep)
        column = (-_times(by_s, inverse.mT)).scatter(1, slot, 1.0) / ys[:, None]
        _write(inverse.mT, self.head, column, keep)
        _write(yy, self.head, by_y, keep)
        _write(yy.mT, self.head, by_y, keep)
        _write(self.curvature[..., None], self.head, ys[:, None], keep)
        self.scale = torch.where(keep, ys / by_y.gather(1, slot)[:, 0], self.scale)
        self.head = torch.where(keep, (self.head + 1) % history, self.head)


def _times(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Each lane's row vector (lanes, h) times its matrix (lanes, h, n)."""
    return torch.bmm(vectors[:, None], matrices)[:, 0]


def _write(rows: Tensor, slot: Tensor, new: Tensor, keep: Tensor) -> None:
    """Put each lane's new row into its slot of `rows` (lanes, slots, ...), where it is to be kept."""
    at = torch.arange(len(rows), device=rows.device), slot
    rows[at] = torch.where(keep[:, None], new, rows[at])


@dataclass(frozen=True)
class LBFGS:
    """The settings of `torch.optim.LBFGS`, at its defaults.

    A lane stops for good when its largest gradient entry is at most `tolerance_gradient`, when its objective leaves the
    real numbers, or when no step can change anything any more.
    """

    outer_steps: int
    """Calls of step()."""
    learning_rate: float = 1.0
    inner_steps: int = 20
    """The most iterations of one call."""
    history: int = 100
    """Pairs of steps and changes of the gradient that make up the inverse Hessian."""
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
        """The most evaluations of an outer step, as torch counts: one at its start, checked between iterations."""
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
