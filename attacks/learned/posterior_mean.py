"""The mean of public images, each weighed by the likelihood of the release: no optimiser, and no simulated descent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.matching.simulation import simulated_update
from attacks.observation import Observation, PublicImages, gradient_scale
from defenses.task import Task

Predict = Callable[[Tensor, Tensor], Tensor]
"""The releases (n coordinates), before noise, of clients of one image each: uint8 (n c h w), with labels (n,)."""

SMOOTHINGS = (0.0, 0.2, 0.4, 0.7, 0.9)
"""Parts of the public images' covariance that lie around each of them. SSIM of 200 held-out public images of
Fashion-MNIST, untrained LeNet, at 0 and .7: `dp_sgd(noise_multiplier=0.01)` .586 and .710, at .1 .476 and .459."""
TEMPERATURES = (1.0, 2.0, 4.0, 16.0, 64.0)
"""Factors of the variance of noise that the surrogate states: what the linear model leaves over counts as noise."""
SPREADS = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3)
"""Variances where no noise is stated, in squared distances from a held-out release to the nearest public one."""
DIRECTIONS = 400
"""Principal directions of a cloud of releases in which they are compared."""
FITTED = 1000
"""Releases by which the directions are found; finding them takes time that grows with the square."""
MOST_ENTRIES = 2**28
"""Numbers in the releases that are held at once, 1 GiB of them: with larger networks fewer are held."""
CHUNK_ENTRIES = 2**26
"""Numbers in the releases that are computed at once."""


@dataclass(frozen=True)
class PosteriorMean(Attack):
    """Average public images with the likelihood of the release under each as their weight.

    A client of one image x sends r = g(x) + noise, with g as the surrogate says. The posterior mean has the least
    expected squared error of all answers (Kay, "Estimation Theory", 1993, section 11.4); a prior of public records is
    that of Balle et al., "Reconstructing Training Data with Informed Adversaries", IEEE S&P 2022. Here the prior is a
    kernel estimate around the n public images x_i of the label, of mean m: x = m + sqrt(1 - s) (x_i - m) + sqrt(s) e,
    where e has their covariance, so that mean and covariance are those of the images at every smoothing s (Silverman,
    "Density Estimation", 1986, section 6.4). With a_i and b the coordinates of g(x_i) and r in the principal directions
    of the g(x_i), centred, l their variances, c their covariances with the pixels, and v the variance of the noise,

        w_i ~ exp(-sum_k (b_k - sqrt(1 - s) a_ik)^2 / (2 t_k)),    t_k = v + s l_k,
        answer = m + sum_i w_i (sqrt(1 - s) (x_i - m) + sum_k (s c_k / t_k) (b_k - sqrt(1 - s) a_ik)).

    s = 0 is the weighted mean alone, s = 1 the linear estimate of a Gaussian prior. v is the variance that the
    surrogate states, times a temperature; where it states none, a part of the squared distance from held-out public
    releases to their nearest neighbours. So many public images are `held_out` of the mean: their own simulated
    releases choose smoothing and temperature by SSIM (by squared error where a side is under 11 pixels). Where labels
    are not known, the public images of all labels are one cloud, and the label with the largest weight is the answer.
    """

    simulates = True
    needs_public: ClassVar[bool] = True

    held_out: int = 200

    def __post_init__(self) -> None:
        if self.held_out < 1:
            raise ValueError(f"held_out must be at least 1, got {self.held_out}; by them the temperature is chosen")

    def check(self, task: Task, labels: str) -> None:
        if task.schedule.images != 1:
            raise UnsupportedPair(
                f"posterior_mean attacks clients of one image, and here {task.schedule.images} are behind each update"
            )

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        return Posterior.of(observation, self.held_out).answer()


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
class Posterior:
    """Clouds of public images, and coordinates of the releases in them: those of `held` images, then the attacked.

    `groups` are, for every cloud, the places (q,) of the releases that lie in it, and their coordinates (q k).
    """

    clouds: list[Cloud]
    groups: list[tuple[Tensor, Tensor]]
    held: Tensor
    trials: int
    labels: Tensor | None
    noise: float
    """The variance that the surrogate states; 0 where it states none."""
    dtype: torch.dtype

    @classmethod
    def of(cls, observation: Observation, held_out: int) -> Posterior:
        """The posterior of an observation; raises `UnsupportedPair` where it lacks what is needed."""
        public = _granted(observation)
        predict, noise = _client(observation)
        coordinates = sum(p.numel() for p in observation.params.values())
        # The order is the attack's own: neither the attacked images nor their number have a say.
        order = torch.randperm(len(public.labels), generator=Generator().manual_seed(0))
        count = min(held_out, len(order) // 2, max(1, MOST_ENTRIES // coordinates))
        images, labels = public.images[order], public.labels[order]
        held = images[:count].to(observation.device)
        chunk = max(1, min(512, CHUNK_ENTRIES // coordinates))
        predicted = partial(_predicted, predict, chunk)
        own = torch.cat(list(predicted(held, labels[:count])))
        own = own + noise**0.5 * torch.randn(own.shape, generator=Generator().manual_seed(1), dtype=own.dtype).to(own)
        scale = gradient_scale(observation)[:, None]
        seen = torch.cat([own, torch.cat([u.flatten(1) for u in observation.updates.values()], 1) / scale])
        given = observation.labels
        kinds = None if given is None else torch.cat([labels[:count], given[:, 0].cpu()])
        clouds: list[Cloud] = []
        groups: list[tuple[Tensor, Tensor]] = []
        for places, members in _by_label(kinds, len(seen), labels, count):
            found, project = _cloud(predicted, images[members].to(observation.device), labels[members], coordinates)
            clouds.append(found)
            groups.append((places, project(seen[places])))
        return cls(clouds, groups, held, observation.trials, given, noise, own.dtype)

    def choice(self) -> Kernel:
        """The smoothing and variance by which the held-out images are found best."""
        from_their_own = self.noise or self._spread()
        factors = TEMPERATURES if self.noise else SPREADS
        choices = [Kernel(s, factor * from_their_own) for s, factor in itertools.product(SMOOTHINGS, factors)]
        truth, held = self.held.double() / 255, range(len(self.held))
        # Of equal scores the first is taken: less smoothing, then less noise.
        return max(choices, key=lambda choice: float(_likeness(self._means(choice, held)[0], truth)))

    def answer(self) -> Reconstruction:
        """The mean of every attacked trial under the chosen smoothing and variance."""
        attacked = range(len(self.held), len(self.held) + self.trials)
        images, labels = self._means(self.choice(), attacked)
        return Reconstruction(images[:, None].to(self.dtype), labels[:, None] if self.labels is None else self.labels)

    def _means(self, choice: Kernel, releases: range) -> tuple[Tensor, Tensor]:
        """Images (q c h w) and believed labels (q,) of some of the releases."""
        images = self.held.new_zeros(len(releases), *self.held.shape[1:], dtype=torch.float64)
        labels = torch.zeros(len(releases), dtype=torch.long, device=images.device)
        for cloud, (places, at) in zip(self.clouds, self.groups, strict=True):
            asked = (places >= releases.start) & (places < releases.stop)
            means, weights = cloud.mean(at[asked.to(at.device)], choice)
            own = (places[asked] - releases.start).to(images.device)
            images[own] = means.view(-1, *images.shape[1:]).clamp(0, 1)
            kinds = cloud.labels.unique()
            each = torch.stack([weights[:, cloud.labels == kind].sum(1) for kind in kinds], 1)
            labels[own] = kinds[each.argmax(1)]
        return images, labels

    def _spread(self) -> float:
        """The median squared distance from a held-out release to the nearest public one of its cloud."""
        nearest = [
            torch.cdist(at[places < len(self.held)], cloud.points).square().amin(1)
            for cloud, (places, at) in zip(self.clouds, self.groups, strict=True)
        ]
        return float(torch.cat(nearest).median())


def _granted(observation: Observation) -> PublicImages:
    if observation.public is None or len(observation.public.labels) < 2:
        raise UnsupportedPair("posterior_mean averages public images, and none are granted; set threat.public = true")
    return observation.public


def _client(observation: Observation) -> tuple[Predict, float]:
    """The client as it is known, and the variance of its noise, both in the scale of a mean gradient."""
    task, params, known = observation.task, observation.params, observation.defense
    if known is not None and known.sent is None:
        raise UnsupportedPair("posterior_mean needs a surrogate with `predict`: `keep` says nothing of a public image")
    rule = grad(task.loss) if known is None or known.gradient is None else partial(known.gradient, task.loss)
    scale = task.schedule.update_scale

    def of_one(image: Tensor, label: Tensor) -> Tensor:
        update = simulated_update(task, params, image[None], label[None], rule)
        if known is not None and known.sent is not None:
            update = known.sent(update)
        return torch.cat([u.flatten() for u in update.values()]) / scale

    def of_many(images: Tensor, labels: Tensor) -> Tensor:
        like = next(iter(params.values()))
        return vmap(of_one)(images.to(like) / 255, labels.to(like.device))

    return of_many, 0.0 if known is None else (known.noise_std / scale) ** 2


def _predicted(predict: Predict, chunk: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """The releases (m coordinates) of images, chunk by chunk."""
    for first in range(0, len(images), chunk):
        part = slice(first, first + chunk)
        yield predict(images[part], labels[part])


def _by_label(kinds: Tensor | None, releases: int, labels: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The places of releases, and of the public images from number `first` on, that belong together.

    A label without public images of its own gets all of them; so do all releases where no label is known.
    """
    everything = torch.arange(first, len(labels))
    if kinds is None:
        yield torch.arange(releases), everything
        return
    for kind in kinds.unique():
        members = everything[labels[first:] == kind]
        yield (kinds == kind).nonzero().flatten(), members if len(members) else everything


def _cloud(
    predicted: Callable[[Tensor, Tensor], Iterator[Tensor]], images: Tensor, labels: Tensor, coordinates: int
) -> tuple[Cloud, Callable[[Tensor], Tensor]]:
    """The cloud of these images, and the function from releases (q coordinates) to their place in it (q k)."""
    fitted = max(2, min(FITTED, MOST_ENTRIES // coordinates))
    base = torch.cat(list(predicted(images[:fitted], labels[:fitted])))
    centre = base.mean(0)
    base = base - centre
    variances, axes = torch.linalg.eigh((base @ base.T).double())
    variances, axes = variances.flip(0)[:DIRECTIONS], axes.flip(1)[:, :DIRECTIONS]
    # Below it an eigenvalue is rounding: of the largest one, or of releases that are all the same.
    rounding = 10 * torch.finfo(base.dtype).eps
    told = variances > max(
        1e-30, rounding * float(variances[0]), rounding**2 * len(base) * float(centre.square().sum())
    )
    axes, lengths = axes[:, told], variances[told].sqrt()
    directions = (axes / lengths).T.to(base) @ base
    place = lambda releases: ((releases - centre) @ directions.T).double()  # noqa: E731
    rest = [place(part) for part in predicted(images[fitted:], labels[fitted:])]
    points = torch.cat([axes * lengths, *rest])
    middle = points.mean(0)
    cloud = Cloud.around(images.flatten(1).double() / 255, labels.to(images.device), points - middle)
    return cloud, lambda releases: place(releases) - middle


def _likeness(found: Tensor, truth: Tensor) -> Tensor:
    """The mean structural similarity, a scalar; minus the mean squared error of images too small for it."""
    if min(truth.shape[-2:]) < 11:
        return -(found - truth).square().mean()
    from torchmetrics.functional.image import structural_similarity_index_measure

    likeness = structural_similarity_index_measure(found, truth, sigma=1.5, data_range=1.0)
    assert isinstance(likeness, Tensor), "without the full image it is one tensor"
    return likeness
