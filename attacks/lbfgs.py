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
        moved = direction * step_size[:, None]
        newton = memory.direction(gradient, gradient - previous_gradient, moved, ~first & ~finished)
        direction = torch.where(first[:, None], -gradient, newton)
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
    """The last moves s and gradient changes y of every lane (lanes, history, n), in rings written at `head`.

    `sy` and `yy` (lanes, history, history) hold their inner products s_i . y_j and y_i . y_j in float64, so that one
    iteration reads the rings twice instead of twice per remembered pair.
    """

    s: Tensor
    y: Tensor
    sy: Tensor
    yy: Tensor
    head: Tensor
    count: Tensor
    filled: int = 0

    @classmethod
    def empty(cls, x: Tensor, history: int) -> _Memory:
        lanes, n = x.shape
        ring = x.new_zeros(lanes, history, n)
        products = torch.zeros(lanes, history, history, dtype=torch.float64, device=x.device)
        none = torch.zeros(lanes, dtype=torch.long, device=x.device)
        return cls(ring, ring.clone(), products, products.clone(), none, none.clone())

    def direction(self, gradient: Tensor, y: Tensor, s: Tensor, wanted: Tensor) -> Tensor:
        """Remember (s, y) in the lanes where it is wanted and curves upwards, and return -H gradient.

        The two loops of Nocedal & Wright, algorithm 7.4, are two triangular systems in the inner products: with pairs
        from old to new, R = upper triangle of s_i . y_j and D its diagonal, the first gives R a = -S g, and the second
        R^T c = D a + scale (Y g + Y Y^T a) with H g = -(scale (-g - Y^T a) + S^T c).
        """
        self._push(y, s, wanted)
        h = self.filled
        in_s, in_y = (torch.einsum("lhn,ln->lh", ring[:, :h], gradient).double() for ring in (self.s, self.y))
        age = torch.arange(h, device=gradient.device)
        order = (self.head[:, None] - h + age) % self.s.shape[1] % h  # slots from old to new
        valid = age >= h - self.count[:, None]
        sy, yy = (self._ordered(products, order, valid) for products in (self.sy, self.yy))
        diagonal = torch.where(valid, sy.diagonal(dim1=1, dim2=2), 1)
        upper = sy.triu(1) + torch.diag_embed(diagonal)
        newest = torch.where(valid[:, -1:], diagonal[:, -1:] / yy[:, -1:, -1], 1)
        scale = torch.where(torch.isfinite(newest), newest, 1)
        in_s, in_y = (torch.where(valid, v.gather(1, order), 0)[..., None] for v in (in_s, in_y))
        a = torch.linalg.solve_triangular(upper, -in_s, upper=True)
        right = diagonal[..., None] * a + scale[..., None] * (in_y + yy @ a)
        c = torch.linalg.solve_triangular(upper.mT, right, upper=False)
        weights_y = (
            torch.zeros_like(in_s[..., 0]).scatter_add_(1, order, -(scale[..., None] * a)[..., 0]).to(gradient.dtype)
        )
        weights_s = torch.zeros_like(in_s[..., 0]).scatter_add_(1, order, c[..., 0]).to(gradient.dtype)
        moved = torch.einsum("lh,lhn->ln", weights_y, self.y[:, :h]) + torch.einsum(
            "lh,lhn->ln", weights_s, self.s[:, :h]
        )
        return moved - scale.to(gradient.dtype) * gradient

    def _push(self, y: Tensor, s: Tensor, wanted: Tensor) -> None:
        keep = wanted & ((y * s).sum(1) > 1e-10)
        history = self.s.shape[1]
        self.filled = min(self.filled + 1, history)
        lane, slot = keep.nonzero()[:, 0], self.head[keep]
        self.s[lane, slot], self.y[lane, slot] = s[keep], y[keep]
        by_s, by_y = (torch.einsum("lhn,ln->lh", self.y, v).double() for v in (s, y))
        s_by_y = torch.einsum("lhn,ln->lh", self.s, y).double()
        self.sy[lane, slot], self.yy[lane, slot] = by_s[keep], by_y[keep]
        self.sy[lane, :, slot], self.yy[lane, :, slot] = s_by_y[keep], by_y[keep]
        self.head = torch.where(keep, (self.head + 1) % history, self.head)
        self.count = torch.where(keep, (self.count + 1).clamp(max=history), self.count)

    def _ordered(self, products: Tensor, order: Tensor, valid: Tensor) -> Tensor:
        """Products of the pairs from old to new (lanes, h, h), zero where there is no pair yet."""
        h = order.shape[1]
        rows = products[:, :h, :h].gather(1, order[:, :, None].expand(-1, -1, h))
        both = rows.gather(2, order[:, None, :].expand(-1, h, -1))
        return torch.where(valid[:, :, None] & valid[:, None, :], both, 0)
