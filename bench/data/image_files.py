"""Image files to pixels, with a message that names the file when it cannot be read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.errors import ConfigurationError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Files that count as images, in lower case."""
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(source: Path | bytes, name: str, *, gray: bool, size: int | None = None) -> Tensor:
    """uint8 pixels (c h w) of a file or of its bytes; c is 1 if `gray`, else 3.

    With a `size` the shorter side is resized to it and the centre cropped to a square. Raises
    `ConfigurationError`, naming the file, when it is no image, damaged, or not of 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            return to_pixels(image, gray=gray, size=size)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    except _BROKEN as error:
        raise ConfigurationError(f"cannot read the image {name}: {error}; replace or remove it") from error


def read_header(path: Path) -> tuple[tuple[int, int], bool]:
    """(width, height) of an image file and whether it is grey, without decoding its pixels."""
    try:
        with Image.open(path) as image:
            return image.size, image.mode in ("1", "L", "LA")
    except _BROKEN as error:
        raise ConfigurationError(f"cannot read the image {path}: {error}; replace or remove it") from error


def to_pixels(image: Image.Image, *, gray: bool, size: int | None = None) -> Tensor:
    """uint8 pixels (c h w) of an open image; as in `read_image`."""
    if image.mode.startswith(("I", "F")):
        # Pillow would clip such pixels to 255, which leaves a white image.
        raise ConfigurationError(f"its pixels are of mode {image.mode}; convert it to 8 bits per channel")
    image = image.convert("L" if gray else "RGB")
    if size is not None:
        image = _centre_crop(image, size)
    array = np.array(image)
    return torch.from_numpy(array[None] if gray else array.transpose(2, 0, 1).copy())


def stack(images: Iterable[tuple[str, Tensor]]) -> Tensor:
    """Named images (c h w) to one tensor (n c h w); raises `ConfigurationError` if their shapes differ."""
    named = list(images)
    first_name, first = named[0]
    for name, image in named:
        if image.shape != first.shape:
            raise ConfigurationError(
                f"the images differ in size: {first_name} is {_sides(first)} and {name} is {_sides(image)}; "
                f"give size = {min(first.shape[1:])} to resize the shorter side and crop the centre"
            )
    return torch.stack([image for _, image in named])


def _sides(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"


def _centre_crop(image: Image.Image, size: int) -> Image.Image:
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return resized.crop((left, top, left + size, top + size))
