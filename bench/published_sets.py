"""Datasets in their published files: Fashion-MNIST's four, and torchvision's classification sets."""

from __future__ import annotations

import gzip
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import class_names
from bench.dataset import FASHION_MNIST, HALF, IMAGENET, Dataset, data_folder, in_memory, round_robin
from bench.errors import ConfigurationError
from bench.image_files import stack, to_pixels
from bench.torchvision_sets import SETS, TorchvisionSet

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the four original files."""
_MOST_BYTES = 8 * 2**30


def fashion_mnist(root: str | os.PathLike[str] | None, download: bool = False) -> Dataset:
    """Fashion-MNIST (Xiao et al., 2017): 10,000 test images are attacked, 60,000 train."""
    folder = _find_fashion_mnist(root, download)
    pixels, labels = _read_pair(folder, "t10k")
    return Dataset(
        name="fashion-mnist",
        title="Fashion-MNIST, test split",
        labels=labels,
        class_names=class_names.FASHION_MNIST,
        input_shape=(1, 28, 28),
        mean=FASHION_MNIST[0],
        std=FASHION_MNIST[1],
        provenance="the four original idx files; published statistics",
        read=in_memory(pixels),
        read_training=cache(lambda: _read_pair(folder, "train")),
    )


def _find_fashion_mnist(root: str | os.PathLike[str] | None, download: bool) -> Path:
    top = data_folder() if root is None else Path(root).expanduser()
    named = [top, top / "FashionMNIST" / "raw"]
    looked = named if root is not None else [top / "fashion-mnist", named[1], DEBIAN_FASHION_MNIST]
    for folder in looked:
        if _idx_file(folder, "t10k-images-idx3-ubyte") is not None:
            return folder
    if download:
        _open("FashionMNIST", SETS["FashionMNIST"].test, top, download=True)
        return named[1]
    raise ConfigurationError(
        "dataset fashion-mnist: no t10k-images-idx3-ubyte.gz; looked in "
        + ", ".join(map(str, looked))
        + "; run `apt-get install dataset-fashion-mnist`, give root, or set download = true"
    )


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _read_pair(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    pixels = _read_idx(folder, f"{split}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(folder, f"{split}-labels-idx1-ubyte", dimensions=1)
    if len(pixels) != len(labels):
        raise ConfigurationError(
            f"{folder}: {len(pixels)} {split} images but {len(labels)} labels; get the files again"
        )
    return pixels[:, None], labels.long()


def _read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """An idx file of bytes: magic number 8 (unsigned bytes) and the rank, then the sizes, then the data."""
    path = _idx_file(folder, name)
    if path is None:
        raise ConfigurationError(f"dataset fashion-mnist: {name}.gz is missing from {folder}; get all four files")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"cannot read {path}: {error}; get the file again") from error
    start = 4 * (1 + dimensions)
    header = [int.from_bytes(content[i : i + 4], "big") for i in range(0, start, 4)]
    sizes = header[1:]
    if header[0] != 0x800 + dimensions or len(content) - start != torch.Size(sizes).numel():
        raise ConfigurationError(f"{path} is damaged or no idx file of {dimensions} dimensions; get it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(sizes)


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
    mean, std = kind.statistics or (HALF if kind.gray else IMAGENET)
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
