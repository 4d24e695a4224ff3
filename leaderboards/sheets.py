"""All images of a cell in one picture: a sheet of tiles, row by row in the order of image numbers."""

from __future__ import annotations

from math import ceil, isqrt

import numpy as np


def sheet_shape(count: int, tile: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a sheet of so many tiles (h w c): about as many columns as rows; (h w) where c is 1."""
    columns = isqrt(count - 1) + 1
    h, w, c = tile
    return (ceil(count / columns) * h, columns * w, *((c,) if c > 1 else ()))


def sheet_of(images: np.ndarray) -> np.ndarray:
    """The sheet of uint8 images (n h w c); tiles that are left over are black."""
    n, h, w, c = images.shape
    sheet = np.zeros(sheet_shape(n, (h, w, c)), dtype=np.uint8)
    for i, image in enumerate(images):
        rows, columns = _place(i, n, h, w)
        sheet[rows, columns] = image if c > 1 else image[..., 0]
    return sheet


def tiles_of(sheet: np.ndarray, count: int, tile: tuple[int, ...]) -> np.ndarray:
    """The inverse of `sheet_of`: uint8 (n h w c); raises ValueError where the sheet has another shape."""
    wanted = sheet_shape(count, tile)
    if sheet.shape != wanted:
        raise ValueError(f"a sheet of {count} images {tile} has the shape {wanted}, got {sheet.shape}")
    h, w, c = tile
    cut = [sheet[_place(i, count, h, w)] for i in range(count)]
    return np.stack(cut).reshape(count, h, w, c)


def _place(i: int, count: int, h: int, w: int) -> tuple[slice, slice]:
    row, column = divmod(i, isqrt(count - 1) + 1)
    return slice(row * h, (row + 1) * h), slice(column * w, (column + 1) * w)
