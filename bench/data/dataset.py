"""A dataset: the images that are attacked, and those that one may train on."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.errors import ConfigurationError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""

CIFAR10_STATISTICS = ((0.4914672, 0.4822617, 0.4467701), (0.2470322, 0.2434851, 0.2615879))
CIFAR100_STATISTICS = ((0.5071598, 0.4866936, 0.4412019), (0.2673343, 0.2564385, 0.2761505))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MNIST_STATISTICS = ((0.1306637,), (0.3081078,))
FASHION_MNIST_STATISTICS = ((0.2860406,), (0.3530242,))
SVHN_STATISTICS = ((0.4376821, 0.4437697, 0.4728045), (0.1980302, 0.2010156, 0.1970361))
HALF_STATISTICS = ((0.5,), (0.5,))
"""Published statistics of the training splits; `HALF_STATISTICS` is for grey images without any."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """The attacked split of a dataset, and a way to its training split."""

    name: str
    """The name by which grids call it."""
    title: str
    """The name with the split, for people."""
    labels: Tensor
    """Labels of the attacked images (n,), int64."""
    class_names: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    input_shape: tuple[int, int, int]
    """Shape (c, h, w) of one image."""
    mean: tuple[float, ...]
    """Mean of each channel, of pixels in [0, 1]; it never comes from the attacked images."""
    std: tuple[float, ...]
    """Standard deviation of each channel, from the same images as `mean`."""
    provenance: str
    """The source of the images and of the statistics, for people."""
    read: Callable[[list[int]], Tensor]
    """Takes indices of attacked images to uint8 pixels (k c h w)."""
    read_training: Callable[[], tuple[Tensor, Tensor]] | None = None
    """Returns uint8 pixels (m c h w) and labels (m,) to train on; None when there are only the attacked images."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """The attacked images as they are stored: uint8 (k c h w)."""
        chosen = [int(i) for i in indices]
        for i in chosen:
            if not 0 <= i < len(self):
                raise ConfigurationError(
                    f"dataset {self.name} has no image {i}: it has {len(self)}, numbered from 0; ask for fewer"
                )
        return self.read(chosen)

    def images(self, indices: Sequence[int]) -> Tensor:
        """The attacked images (k c h w), float32 in [0, 1]."""
        return self.pixels(indices).float() / 255

    def training(self) -> tuple[Tensor, Tensor] | None:
        """uint8 pixels (m c h w) and labels (m,) of the training split; None without one."""
        return None if self.read_training is None else self.read_training()

    def class_means(self) -> Tensor | None:
        """Mean training image of each class (classes c h w) in [0, 1]; None without a training split.

        A class without training images gets the mean of all.
        """
        training = self.training()
        return None if training is None else class_means(*training, self.classes)

    def digest(self, indices: Sequence[int]) -> str:
        """SHA-256 of the pixels and labels of these images, in this order."""
        pixels = self.pixels(indices)
        return digest_of(pixels, self.labels[[int(i) for i in indices]])

    def pool(self, size: int = 100) -> list[int]:
        """The fixed images among which a private one is identified: the first `size` in an order drawn from seed 0.

        All of them in a smaller dataset. The same whatever is attacked, how many at a time, and in which block.
        """
        return torch.randperm(len(self), generator=torch.Generator().manual_seed(0)).tolist()[:size]


def class_means(pixels: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean image of each class (classes c h w) in [0, 1]; the mean of all for a class without images."""
    groups = [pixels[labels == label] for label in range(classes)]
    return torch.stack([_mean(group if len(group) else pixels) for group in groups])


def in_memory(pixels: Tensor) -> Callable[[list[int]], Tensor]:
    """A `read` for images that are already here: uint8 (n c h w)."""
    return lambda indices: pixels[indices]


def round_robin(labels: Tensor) -> list[int]:
    """The order that takes the first image of every class, then the second, and so on; within a class as before.

    For images sorted by class: the first ones of a grid would otherwise all be of one class.
    """
    seen: Counter[int] = Counter()
    turns = []
    for index, label in enumerate(labels.tolist()):
        turns.append((seen[label], label, index))
        seen[label] += 1
    return [index for _, _, index in sorted(turns)]


def digest_of(*tensors: Tensor) -> str:
    """SHA-256 of the shapes, types and bytes of these tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def data_folder() -> Path:
    """The folder of datasets when no root is given: $LEAKBOARD_DATA or ~/.cache/leakboard/data."""
    return Path(os.environ.get("LEAKBOARD_DATA") or "~/.cache/leakboard/data").expanduser()


def _mean(pixels: Tensor) -> Tensor:
    # Sums of uint8 are exact in int64; a float copy of a whole split would take four times its memory.
    return (pixels.sum(0, dtype=torch.int64).double() / (255 * len(pixels))).float()
