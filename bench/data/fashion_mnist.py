"""Datasets in their published files: Fashion-MNIST's four, and torchvision's classification sets."""

from __future__ import annotations

import gzip
import os
import zlib
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from bench.data import class_names
from bench.data.dataset import FASHION_MNIST_STATISTICS, Dataset, data_folder, in_memory
from bench.data.torchvision_sets import SETS, _open
from bench.errors import ConfigurationError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""The folder in which Debian's package dataset-fashion-mnist puts the four original files."""


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
        mean=FASHION_MNIST_STATISTICS[0],
        std=FASHION_MNIST_STATISTICS[1],
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
