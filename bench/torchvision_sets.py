"""How each classification set of torchvision is opened: splits, labels, classes, channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.class_names import DIGITS
from bench.dataset import CIFAR10, CIFAR100, FASHION_MNIST, MNIST, SVHN, Statistics

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
    """Arguments of the attacked split and of the training split (None: none, or too large to hold).

    `labels` reads all labels without decoding images; `classes` the names, in the order of the labels.
    """

    test: Arguments
    train: Arguments | None
    labels: Callable[[Any], Iterable[Any]]
    classes: Callable[[Any], Iterable[Any]] = _own_names
    gray: bool = False
    statistics: Statistics | None = None
    downloadable: bool = True

    @property
    def split(self) -> str:
        """What the attacked split is called."""
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
    "CIFAR10": TorchvisionSet(*_FLAG, _targets, statistics=CIFAR10),
    "CIFAR100": TorchvisionSet(*_FLAG, _targets, statistics=CIFAR100),
    "CLEVRClassification": TorchvisionSet(*_VAL, _private_labels, _numbers(11)),
    "Country211": TorchvisionSet(*_SPLIT, _targets),
    "DTD": TorchvisionSet(*_SPLIT, _private_labels),
    "EMNIST": TorchvisionSet(*_LETTERS, _targets, gray=True),
    "EuroSAT": TorchvisionSet({}, None, _targets),
    "FashionMNIST": TorchvisionSet(*_FLAG, _targets, gray=True, statistics=FASHION_MNIST),
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
    "MNIST": TorchvisionSet(*_FLAG, _targets, lambda source: DIGITS, gray=True, statistics=MNIST),
    "Omniglot": TorchvisionSet({"background": False}, None, _characters, _numbers(659), gray=True),
    "OxfordIIITPet": TorchvisionSet(*_TRAINVAL, _private_labels),
    "PCAM": TorchvisionSet(*_SPLIT, _one_by_one, _numbers(2)),
    "Places365": TorchvisionSet({"split": "val"}, None, _targets),
    "QMNIST": TorchvisionSet(
        {"what": "test"}, {"what": "train"}, _first_target, lambda source: DIGITS, gray=True, statistics=MNIST
    ),
    "RenderedSST2": TorchvisionSet(*_SPLIT, _samples),
    "SEMEION": TorchvisionSet({}, None, _labels, _numbers(10), gray=True),
    "StanfordCars": TorchvisionSet(*_SPLIT, _samples, downloadable=False),
    "STL10": TorchvisionSet(*_SPLIT, _labels),
    "SUN397": TorchvisionSet({}, None, _private_labels),
    "SVHN": TorchvisionSet(*_SPLIT, _labels, _numbers(10), statistics=SVHN),
    "USPS": TorchvisionSet(*_FLAG, _targets, _numbers(10), gray=True),
}
"""Class of torchvision.datasets -> how it is opened."""
