"""The names of the datasets and models, and their parameters; torch-free, so that listing them is quick."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bench.errors import ConfigurationError, suggest

_SETS = """
Caltech101 Caltech256 CIFAR10 CIFAR100 CLEVRClassification Country211 DTD EMNIST EuroSAT FashionMNIST
FER2013 FGVCAircraft Flowers102 Food101 GTSRB ImageNet Imagenette KMNIST LFWPeople MNIST Omniglot
OxfordIIITPet PCAM Places365 QMNIST RenderedSST2 SEMEION StanfordCars STL10 SUN397 SVHN USPS
"""
TORCHVISION_SETS = tuple(_SETS.split())
"""Classes of torchvision.datasets with one label per image."""

DATASETS: dict[str, str] = {
    "digits": "scikit-learn's handwritten digits, 8x8 grey or enlarged to `size`: 1,437 to train on, 360 to attack",
    "cifar10-samples": "the first 20 test images of CIFAR-10, 32x32 colour (foolbox wheel)",
    "cifar100-samples": "the first 20 test images of CIFAR-100, 32x32 colour (foolbox wheel)",
    "imagenet-samples": "20 ImageNet images, shorter side to 224, centre crop (foolbox wheel)",
    "mnist-samples": "the first 20 test images of MNIST, 28x28 grey (foolbox wheel)",
    "fashion-mnist-samples": "the first 20 test images of Fashion-MNIST, 28x28 grey (foolbox wheel)",
    "photos": "8 colour photographs, centre crop of 224, each its own class (scikit-image wheel)",
    "fashion-mnist": "Fashion-MNIST's four files: Debian's dataset-fashion-mnist, a folder, or a download",
    "cifar10-jpeg": "JPEG stand-in for CIFAR-10 (20,000 training, 3,000 test images): a zip or its folder",
    "folder": "your own images: one sub-folder a class, or a flat folder",
    **{name: f"torchvision's {name}: an existing root, or a download" for name in TORCHVISION_SETS},
}
"""Dataset -> one line about it."""

DATASET_PARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(DATASETS, ()),
    "digits": ("size",),
    "imagenet-samples": ("size",),
    "photos": ("size",),
    "fashion-mnist": ("root", "download"),
    "cifar10-jpeg": ("root",),
    "folder": ("root", "size"),
    **dict.fromkeys(TORCHVISION_SETS, ("root", "download", "size")),
}
"""Dataset -> the parameters that it takes."""


def check_dataset(name: str, parameters: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` unless this dataset exists and takes these parameters with these types."""
    if name not in DATASETS:
        raise ConfigurationError(f"unknown dataset {name!r}; {suggest(name, DATASETS)}")
    _check_keys("dataset", name, parameters, DATASET_PARAMETERS[name])
    root, size = parameters.get("root"), parameters.get("size")
    if root is not None and not isinstance(root, str | os.PathLike):
        raise ConfigurationError(f"dataset {name}: root must be a path, got {root!r}")
    if not isinstance(parameters.get("download", False), bool):
        raise ConfigurationError(f"dataset {name}: download must be true or false")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigurationError(f"dataset {name}: size must be a whole number of pixels, got {size!r}")


def _check_keys(kind: str, name: str, parameters: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in parameters:
        if key not in known:
            tail = suggest(key, known) if known else "it takes none"
            raise ConfigurationError(f"{kind} {name} has no parameter {key!r}; {tail}")
