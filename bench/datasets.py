"""Finding a dataset by its name."""

from __future__ import annotations

import os

from bench import bundled_images, image_folders, published_sets
from bench.catalogue import check_dataset
from bench.dataset import Dataset

__all__ = ["Dataset", "load_dataset"]


def load_dataset(
    name: str,
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    size: int | None = None,
) -> Dataset:
    """The dataset of this name; `bench.catalogue` lists the names and the parameters that each takes.

    `size` resizes the shorter side to so many pixels and crops the centre. Raises `ConfigurationError` for an
    unknown name, a parameter that the dataset does not take, missing files and damaged images.
    """
    given = {"root": root, "download": download or None, "size": size}
    check_dataset(name, {key: value for key, value in given.items() if value is not None})
    match name:
        case "digits":
            return bundled_images.digits()
        case "photos":
            return bundled_images.photos(size)
        case "fashion-mnist":
            return published_sets.fashion_mnist(root, download)
        case "cifar10-jpeg":
            return image_folders.cifar10_jpeg(root)
        case "folder":
            return image_folders.folder(root, size)
    if name.endswith("-samples"):
        return bundled_images.samples(name, size)
    return published_sets.torchvision_set(name, root, download, size)
