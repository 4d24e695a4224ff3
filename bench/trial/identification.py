"""Identification: a private image is picked out of a pool by its reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

TIE = 1e-9
"""Squared distances of unit images that differ by no more are a tie: rounding may change their last digits."""


def identification(guess: Tensor, truth: Tensor, pool: Tensor) -> Tensor:
    """True for each private image that is strictly the nearest to its reconstruction: bool (n,).

    `guess` and `truth` are uint8 (n c h w); `pool` (m c h w) holds the other candidates, the same for all n
    images. Images are centred and scaled to unit norm, so that brightness and contrast do not count; one
    without contrast becomes zero. Ties fail, and so does a private image with a copy in the pool.
    """
    if len(pool) == 0:
        return torch.ones(len(guess), dtype=torch.bool, device=guess.device)
    return _nearest(_distances(guess, truth, paired=True), _distances(guess, pool).amin(1))


def identify_in_pool(guess: Tensor, truth: Tensor, pool: Tensor, own: Tensor) -> Tensor:
    """The same in a fixed pool of m images: `own` (n,) is each private image's position in it, -1 when it is not there.

    The candidates are the private image and m - 1 others: one that is not in the pool takes the place of the last, so
    that all images have the same chance, 1/m.
    """
    others = _distances(guess, pool)
    others[torch.arange(len(guess)), own] = torch.inf
    return _nearest(_distances(guess, truth, paired=True), others.amin(1))


def _nearest(own: Tensor, others: Tensor) -> Tensor:
    # Rounding must not break a tie: equal candidates may differ in the last digits.
    return own < others - TIE


def _distances(guess: Tensor, candidates: Tensor, paired: bool = False) -> Tensor:
    """Squared distances (n m) of normalised images; (n,) row by row if `paired`."""
    g, c = _unit(guess), _unit(candidates)
    # A unit image and a zero one are at distance 1 exactly, whatever the rounding.
    norms = [x.any(1).double() for x in (g, c)]
    if paired:
        return norms[0] + norms[1] - 2 * (g * c).sum(1)
    return norms[0][:, None] + norms[1][None] - 2 * g @ c.T


def _unit(images: Tensor) -> Tensor:
    """Rows of unit norm from uint8 images; the integers keep the mean of a constant image exact."""
    flat = images.flatten(1).double()
    centred = flat - flat.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-6, centred / norm.clamp(min=1e-6), 0.0)
