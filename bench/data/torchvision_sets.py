"""Torchvision's classification sets: opened, with their splits, labels, classes and channels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.data.class_names import DIGITS
from bench.data.dataset import (
    CIFAR10_STATISTICS,
    CIFAR100_STATISTICS,
    FASHION_MNIST_STATISTICS,
    HALF_STATISTICS,
    IMAGENET_STATISTICS,
    MNIST_STATISTICS,
    SVHN_STATISTICS,
    Dataset,
    Statistics,
    data_folder,
    round_robin,
)
from bench.data.image_files import stack, to_pixels
from bench.errors import ConfigurationError

Arguments = dict[str, object]


def _targets(source: Any) -> Iterable[Any]:
    return source.targets


def _labels(source: Any) -> Iterable[Any]:
    return source.labels


def _private_labels(source: Any) -> Iterable[Any]:
    return source._labels


def _samples(source: Any) -> Iterable[Any]:
    return (label for _, label in source._samples)


def _characters(source: Any) -> Iterable[Any]:
    return (label for _, label in source._flat_character_images)


def _y(source: Any) -> Iterable[Any]:
    return source.y


def _first_target(source: Any) -> Iterable[Any]:
    return (row[0] for row in source.targets)


def _one_by_one(source: Any) -> Iterable[Any]:
    return (source[i][1] for i in range(len(source)))


def _own_names(source: Any) -> Iterable[Any]:
    return source.classes


def _categories(source: Any) -> Iterable[Any]:
    return source.categories


def _numbers(count: int) -> Callable[[Any], Iterable[Any]]:
    return lambda source: map(str, range(count))


@dataclass(frozen=True)
class TorchvisionSet:
    """The way in which a class of torchvision.datasets is opened and read."""

    test: Arguments
    """Arguments of the attacked split."""
    train: Arguments | None
    """Arguments of the training split; None without one, or where it is too large to hold."""
    labels: Callable[[Any], Iterable[Any]]
    """Reads all labels without decoding images."""
    classes: Callable[[Any], Iterable[Any]] = _own_names
    """Reads the names of the classes, in the order of the labels."""
    gray: bool = False
    """True if images have one channel."""
    statistics: Statistics | None = None
    """Published statistics of the channels; without them ImageNet's are taken, or halves for grey images."""
    downloadable: bool = True
    """True if torchvision can download it."""

    @property
    def split(self) -> str:
        """The attacked split's name for people, as in "test split"."""
        value = next(iter(self.test.values()), None)
        return f"{value} split" if isinstance(value, str) else "test split" if self.test else "all images"

    def names(self, source: Any) -> tuple[str, ...]:
        """Class names; the first one where a class has synonyms."""
        return tuple(str(name if isinstance(name, str) else name[0]) for name in self.classes(source))


_FLAG: tuple[Arguments, Arguments] = {"train": False}, {"train": True}
_SPLIT: tuple[Arguments, Arguments] = {"split": "test"}, {"split": "train"}
_TRAINVAL: tuple[Arguments, Arguments] = {"split": "test"}, {"split": "trainval"}
_VAL: tuple[Arguments, Arguments] = {"split": "val"}, {"split": "train"}
_LETTERS: tuple[Arguments, Arguments] = (
    {"split": "balanced", "train": False},
    {"split": "balanced", "train": True},
)

SETS: dict[str, TorchvisionSet] = {
    "Caltech101": TorchvisionSet({}, None, _y, _categories),
    "Caltech256": TorchvisionSet({}, None, _y, _categories),
    "CIFAR10": TorchvisionSet(*_FLAG, _targets, statistics=CIFAR10_STATISTICS),
    "CIFAR100": TorchvisionSet(*_FLAG, _targets, statistics=CIFAR100_STATISTICS),
    "CLEVRClassification": TorchvisionSet(*_VAL, _private_labels, _numbers(11)),
    "Country211": TorchvisionSet(*_SPLIT, _targets),
    "DTD": TorchvisionSet(*_SPLIT, _private_labels),
    "EMNIST": TorchvisionSet(*_LETTERS, _targets, gray=True),
    "EuroSAT": TorchvisionSet({}, None, _targets),
    "FashionMNIST": TorchvisionSet(*_FLAG, _targets, gray=True, statistics=FASHION_MNIST_STATISTICS),
    "FER2013": TorchvisionSet(*_SPLIT, _samples, _numbers(7), gray=True, downloadable=False),
    "FGVCAircraft": TorchvisionSet(*_TRAINVAL, _private_labels),
    "Flowers102": TorchvisionSet(*_SPLIT, _private_labels, _numbers(102)),
    "Food101": TorchvisionSet(*_SPLIT, _private_labels),
    "GTSRB": TorchvisionSet(*_SPLIT, _samples, _numbers(43)),
    "ImageNet": TorchvisionSet({"split": "val"}, None, _targets, downloadable=False),
    "Imagenette": TorchvisionSet(*_VAL, _samples),
    "KMNIST": TorchvisionSet(*_FLAG, _targets, gray=True),
    # A person of the test split is not in the training split: training would teach other classes.
    "LFWPeople": TorchvisionSet({"split": "test"}, None, _targets, lambda source: source.class_to_idx),
    "MNIST": TorchvisionSet(*_FLAG, _targets, lambda source: DIGITS, gray=True, statistics=MNIST_STATISTICS),
    "Omniglot": TorchvisionSet({"background": False}, None, _characters, _numbers(659), gray=True),
    "OxfordIIITPet": TorchvisionSet(*_TRAINVAL, _private_labels),
    "PCAM": TorchvisionSet(*_SPLIT, _one_by_one, _numbers(2)),
    "Places365": TorchvisionSet({"split": "val"}, None, _targets),
    "QMNIST": TorchvisionSet(
        {"what": "test"},
        {"what": "train"},
        _first_target,
        lambda source: DIGITS,
        gray=True,
        statistics=MNIST_STATISTICS,
    ),
    "RenderedSST2": TorchvisionSet(*_SPLIT, _samples),
    "SEMEION": TorchvisionSet({}, None, _labels, _numbers(10), gray=True),
    "StanfordCars": TorchvisionSet(*_SPLIT, _samples, downloadable=False),
    "STL10": TorchvisionSet(*_SPLIT, _labels),
    "SUN397": TorchvisionSet({}, None, _private_labels),
    "SVHN": TorchvisionSet(*_SPLIT, _labels, _numbers(10), statistics=SVHN_STATISTICS),
    "USPS": TorchvisionSet(*_FLAG, _targets, _numbers(10), gray=True),
}
"""Class of torchvision.datasets -> how it is opened."""


_MOST_BYTES = 8 * 2**30
"""Bytes of training images, uint8, that are held in memory at once."""


def torchvision_set(
    name: str, root: str | os.PathLike[str] | None, download: bool = False, size: int | None = None
) -> Dataset:
    """A classification set of torchvision, by the name of its class; images are decoded when asked for.

    A split that is sorted by class is taken in turns of the classes.
    """
    kind = SETS[name]
    top = data_folder() if root is None else Path(root).expanduser()
    source = _open(name, kind.test, top, download)
    labels = _labels_of(name, kind, source)
    order = round_robin(labels) if bool((labels.diff() >= 0).all()) else list(range(len(labels)))
    first = to_pixels(source[0][0], gray=kind.gray, size=size)
    mean, std = kind.statistics or (HALF_STATISTICS if kind.gray else IMAGENET_STATISTICS)
    note = (
        "published statistics"
        if kind.statistics
        else "grey scaled to [-1, 1]"
        if kind.gray
        else "ImageNet's statistics"
    )

    def read_training() -> tuple[Tensor, Tensor]:
        training = _open(name, kind.train or {}, top, download)
        if len(training) * first.numel() > _MOST_BYTES:
            raise ConfigurationError(
                f"dataset {name}: its {len(training)} training images do not fit into memory; "
                "give a smaller size, or weights from a checkpoint"
            )
        return _read(training, list(range(len(training))), kind.gray, size), _labels_of(name, kind, training)

    return Dataset(
        name=name,
        title=f"{name}, {kind.split}" + (f", centre crop of {size}" if size else ""),
        labels=labels[order],
        class_names=kind.names(source),
        input_shape=(first.shape[0], first.shape[1], first.shape[2]),
        mean=mean,
        std=std,
        provenance=f"torchvision.datasets.{name}; {note}",
        read=lambda indices: _read(source, [order[i] for i in indices], kind.gray, size, like=first),
        read_training=None if kind.train is None else cache(read_training),
    )


def _open(name: str, arguments: dict[str, object], root: Path, download: bool) -> Any:
    from torchvision import datasets

    if download and not SETS[name].downloadable:
        raise ConfigurationError(f"dataset {name} cannot be downloaded; get its files and give their root")
    extra = {"download": True} if download else {}
    try:
        return getattr(datasets, name)(root=str(root), **arguments, **extra)
    except (OSError, RuntimeError, ImportError) as error:
        step = (
            "check the network, or bring the files and give root" if download else "give root, or set download = true"
        )
        raise ConfigurationError(f"dataset {name}: cannot be read from {root}: {error}; {step}") from error


def _labels_of(name: str, kind: TorchvisionSet, source: Any) -> Tensor:
    labels = list(kind.labels(source))
    if not labels or any(label is None for label in labels):
        raise ConfigurationError(f"dataset {name}: its {kind.split} has no labels; use another dataset")
    return torch.tensor([int(label) for label in labels])


def _read(source: Any, indices: list[int], gray: bool, size: int | None, like: Tensor | None = None) -> Tensor:
    if not indices and like is not None:
        return like.new_empty((0, *like.shape))
    images = [(f"image {i}", to_pixels(source[i][0], gray=gray, size=size)) for i in indices]
    # The first image fixes the input shape: it stands in front so that any other size is named.
    return stack([("image 0", like), *images])[1:] if like is not None else stack(images)
