"""Public images: half of a training set, on which then no weights are trained, without any attacked image.

The server holds most of them; the referee holds some back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from bench.data.dataset import Dataset
from bench.errors import ConfigurationError

NEAR = 0.98
"""Correlation, after centring, beyond which a public image counts as a copy of an attacked one."""
HELD_OUT = 1000
"""Public images that the referee holds back, at most: 100 attacked ones take 400, and of ten classes each has 100."""


@dataclass(frozen=True)
class PublicSplit:
    """Public images of a training set, none of them a copy of an attacked one.

    `pixels` uint8 (n c h w) and `labels` (n,) are for the server; `left_out` counts the copies that are missing there.
    `held_out_pixels` (m c h w) and `held_out_labels` (m,) are for the referee alone: no server is ever granted them.
    """

    pixels: Tensor
    labels: Tensor
    left_out: int
    held_out_pixels: Tensor
    held_out_labels: Tensor


def public_split(source: Dataset, count: int, attacked: Tensor, explicit: bool) -> PublicSplit | None:
    """The first `count` images of the public half, and its last ones for the referee; None without a half.

    The referee's are `HELD_OUT`, or a fifth of a small half, whatever `count` is. Copies of `attacked` ones (k c h w)
    are in neither, and the referee's hold no copy of a granted one. In a set that was named explicitly copies of
    attacked images raise ConfigurationError: it is no public set.
    """
    training = source.training()
    if training is None:
        return None
    pixels, labels = training
    half = halves(len(labels))[0]
    referee = min(HELD_OUT, len(half) // 5)
    granted, held_out = half[: min(count, len(half) - referee)], half[len(half) - referee :]
    asked = torch.cat([granted, held_out])
    copies = copies_of(pixels[asked], attacked)
    there = copies >= 0
    if explicit and there.any():
        first = int(there.int().argmax())
        raise ConfigurationError(
            f"grid.public: training image {int(asked[first])} of {source.name} is the attacked image "
            f"{int(copies[first])}, or a near copy of it; name a set without attacked images"
        )
    shown, hidden = there[: len(granted)], there[len(granted) :]
    granted, held_out = granted[~shown], held_out[~hidden]
    # As of the attacked ones the server holds no copy of them either: else they would be the easier ones.
    held_out = held_out[copies_of(pixels[held_out], pixels[granted]) < 0]
    return PublicSplit(pixels[granted], labels[granted], int(shown.sum()), pixels[held_out], labels[held_out])


def without_public(source: Dataset) -> Dataset:
    """The dataset with the half of its training set that is never public."""
    read = source.read_training
    if read is None:
        return source

    def private() -> tuple[Tensor, Tensor]:
        pixels, labels = read()
        kept = halves(len(labels))[1]
        return pixels[kept], labels[kept]

    return replace(source, read_training=private)


def halves(count: int) -> tuple[Tensor, Tensor]:
    """The positions of the public half of so many training images, in the order in which they are taken, and the rest.

    A fixed order: training sets are often sorted by class.
    """
    order = torch.randperm(count, generator=Generator().manual_seed(0))
    return order[: count // 2], order[count // 2 :].sort().values


def copies_of(images: Tensor, attacked: Tensor) -> Tensor:
    """The attacked image (n,) that each image equals or resembles by a correlation over `NEAR`; -1 without any."""
    found = torch.full((len(images),), -1)
    if not len(attacked):
        return found
    theirs = _unit(attacked)
    # A thousand at a time: all of them as floats may not fit into memory.
    for first in range(0, len(images), 1000):
        part = images[first : first + 1000]
        likeness, place = (_unit(part) @ theirs.T).max(1)
        found[first : first + 1000] = torch.where(likeness > NEAR, place, -1)
    # Constant images correlate with nothing.
    for place, image in enumerate(attacked):
        if image.eq(image.flatten()[0]).all():
            found[images.eq(image).flatten(1).all(1)] = place
    return found


def _unit(images: Tensor) -> Tensor:
    flat = images.flatten(1).float()
    centred = flat - flat.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)
