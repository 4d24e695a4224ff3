"""What L-BFGS knows of the curvature around it: the moves and gradient changes of the past, for many lanes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        """Of the history of one lane (1, n)."""
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
