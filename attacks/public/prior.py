"""A Gaussian prior around an image, made of public images near it, and coordinates in which it is standard normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attacks.engine.lanes import Lanes

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

FEWEST = 20
"""Public images of a label from which a prior is made; a label with fewer gets the images of all."""
NEIGHBOURS = 200
"""Public images of the label, nearest to the image, that make mean and covariance of the prior."""
PART_OF_LABEL = 0.3
"""Part of the covariance that is that of all images of the label."""
PARTS_OF_ALL = (0.05, 0.5)
"""Parts of the covariance to choose from that are those of all images around their labels' means. A release that tells
little is completed best by images like the start, one that tells much by a prior that leaves everything open: SSIM of
40 held-out clients of Fashion-MNIST (untrained LeNet) undefended .933 and .937, under `gradient_pruning(ratio=0.99)`
.739 and .717."""
PIXEL_VARIANCE = 1e-3
"""Variance of every pixel beside the covariances."""
RANK = 200
"""Principal components of the label's images that are kept."""
LEAST_VARIANCE = 1e-3
"""Variance of the last principal component of all images that is kept: with 200 of the 950 that CIFAR-10's 3,072 pixels
have, answers to 12 held-out undefended clients reached 26.2 dB, with 600 28.5 and with 1,500 29.1."""
MOST_PIXELS = 4096
"""Numbers in an image up to which all components are computed, in 5 s of CPU for 3,072; of larger ones `MOST_RANK`."""
MOST_RANK = 500
"""Principal components that are kept of larger images."""


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Public images by label, from which the prior around any image is made.

    `images` and `roots` (p r), whose square is the covariance, by label; `common` (p r) of all images around the means
    of their labels, which makes a `part_of_all` of every covariance.
    """

    images: dict[int, Tensor]
    roots: dict[int, Tensor]
    common: Tensor
    part_of_all: float = PARTS_OF_ALL[0]

    @classmethod
    def of(cls, pixels: Tensor, labels: Tensor) -> Neighbourhoods:
        """The neighbourhoods of images (n p) in [0, 1] with labels (n,)."""
        images = {int(kind): pixels[(labels == kind).to(pixels.device)] for kind in labels.unique()}
        many = {kind: own for kind, own in images.items() if len(own) >= FEWEST}
        images = many or {-1: pixels}
        centred = {kind: own - own.mean(0) for kind, own in images.items()}
        roots = {kind: _root(own) for kind, own in centred.items()}
        return cls(images, roots, _whole_root(torch.cat(list(centred.values()))))

    def evidence(self, images: Tensor, labels: Tensor) -> Lanes:
        """The prior around each image (t b p) of a label (t b): mean (t b p), and roots (t b p k) and (t b p r).

        A label with too few public images gets those of all labels.
        """
        means: list[Tensor] = []
        roots: list[Tensor] = []
        own_roots: list[Tensor] = []
        for image, label in zip(images.flatten(0, 1), labels.flatten().tolist(), strict=True):
            pool = self.images.get(label)
            if pool is None:
                pool = torch.cat(list(self.images.values()))
            near = min(NEIGHBOURS, len(pool))
            nearest = pool[(pool - image).square().sum(1).topk(near, largest=False).indices]
            means.append(nearest.mean(0))
            roots.append((1 - PART_OF_LABEL - self.part_of_all) ** 0.5 * _square_root(nearest - nearest.mean(0)))
            own_roots.append(PART_OF_LABEL**0.5 * self.roots.get(label, self.common))
        lead = images.shape[:2]
        return {
            "mean": torch.stack(means).unflatten(0, lead),
            "near": _side_by_side(roots).unflatten(0, lead),
            "own": _side_by_side(own_roots).unflatten(0, lead),
        }

    def image(self, coordinates: Lanes, evidence: Lanes) -> Tensor:
        """Images (... p) of standard normal coordinates: "near" (... k), "own" and "common" (... r), "rest" (... p)."""
        along = lambda root, z: (root @ z[..., None])[..., 0]  # noqa: E731
        image = evidence["mean"] + along(evidence["near"], coordinates["near"])
        image = image + along(evidence["own"], coordinates["own"])
        image = image + self.part_of_all**0.5 * along(self.common, coordinates["common"])
        return image + PIXEL_VARIANCE**0.5 * coordinates["rest"]

    def coordinates(self, images: Tensor, evidence: Lanes) -> Lanes:
        """The most probable coordinates of images (t b p).

        With the roots side by side as B and the floor f they are B^T C^-1 (x - mean) and sqrt(f) C^-1 (x - mean) for
        C = B B^T + f.
        """
        common = (self.part_of_all**0.5 * self.common).double()
        places = zip(images, evidence["mean"], evidence["near"], evidence["own"], strict=True)
        parts = [_coordinates(image - mean, near, own, common) for image, mean, near, own in places]
        return {name: torch.stack([part[name] for part in parts]).to(images.dtype) for name in parts[0]}


def energy(coordinates: Lanes) -> Tensor:
    """The negative logarithm of the prior, in nats and up to a constant: half the coordinates' squares; a scalar."""
    return torch.stack([z.square().sum() for z in coordinates.values()]).sum() / 2


def _coordinates(offset: Tensor, near: Tensor, own: Tensor, common: Tensor) -> Lanes:
    """The coordinates, in float64, of one trial's images less their means (b p): all roots together would take GiBs.

    `near` (b p k) and `own` (b p r) are the image's own roots, and `common` (p r), in float64, that of all images.
    """
    near, own, offset = near.double(), own.double(), offset.double()[..., None]
    lengths = common.square().sum(0)[:, None]

    def without_own(vectors: Tensor) -> Tensor:
        # The inverse of the covariance without the image's own roots: the columns of the common one are orthogonal, so
        # that each direction has a factor of its own.
        return (vectors - common @ ((common.T @ vectors) / (lengths + PIXEL_VARIANCE))) / PIXEL_VARIANCE

    # C is inverted in the few columns of the image's own roots (Woodbury); by Cholesky, since on the CPU batches of LU
    # hang with two threads (PyTorch issue 141358).
    few = torch.cat([near, own], -1)
    apart, solved = without_own(few), without_own(offset)
    inner = few.mT @ apart + torch.eye(few.shape[-1], dtype=few.dtype, device=few.device)
    solved = solved - apart @ torch.cholesky_solve(few.mT @ solved, torch.linalg.cholesky(inner))
    found = {name: (root.mT @ solved)[..., 0] for name, root in (("near", near), ("own", own), ("common", common))}
    return found | {"rest": PIXEL_VARIANCE**0.5 * solved[..., 0]}


def _side_by_side(roots: list[Tensor]) -> Tensor:
    """Roots (n p k) of one size; further columns of the shorter ones are zero."""
    rank = max(root.shape[1] for root in roots)
    return torch.stack([torch.nn.functional.pad(root, (0, rank - root.shape[1])) for root in roots])


def _root(centred: Tensor, rank: int = RANK) -> Tensor:
    """The first principal components (p r) of centred images (n p), each as long as its standard deviation."""
    from sklearn.decomposition import PCA

    found = PCA(min(rank, *centred.shape), svd_solver="randomized", random_state=0)
    return _lengthened(found.fit(centred.cpu().double().numpy()), centred)


def _whole_root(centred: Tensor) -> Tensor:
    """The principal components (p r) of centred images (n p) that matter, each as long as its standard deviation."""
    from sklearn.decomposition import PCA

    if centred.shape[1] > MOST_PIXELS:
        return _root(centred, MOST_RANK)
    root = _lengthened(PCA(svd_solver="covariance_eigh").fit(centred.cpu().double().numpy()), centred)
    return root[:, root.square().sum(0) >= LEAST_VARIANCE]


def _lengthened(found: PCA, like: Tensor) -> Tensor:
    """The components (p r) that were found, each as long as its standard deviation."""
    components, variances = torch.from_numpy(found.components_), torch.from_numpy(found.explained_variance_)
    return (components.T * variances.sqrt()).to(like)


def _square_root(centred: Tensor) -> Tensor:
    """The principal components (p n) of few images (n p), each as long as its standard deviation; some are zero."""
    _, vectors = torch.linalg.eigh((centred @ centred.T).double())
    return centred.T @ vectors.flip(1).to(centred) / len(centred) ** 0.5
