"""The datasets that come with installed packages: nothing is downloaded."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from bench.data import class_names
from bench.data.dataset import (
    CIFAR10_STATISTICS,
    CIFAR100_STATISTICS,
    FASHION_MNIST_STATISTICS,
    IMAGENET_STATISTICS,
    MNIST_STATISTICS,
    Dataset,
    Statistics,
    in_memory,
)
from bench.data.image_files import read_image, stack
from bench.errors import ConfigurationError

_DIGITS_FOR_TRAINING = 1437
"""The first of scikit-learn's 1,797 digits are to train on; the other 360, a fifth, are attacked."""
_SAMPLES: dict[str, tuple[str, str, Statistics]] = {
    "cifar10-samples": ("cifar10", "CIFAR-10, the first 20 test images", CIFAR10_STATISTICS),
    "cifar100-samples": ("cifar100", "CIFAR-100, the first 20 test images", CIFAR100_STATISTICS),
    "imagenet-samples": ("imagenet", "ImageNet, 20 images", IMAGENET_STATISTICS),
    "mnist-samples": ("mnist", "MNIST, the first 20 test images", MNIST_STATISTICS),
    "fashion-mnist-samples": ("fashionMNIST", "Fashion-MNIST, the first 20 test images", FASHION_MNIST_STATISTICS),
}
_PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""The colour photographs inside the scikit-image wheel; its other files are grey, drawn or downloaded."""


def digits(size: int | None = None) -> Dataset:
    """scikit-learn's 1,797 digits (UCI), 17 grey levels: the last 360 are attacked, the others train.

    All are 8 pixels a side, or enlarged to `size`: networks and metrics for larger images then run on them too.
    """
    from sklearn.datasets import load_digits

    levels, target = load_digits(return_X_y=True)
    # The 17 levels 0..16 become the nearest of 0..255.
    pixels = torch.from_numpy(levels).mul(255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    if size is not None:
        pixels = _enlarged(pixels, size)
    labels = torch.from_numpy(target).long()
    training = pixels[:_DIGITS_FOR_TRAINING], labels[:_DIGITS_FOR_TRAINING]
    known = training[0].double() / 255
    return Dataset(
        name="digits",
        title="scikit-learn digits, the last 360 of 1,797" + ("" if size is None else f", enlarged to {size}"),
        labels=labels[_DIGITS_FOR_TRAINING:],
        class_names=class_names.DIGITS,
        input_shape=(1, pixels.shape[2], pixels.shape[3]),
        mean=(round(known.mean().item(), 4),),
        std=(round(known.std().item(), 4),),
        provenance=f"scikit-learn {version('scikit-learn')}; statistics computed from the training part",
        read=in_memory(pixels[_DIGITS_FOR_TRAINING:]),
        read_training=lambda: training,
    )


def _enlarged(pixels: Tensor, size: int) -> Tensor:
    """The images, uint8 (n 1 8 8), in bilinear interpolation with `size` pixels a side."""
    if size < pixels.shape[-1]:
        raise ConfigurationError(
            f"dataset digits: size must be at least {pixels.shape[-1]}, the images' own, got {size}"
        )
    # In float64 so that a rounding to the nearest level is the same on every machine.
    larger = interpolate(pixels.double(), size=(size, size), mode="bilinear", align_corners=False)
    return larger.round().to(torch.uint8)


def samples(name: str, size: int | None = None) -> Dataset:
    """Real images from the data folder of the foolbox wheel, named <set>_<index>_<class>."""
    prefix, title, (mean, std) = _SAMPLES[name]
    folder = _package_folder("foolbox", name) / "data"
    files = sorted(folder.glob(f"{prefix}_*_*.*"))
    if not files:
        raise ConfigurationError(
            f"dataset {name}: no file {prefix}_*_*.* in {folder}; reinstall it: pip install --force-reinstall foolbox"
        )
    if name == "imagenet-samples":
        size = size or 224
        title += f", shorter side to {size}, centre crop"
    pixels = stack((path.name, read_image(path, str(path), gray=len(mean) == 1, size=size)) for path in files)
    return Dataset(
        name=name,
        title=title,
        labels=torch.tensor([int(path.stem.split("_")[2]) for path in files]),
        class_names=_names(prefix),
        input_shape=(pixels.shape[1], pixels.shape[2], pixels.shape[3]),
        mean=mean,
        std=std,
        provenance=f"image files of foolbox {version('foolbox')}; published statistics",
        read=in_memory(pixels),
    )


def photos(size: int | None = None) -> Dataset:
    """scikit-image's colour photographs, the shorter side resized and the centre cropped to `size` (224)."""
    folder = _package_folder("skimage", "photos") / "data"
    size = size or 224
    for file in _PHOTOS:
        if not (folder / file).is_file():
            raise ConfigurationError(
                f"dataset photos: {file} is missing from {folder}; "
                "reinstall it: pip install --force-reinstall scikit-image"
            )
    pixels = stack((file, read_image(folder / file, str(folder / file), gray=False, size=size)) for file in _PHOTOS)
    return Dataset(
        name="photos",
        title=f"{len(_PHOTOS)} photographs of scikit-image, centre crop of {size}",
        labels=torch.arange(len(_PHOTOS)),
        class_names=tuple(Path(file).stem for file in _PHOTOS),
        input_shape=(3, size, size),
        mean=IMAGENET_STATISTICS[0],
        std=IMAGENET_STATISTICS[1],
        provenance=f"image files of scikit-image {version('scikit-image')}; statistics of ImageNet",
        read=in_memory(pixels),
    )


def _names(prefix: str) -> tuple[str, ...]:
    if prefix == "imagenet":
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return {
        "cifar10": class_names.CIFAR10,
        "cifar100": class_names.CIFAR100,
        "mnist": class_names.DIGITS,
        "fashionMNIST": class_names.FASHION_MNIST,
    }[prefix]


def _package_folder(package: str, dataset: str) -> Path:
    # Importing foolbox would take seconds and bring its own dependencies: only its files are wanted.
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        wheel = {"skimage": "scikit-image"}.get(package, package)
        raise ConfigurationError(
            f"dataset {dataset}: the package {package} that holds its images is not installed; pip install {wheel}"
        )
    return Path(spec.submodule_search_locations[0])
