"""The posterior mean of an image given a release, learned from public clients and tried on held-out ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacks.observation import Observation
from attacks.public.clients import CHOSEN_ON, MOST_ENTRIES, PublicClients, attacked_parts
from attacks.public.clouds import DIRECTIONS, FITTED, Cloud, Directions, Kernel, cloud_of

SMOOTHINGS = (0.0, 0.2, 0.4, 0.7, 0.9, 1.0)
"""Parts of the public images' covariance that lie around each of them; 1 is the linear estimate, ridge regression. SSIM
of 200 held-out public images of Fashion-MNIST, untrained LeNet, at 0 and .7: `dp_sgd(noise_multiplier=0.01)` .586 and
.710, at .1 .476 and .459."""
TEMPERATURES = (1.0, 2.0, 4.0, 16.0, 64.0)
"""Factors of the variance of noise that the surrogate states: what the linear model leaves over counts as noise."""
SPREADS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0)
"""Variances where no noise is stated, in squared distances from a held-out release to the nearest public one."""
DEAF = 1e12
"""Factor of the largest variance at which the release says nothing and the answer is the mean of the label: the best
answer where a surrogate's word for the release is wrong."""
_WINDOW = 11
"""Pixels of a side of the window of SSIM."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Clouds of public images by label, and the kernel by which held-out images are answered best.

    Nothing of an attacked release is in it.
    """

    clouds: dict[int | None, tuple[Cloud, Directions]]
    """By label; None is the cloud of all, for labels that are not known or have too few public images."""
    kernel: Kernel
    """The best smoothing and variance of those tried."""
    view: Callable[[Tensor], Tensor]
    """The function of parts of releases by which they are compared."""
    held: Tensor
    """Held-out images, float64 (q p) in [0, 1]."""
    found: Tensor
    """Their posterior means, (q p)."""
    shape: tuple[int, ...]
    """(c h w) of an image."""

    @property
    def score(self) -> float:
        """The mean likeness of the held-out images' posterior means."""
        return float(likeness(self.found, self.held, self.shape).mean())

    @property
    def choices(self) -> dict[str, float]:
        """The figures that were chosen on held-out images, and the score that they got there."""
        return {"smoothing": self.kernel.smoothing, "variance": self.kernel.variance, "held_out_score": self.score}

    def answer(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Images (t b c h w) in [0, 1], and believed labels (t b), of the attacked releases."""
        parts, labels = attacked_parts(observation)
        given = None if labels is None else labels.flatten()
        placed = _placed(self.clouds, self.view(parts.flatten(0, 1)), given)
        images, believed = _means(self.clouds, placed, self.kernel)
        images = images.view(*parts.shape[:2], *self.shape).to(parts.dtype)
        return images, believed.view(parts.shape[:2]) if labels is None else labels


class Comparable(Protocol):
    """Releases of public clients in the form in which they are compared with an attacked one."""

    @property
    def clients(self) -> PublicClients:
        """The clients."""
        ...

    @property
    def noise(self) -> float:
        """The variance of the noise that `parts` leaves out of every number; 0 where none is known."""
        ...

    @property
    def size(self) -> int:
        """Numbers in the view of an image's part."""
        ...

    @property
    def view(self) -> Callable[[Tensor], Tensor]:
        """The function of parts (n m) of an attacked release by which it is compared."""
        ...

    def parts(self, numbers: Tensor) -> Iterator[Tensor]:
        """The views (n m) of clients of these images, some at a time."""
        ...

    def held(self, numbers: Tensor) -> Tensor:
        """The views (n m) of clients of these images with the noise of a release."""
        ...


def learned_posterior(releases: Comparable, classes: int, labels_known: bool, count: int) -> Posterior:
    """The posterior that public releases teach; by the first `count` images, in no cloud, its kernel is chosen.

    Without known labels the images of all `classes` are one cloud.
    """
    clients, size = releases.clients, releases.size
    labels, numbers = clients.labels, torch.arange(len(clients))
    tried, rest = numbers.split([count, len(clients) - count])
    held = releases.held(tried)
    clouds: dict[int | None, tuple[Cloud, Directions]] = {}

    def add(kind: int | None, members: Tensor, kinds: int) -> None:
        fitted = max(2, min(FITTED, MOST_ENTRIES // size))
        directions = max(2, min(DIRECTIONS, MOST_ENTRIES // (size * kinds)))
        pixels = clients.pixels(members)
        clouds[kind] = cloud_of(releases.parts, members, pixels, labels[members].to(pixels.device), fitted, directions)

    for kind in range(classes if labels_known else 0):
        members = rest[labels[rest] == kind]
        if len(members) > 1:
            add(kind, members, classes)
    if len(clouds) < classes:
        add(None, rest, 1)
    placed = _placed(clouds, held, labels[tried] if labels_known else None)
    truth, shape = clients.pixels(tried), tuple(clients.images.shape[1:])
    variances = _variances(releases.noise, clouds, placed)
    kernels = [*itertools.starmap(Kernel, itertools.product(SMOOTHINGS, variances)), Kernel(0.0, DEAF * max(variances))]
    answers = [(_means(clouds, placed, kernel)[0], kernel) for kernel in kernels]
    # Of equal scores the first is taken: less smoothing, then less noise.
    found, best = max(answers, key=lambda own: float(likeness(own[0], truth, shape).mean()))
    return Posterior(clouds, best, releases.view, truth, found, shape)


def held_out(clients: PublicClients, size: int) -> int:
    """The number of images on which choices are made, of clients whose parts have so many numbers."""
    count = min(CHOSEN_ON, len(clients) // 4, max(1, MOST_ENTRIES // size))
    return max(1, count // clients.behind) * clients.behind


def likeness(found: Tensor, truth: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The structural similarity (q,) of images (q p) of a shape (c h w) in [0, 1], borders of half a window left out.

    Minus the mean squared error of images too small for it.
    """
    # Half the time of float64, and choices need no more digits.
    found, truth = (images.float().view(-1, *shape) for images in (found, truth))
    if min(shape[-2:]) < _WINDOW:
        return -(found - truth).square().flatten(1).mean(1)
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(
        found, truth, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    edge = _WINDOW // 2
    return similarity[1][..., edge:-edge, edge:-edge].flatten(1).mean(1)


_Places = list[tuple[int | None, Tensor, Tensor]]
"""Cloud by cloud: its key, the numbers (q,) of the releases that lie in it, and their coordinates (q k)."""


def _placed(clouds: dict[int | None, tuple[Cloud, Directions]], parts: Tensor, labels: Tensor | None) -> _Places:
    """The coordinates of releases in the clouds of their labels; a label without one has that of all images."""
    if labels is None:
        keys: list[int | None] = [None] * len(parts)
    else:
        keys = [int(label) if int(label) in clouds else None for label in labels]
    found: _Places = []
    for key in dict.fromkeys(keys):
        own = torch.tensor([i for i, other in enumerate(keys) if other == key])
        found.append((key, own, clouds[key][1].place(parts[own.to(parts.device)])))
    return found


def _means(
    clouds: dict[int | None, tuple[Cloud, Directions]], placed: _Places, kernel: Kernel
) -> tuple[Tensor, Tensor]:
    """Images (q p) in [0, 1] and believed labels (q,) of releases with these places."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for key, _, at in placed:
        cloud = clouds[key][0]
        means, weights = cloud.mean(at, kernel)
        kinds = cloud.labels.unique()
        each = torch.stack([weights[:, cloud.labels == kind].sum(1) for kind in kinds], 1)
        images.append(means.clamp(0, 1))
        labels.append(kinds[each.argmax(1)])
    back = torch.cat([own for _, own, _ in placed]).argsort().to(images[0].device)
    return torch.cat(images)[back], torch.cat(labels)[back]


def _variances(noise: float, clouds: dict[int | None, tuple[Cloud, Directions]], placed: _Places) -> list[float]:
    """The variances to choose from: of the stated noise, or of the distance to the nearest public release."""
    if noise:
        return [factor * noise for factor in TEMPERATURES]
    nearest = [torch.cdist(at, clouds[key][0].points).square().amin(1) for key, _, at in placed]
    return [factor * float(torch.cat(nearest).median()) for factor in SPREADS]
