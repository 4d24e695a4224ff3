"""The kernel posterior: public images of one label as a cloud, in the principal directions of their releases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DIRECTIONS = 400
"""Principal directions of a cloud of releases in which they are compared."""
FITTED = 1000
"""Releases by which the directions are found; finding them takes time that grows with the square."""


@dataclass(frozen=True)
class Kernel:
    """The `smoothing` of the prior, and the `variance` of the noise that is reckoned with."""

    smoothing: float
    variance: float


@dataclass(frozen=True, eq=False)
class Cloud:
    """Public images of one kind, and the coordinates of their releases in principal directions.

    `pixels` (n p), centred around `middle` (p,), and `labels` (n,); `points` (n k), centred, of `variances` (k,) and
    of `covariances` (k p) with the pixels.
    """

    middle: Tensor
    pixels: Tensor
    labels: Tensor
    points: Tensor
    variances: Tensor
    covariances: Tensor

    @classmethod
    def around(cls, pixels: Tensor, labels: Tensor, points: Tensor) -> Cloud:
        """The cloud of pixels (n p) in [0, 1] and centred points (n k)."""
        middle = pixels.mean(0)
        pixels = pixels - middle
        return cls(middle, pixels, labels, points, points.square().mean(0), points.T @ pixels / len(pixels))

    def mean(self, at: Tensor, choice: Kernel) -> tuple[Tensor, Tensor]:
        """The posterior mean (q p) of the pixels at coordinates (q k), and the weights (q n) of the public images."""
        shrunk = math.sqrt(1 - choice.smoothing)
        own, points = choice.smoothing * self.variances, shrunk * self.points
        # Without noise an exact match still has a finite weight.
        total = own + choice.variance + 1e-12 * self.variances.sum()
        weights = ((at / total) @ points.T - 0.5 * (points.square() / total).sum(1)).softmax(1)
        found = self.middle + shrunk * weights @ self.pixels
        if choice.smoothing:
            found = found + (own / total * (at - weights @ points)) @ (self.covariances / self.variances[:, None])
        return found, weights


@dataclass(frozen=True, eq=False)
class Directions:
    """Principal directions (k m) of releases around their `centre` (m,), and the centre of their coordinates (k,)."""

    axes: Tensor
    centre: Tensor
    middle: Tensor

    def place(self, releases: Tensor) -> Tensor:
        """The coordinates (q k) of releases (q m)."""
        return ((releases - self.centre) @ self.axes.T).double() - self.middle


def cloud_of(
    releases: Callable[[Tensor], Iterator[Tensor]],
    members: Tensor,
    pixels: Tensor,
    labels: Tensor,
    fitted: int,
    directions: int,
) -> tuple[Cloud, Directions]:
    """The cloud of some public images, and the directions of their releases.

    `releases(numbers)` gives the releases (n m) of images by their numbers, part by part; `members` are the numbers,
    of images with `pixels` (n p) in [0, 1] and `labels` (n,). By the first `fitted` the directions are found, and
    the first so many of them are kept.
    """
    base = torch.cat(list(releases(members[:fitted])))
    centre = base.mean(0)
    base = base - centre
    variances, axes = torch.linalg.eigh((base @ base.T).double())
    variances, axes = variances.flip(0)[:directions], axes.flip(1)[:, :directions]
    # Below it an eigenvalue is rounding: of the largest one, or of releases that are all the same.
    rounding = 10 * torch.finfo(base.dtype).eps
    told = variances > max(
        1e-30, rounding * float(variances[0]), rounding**2 * len(base) * float(centre.square().sum())
    )
    axes, lengths = axes[:, told], variances[told].sqrt()
    found = Directions((axes / lengths).T.to(base) @ base, centre, lengths.new_zeros(len(lengths)))
    points = torch.cat([axes * lengths, *(found.place(part) for part in releases(members[fitted:]))])
    middle = points.mean(0)
    return Cloud.around(pixels, labels, points - middle), Directions(found.axes, centre, middle)
