"""Finding a dataset by its name."""

from __future__ import annotations

import os

from bench.data import bundled, fashion_mnist, folders, torchvision_sets
from bench.data.catalogue import check_dataset
from bench.data.dataset import Dataset

__all__ = ["Dataset", "load_dataset"]


def load_dataset(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    size: int | None = None,
) -> Dataset:
    """The dataset of this name; `bench.data.catalogue` lists the names and the parameters that each takes.

    `size` resizes the shorter side to so many pixels and crops the centre; `digits` it enlarges. Raises
    `ConfigurationError` for an unknown name, a parameter that the dataset does not take, missing files and damaged
    images.
    """
    given = {"root": root, "download": download or None, "size": size}
    check_dataset(name, {key: value for key, value in given.items() if value is not None})
    match name:
        case "digits":
            return bundled.digits(size)
        case "photos":
            return bundled.photos(size)
        case "fashion-mnist":
            return fashion_mnist.fashion_mnist(root, download)
        case "cifar10-jpeg":
            return folders.cifar10_jpeg(root)
        case "folder":
            return folders.folder(root, size)
    if name.endswith("-samples"):
        return bundled.samples(name, size)
    return torchvision_sets.torchvision_set(name, root, download, size)
