"""Which inputs stand behind the rows of a fully connected layer's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ROWS = 1024
"""Rows compared with each other, those with the largest bias gradients; memory and time grow with the square."""
SAME = 1e-3
"""Relative distance under which two rows' ratios are taken for the same image."""


def inputs_behind(weight: Tensor, bias: Tensor, images: int, rows: Tensor | None = None) -> Tensor:
    """Estimate the inputs (b d) from one layer's gradients: weight (out d), bias (out,).

    dW_i / db_i is the input itself in every row where one image is alone. For one image all rows agree and are
    weighted by db_i, the least-squares estimate under noise: sum_i db_i dW_i / sum_i db_i^2. For several, rows
    whose ratios agree belong to one image, since mixtures differ from row to row; the rest is filled with single
    rows, largest bias first, and then with the mean over all rows. `rows` (b,), when every row is a class, names
    the row that each image dominates: its label's. Rows with zero bias gradient are skipped.
    """
    if images == 1:
        return _weighted(weight, bias)[None]
    if rows is not None:
        usable = bias[rows] != 0
        ratios = weight[rows] / torch.where(usable, bias[rows], 1)[:, None]
        return torch.where(usable[:, None], ratios, _weighted(weight, bias))
    order = bias.abs().argsort(descending=True)[:MOST_ROWS]
    order = order[bias[order] != 0]
    if len(order) == 0:
        return weight.new_zeros(images, weight.shape[1])
    ratios = (weight[order] / bias[order, None]).double()  # differences of nearly equal rows need the digits
    squares = ratios.square().sum(1)
    distances = squares[:, None] + squares[None] - 2 * ratios @ ratios.T
    same = distances <= SAME**2 * torch.minimum(squares[:, None], squares[None])
    groups: list[Tensor] = []
    taken = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    for row in range(len(order)):
        if not taken[row]:
            members = same[row] & ~taken
            taken |= members
            groups.append(members.nonzero()[:, 0])
    # Python's sort is stable: groups of one size keep the order of their largest bias gradient.
    groups.sort(key=len, reverse=True)
    found = [_weighted(weight[order[g]], bias[order[g]]) for g in groups[:images]]
    found += [_weighted(weight, bias)] * (images - len(found))
    return torch.stack(found)


def _weighted(weight: Tensor, bias: Tensor) -> Tensor:
    # The largest entry is divided out first, so that squares of tiny gradients do not underflow.
    bias_share = bias / bias.abs().max().clamp_min(torch.finfo(bias.dtype).tiny)
    power = (bias * bias_share).sum()
    return (bias_share @ weight) / torch.where(power > 0, power, 1)
