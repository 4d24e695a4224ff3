"""A Gaussian prior around an image, made of public images near it, and coordinates in which it is standard normal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.engine.lanes import Lanes

FEWEST = 20
"""Public images of a label from which a prior is made; a label with fewer gets the images of all."""
NEIGHBOURS = 200
"""Public images of the label, nearest to the image, that make mean and covariance of the prior."""
PART_OF_LABEL, PART_OF_ALL = 0.3, 0.05
"""Parts of the covariance that are those of all images of the label, and of all images around their labels' means."""
PIXEL_VARIANCE = 1e-3
"""Variance of every pixel beside the covariances."""
RANK = 200
"""Principal components of the label's and of all images that are kept; of small images the rest is below the floor."""


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Public images by label, from which the prior around any image is made.

    `images` and `roots` (p r), whose square is the covariance, by label; `common` (p r) of all images around the means
    of their labels.
    """

    images: dict[int, Tensor]
    roots: dict[int, Tensor]
    common: Tensor

    @classmethod
    def of(cls, pixels: Tensor, labels: Tensor) -> Neighbourhoods:
        """The neighbourhoods of images (n p) in [0, 1] with labels (n,)."""
        images = {int(kind): pixels[(labels == kind).to(pixels.device)] for kind in labels.unique()}
        many = {kind: own for kind, own in images.items() if len(own) >= FEWEST}
        images = many or {-1: pixels}
        centred = {kind: own - own.mean(0) for kind, own in images.items()}
        roots = {kind: _root(own) for kind, own in centred.items()}
        return cls(images, roots, _root(torch.cat(list(centred.values()))))

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
            roots.append((1 - PART_OF_LABEL - PART_OF_ALL) ** 0.5 * _square_root(nearest - nearest.mean(0)))
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
        image = image + PART_OF_ALL**0.5 * along(self.common, coordinates["common"])
        return image + PIXEL_VARIANCE**0.5 * coordinates["rest"]

    def coordinates(self, images: Tensor, evidence: Lanes) -> Lanes:
        """The most probable coordinates of images (t b p).

        With the roots side by side as B and the floor f they are B^T C^-1 (x - mean) and sqrt(f) C^-1 (x - mean) for
        C = B B^T + f; C is inverted in the columns of B (Woodbury), of which there are fewer than pixels.
        """
        common = (PART_OF_ALL**0.5 * self.common).expand(*images.shape[:-1], *self.common.shape)
        parts = {"near": evidence["near"], "own": evidence["own"], "common": common}
        root = torch.cat(list(parts.values()), -1).double()
        offset = (images - evidence["mean"]).double()[..., None]
        inner = root.mT @ root + PIXEL_VARIANCE * torch.eye(root.shape[-1], dtype=torch.float64, device=images.device)
        # By Cholesky: on the CPU batches of LU hang with two threads (PyTorch issue 141358).
        within = torch.cholesky_solve(root.mT @ offset, torch.linalg.cholesky(inner))
        solved = (offset - root @ within) / PIXEL_VARIANCE
        found = dict(
            zip(parts, (root.mT @ solved)[..., 0].split([p.shape[-1] for p in parts.values()], -1), strict=True)
        )
        found["rest"] = PIXEL_VARIANCE**0.5 * solved[..., 0]
        return {name: z.to(images.dtype) for name, z in found.items()}


def energy(coordinates: Lanes) -> Tensor:
    """The negative logarithm of the prior, in nats and up to a constant: half the coordinates' squares; a scalar."""
    return torch.stack([z.square().sum() for z in coordinates.values()]).sum() / 2


def _side_by_side(roots: list[Tensor]) -> Tensor:
    """Roots (n p k) of one size; further columns of the shorter ones are zero."""
    rank = max(root.shape[1] for root in roots)
    return torch.stack([torch.nn.functional.pad(root, (0, rank - root.shape[1])) for root in roots])


def _root(centred: Tensor) -> Tensor:
    """The principal components (p r) of centred images (n p), each as long as its standard deviation."""
    from sklearn.decomposition import PCA

    rank = min(RANK, *centred.shape)
    found = PCA(rank, svd_solver="randomized", random_state=0).fit(centred.cpu().double().numpy())
    components, variances = torch.from_numpy(found.components_), torch.from_numpy(found.explained_variance_)
    return (components.T * variances.sqrt()).to(centred)


def _square_root(centred: Tensor) -> Tensor:
    """The principal components (p n) of few images (n p), each as long as its standard deviation; some are zero."""
    _, vectors = torch.linalg.eigh((centred @ centred.T).double())
    return centred.T @ vectors.flip(1).to(centred) / len(centred) ** 0.5
