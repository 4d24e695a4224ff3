"""Datasets that a user brings as image files: any folder, or the JPEG stand-in for CIFAR-10."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from bench.data import class_names
from bench.data.dataset import (
    CIFAR10_STATISTICS,
    HALF_STATISTICS,
    IMAGENET_STATISTICS,
    Dataset,
    data_folder,
    in_memory,
    round_robin,
)
from bench.data.image_files import SUFFIXES, read_header, read_image, stack
from bench.errors import ConfigurationError

_HELD_BYTES = 256 * 2**20
"""A folder up to this size is decoded at once, so that a damaged image is found before anything runs."""


def folder(root: str | os.PathLike[str] | None, size: int | None = None) -> Dataset:
    """The images of a folder: one sub-folder a class in order of name, or flat: all of one class.

    A flat folder gets a second, empty class: a classifier of one class has a gradient of zero, which would
    make every defense look perfect. One channel if all images are grey, else three.
    """
    if root is None:
        raise ConfigurationError("dataset folder: give root, the folder that holds the images")
    top = Path(root).expanduser()
    if not top.is_dir():
        raise ConfigurationError(f"dataset folder: root {top} is not a folder; give the one that holds the images")
    try:
        names, files = _classes_in(top)
    except OSError as error:
        raise ConfigurationError(f"dataset folder: cannot list {top}: {error}") from error
    labels = torch.tensor([label for label, group in enumerate(files) for _ in group])
    paths = [path for group in files for path in group]
    order = round_robin(labels)
    labels, paths = labels[order], [paths[i] for i in order]
    headers = [(path, *read_header(path)) for path in paths]
    gray = all(grey for _, _, grey in headers)
    width, height = (size, size) if size else headers[0][1]
    for path, sides, _ in headers:
        if size is None and sides != (width, height):
            raise ConfigurationError(
                f"dataset folder: the images differ in size: {paths[0]} is {width}x{height} and {path} is "
                f"{sides[0]}x{sides[1]}; give size = {min(width, height)} to resize the shorter side and crop "
                "the centre"
            )
    shape = (1 if gray else 3, height, width)

    def decode(indices: list[int]) -> Tensor:
        if not indices:
            return torch.empty((0, *shape), dtype=torch.uint8)
        return stack((str(paths[i]), read_image(paths[i], str(paths[i]), gray=gray, size=size)) for i in indices)

    small = len(paths) * shape[0] * height * width <= _HELD_BYTES
    mean, std = HALF_STATISTICS if gray else IMAGENET_STATISTICS
    return Dataset(
        name="folder",
        title=f"images of the folder {top.resolve().name}" + (f", centre crop of {size}" if size else ""),
        labels=labels,
        class_names=names if len(names) > 1 else (*names, "no other class"),
        input_shape=shape,
        mean=mean,
        std=std,
        provenance="image files of the user; " + ("scaled to [-1, 1]" if gray else "statistics of ImageNet"),
        read=in_memory(decode(list(range(len(paths))))) if small else decode,
    )


def _classes_in(top: Path) -> tuple[tuple[str, ...], list[list[Path]]]:
    flat = _images_in(top)
    folders = sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith("."))
    groups = [_images_in(path) for path in folders]
    if flat and any(groups):
        raise ConfigurationError(
            f"dataset folder: {top} holds images ({flat[0].name}) beside sub-folders of images; "
            "move them into the sub-folder of their class"
        )
    if flat:
        return (top.resolve().name,), [flat]
    kinds = " ".join(SUFFIXES)
    if not any(groups):
        raise ConfigurationError(
            f"dataset folder: no images in {top} or its sub-folders ({kinds}); give the folder whose "
            "sub-folders are the classes"
        )
    for path, group in zip(folders, groups, strict=True):
        if not group:
            raise ConfigurationError(f"dataset folder: no images in {path} ({kinds}); fill or remove it")
    return tuple(path.name for path in folders), groups


def _images_in(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def cifar10_jpeg(root: str | os.PathLike[str] | None) -> Dataset:
    """CIFAR-10 images after JPEG compression: {train,test}/<class>/<file>.jpg in a zip or a folder."""
    source = _find_jpeg_source(root)
    pixels, labels = _read_split(source, "test")
    return Dataset(
        name="cifar10-jpeg",
        title="JPEG stand-in for CIFAR-10 (not CIFAR-10 itself)",
        labels=labels,
        class_names=class_names.CIFAR10,
        input_shape=(3, 32, 32),
        mean=CIFAR10_STATISTICS[0],
        std=CIFAR10_STATISTICS[1],
        provenance=f"{source.name}: images of CIFAR-10 with JPEG losses; published statistics of CIFAR-10",
        read=in_memory(pixels),
        read_training=cache(lambda: _read_split(source, "train")),
    )


def _find_jpeg_source(root: str | os.PathLike[str] | None) -> Path:
    top = data_folder() if root is None else Path(root).expanduser()
    looked = [top / "cifar10-jpeg.zip", top / "cifar10-jpeg"]
    if root is not None:
        looked = [top] if top.is_file() else [*looked, top]
    for source in looked:
        if source.is_file() or (source / "test").is_dir():
            return source
    places = ", ".join(map(str, looked))
    raise ConfigurationError(
        f"dataset cifar10-jpeg: not found; looked for {places}. Give root, the zip or a folder with test/<class>/ "
        "in it, or set LEAKBOARD_DATA to the folder that holds cifar10-jpeg.zip"
    )


def _read_split(source: Path, split: str) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    try:
        for name, content in _files_of(source, split):
            kind = PurePosixPath(name).parent.name
            if kind not in class_names.CIFAR10:
                known = ", ".join(class_names.CIFAR10)
                raise ConfigurationError(
                    f"dataset cifar10-jpeg: {name} in {source} is of no class of CIFAR-10: {known}"
                )
            image = read_image(content, f"{name} in {source}", gray=False)
            if image.shape != (3, 32, 32):
                raise ConfigurationError(f"dataset cifar10-jpeg: {name} in {source} is not 32x32; replace it")
            images.append(image)
            labels.append(class_names.CIFAR10.index(kind))
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigurationError(f"dataset cifar10-jpeg: cannot read {source}: {error}; get it again") from error
    if not images:
        raise ConfigurationError(
            f"dataset cifar10-jpeg: no images {split}/<class>/<name>.jpg in {source}; give another root"
        )
    order = round_robin(torch.tensor(labels))
    return torch.stack(images)[order], torch.tensor(labels)[order]


def _files_of(source: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every image of a split, in order of name."""
    if source.is_dir():
        for path in sorted((source / split).glob("*/*")):
            if path.suffix.lower() in SUFFIXES:
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    with zipfile.ZipFile(source) as archive:
        for name in sorted(archive.namelist()):
            parts = PurePosixPath(name).parts
            if parts[-3:-2] == (split,) and name.lower().endswith(SUFFIXES) and "__MACOSX" not in parts:
                yield name, archive.read(name)
