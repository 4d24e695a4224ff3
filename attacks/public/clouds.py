"""The kernel posterior: public images of one label as a cloud, in the principal directions of their releases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

DIRECTIONS = 400
"""Principal directions of a cloud of releases in which they are compared."""
MIDPOINTS = 10
"""Nearest members of a cloud half-way to which lies another one. On 500 held-out images of Fashion-MNIST (untrained
LeNet, `dp_sgd(noise_multiplier=0.1)`) none, 3, 10 and 30 gave an SSIM of .4845, .4920, .4946 and .4927; at two releases
.5408, .5451, .5465 and .5471. Images that were shifted or mirrored instead gave less, .463 and .468."""
_TOGETHER = 64
"""Releases whose weights are computed at once: of ten thousand images they take 100 MB."""
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
    of `covariances` (k p) with the pixels. `near` (n j) are the nearest members of each by their points: half-way
    between two near members lies another one, in pixels and, as releases are nearly linear over so short a way, in
    points.
    """

    middle: Tensor
    pixels: Tensor
    labels: Tensor
    points: Tensor
    variances: Tensor
    covariances: Tensor
    near: Tensor

    @classmethod
    def around(cls, pixels: Tensor, labels: Tensor, points: Tensor) -> Cloud:
        """The cloud of pixels (n p) in [0, 1] and centred points (n k)."""
        middle = pixels.mean(0)
        pixels = pixels - middle
        near = _nearest(points, min(MIDPOINTS, len(points) - 1)).to(points.device)
        return cls(middle, pixels, labels, points, points.square().mean(0), points.T @ pixels / len(pixels), near)

    def mean(self, at: Tensor, choice: Kernel) -> tuple[Tensor, Tensor]:
        """The posterior mean (q p) of the pixels at coordinates (q k), and the weights (q n) of the public images.

        A member half-way between two gives each of them half of its weight.
        """
        shrunk = math.sqrt(1 - choice.smoothing)
        own, points = choice.smoothing * self.variances, shrunk * self.points
        # Without noise an exact match still has a finite weight.
        total = own + choice.variance + 1e-12 * self.variances.sum()
        sizes = torch.cat([points[:, None], (points[:, None] + points[self.near]) / 2], 1).square() @ (1 / total)
        weights = torch.cat([self._weights(part, points, sizes) for part in (at / total).split(_TOGETHER)])
        found = self.middle + shrunk * weights @ self.pixels
        if choice.smoothing:
            found = found + (own / total * (at - weights @ points)) @ (self.covariances / self.variances[:, None])
        return found, weights

    def _weights(self, at: Tensor, points: Tensor, sizes: Tensor) -> Tensor:
        """The weights (q n) at coordinates over variances (q k), of points (n k) and squared lengths (n 1+j)."""
        along = at @ points.T
        half_way = (along[:, :, None] + along[:, self.near]) / 2
        members = (torch.cat([along[:, :, None], half_way], 2) - sizes / 2).flatten(1).softmax(1)
        members = members.unflatten(1, sizes.shape)
        half = members[:, :, 1:] / 2
        given = torch.zeros_like(along).index_add(1, self.near.flatten(), half.flatten(1))
        return members[:, :, 0] + half.sum(2) + given


def _nearest(points: Tensor, count: int) -> Tensor:
    """The numbers (n count) of the nearest other points of each of (n k)."""
    from sklearn.neighbors import NearestNeighbors

    # One coordinate more, of zeros: releases that are all the same have none.
    padded = torch.nn.functional.pad(points.cpu(), (0, 1)).numpy()
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(padded)
    return torch.from_numpy(search.kneighbors(return_distance=False))


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
    axes, own = principal_axes(base - centre, directions, float(centre.square().sum()))
    found = Directions(axes, centre, own.new_zeros(own.shape[1]))
    points = torch.cat([own, *(found.place(part) for part in releases(members[fitted:]))])
    middle = points.mean(0)
    return Cloud.around(pixels, labels, points - middle), Directions(found.axes, centre, middle)


def principal_axes(centred: Tensor, count: int, removed: float = 0.0) -> tuple[Tensor, Tensor]:
    """The first `count` principal directions (k m) of centred releases (n m), and their coordinates (n k), float64.

    Directions along which releases differ by rounding alone are left out; `removed` is the squared length of the centre
    that was taken from them.
    """
    variances, axes = torch.linalg.eigh((centred @ centred.T).double())
    variances, axes = variances.flip(0)[:count], axes.flip(1)[:, :count]
    # Below it an eigenvalue is rounding: of the largest one, or of releases that are all the same.
    rounding = 10 * torch.finfo(centred.dtype).eps
    told = variances > max(1e-30, rounding * float(variances[0]), rounding**2 * len(centred) * removed)
    axes, lengths = axes[:, told], variances[told].sqrt()
    return (axes / lengths).T.to(centred) @ centred, axes * lengths
