"""A stranger's PNG: one grey or RGB picture of 8 bits and nothing beside it; and the writer of such files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

from leaderboards.untrusted.refusals import ReadLimits, refused, shown

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3}
"""Channels by colour type: 0 is grey, 2 is RGB."""
_REMEDY = "write the picture anew as 8-bit grey or RGB without metadata"
_CUT = "copy the file again"


def decode_png(name: str, content: bytes, limits: ReadLimits, shape: tuple[int, ...] | None) -> np.ndarray:
    """Pixels of a PNG, uint8 (h w) or (h w 3), of this shape if one is given; raises `Refused`.

    Allowed are IHDR, IDAT and IEND; the pixels are expanded under a limit before Pillow sees the file.
    """
    import numpy as np
    from PIL import Image

    header, packed = _walk(name, content, limits)
    height, width, channels = _check_header(name, header, limits)
    found = (height, width) if channels == 1 else (height, width, channels)
    if shape is not None and shape != found:
        raise refused(name, f"its shape is {_by(found)}, wanted is {_by(shape)}", "pack the submission again")
    _check_pixels(name, packed, height, 1 + width * channels)
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise refused(name, "Pillow cannot decode it", _REMEDY) from error
    if pixels.shape != found or pixels.dtype != np.uint8:
        raise refused(name, f"it decodes to {pixels.dtype} {_by(pixels.shape)}", _REMEDY)
    return pixels


def write_png(pixels: np.ndarray) -> bytes:
    """A PNG that `decode_png` takes, from uint8 (h w) or (h w 3); equal pixels give equal bytes under one zlib.

    All rows have the one filter of none, left and up that packs the picture best at a glance.
    """
    import numpy as np

    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ValueError(f"pixels must be uint8 (h w) or (h w 3), got {pixels.dtype} {_by(pixels.shape)}")
    height, width, *channels = pixels.shape
    left, up = pixels.copy(), pixels.copy()
    left[:, 1:] -= pixels[:, :-1]
    up[1:] -= pixels[:-1]
    tried: list[bytes] = []
    for kind, filtered in enumerate((pixels, left, up)):
        rows = np.full((height, 1 + width * (3 if channels else 1)), kind, np.uint8)
        rows[:, 1:] = filtered.reshape(height, -1)
        tried.append(rows.tobytes())
    best = min(tried, key=lambda rows: len(zlib.compress(rows, 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels else 0, 0, 0, 0)
    return _MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(best, 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _walk(name: str, content: bytes, limits: ReadLimits) -> tuple[bytes, bytes]:
    """The header and the packed pixels, once all chunks are whole, allowed and in order."""
    if not content.startswith(_MAGIC):
        raise refused(name, "it is no PNG", _REMEDY)
    view = memoryview(content)
    kinds: list[bytes] = []
    parts: list[memoryview] = []
    at = len(_MAGIC)
    while not kinds or kinds[-1] != b"IEND":
        if len(content) - at < 12:
            raise refused(name, "it ends before its chunk IEND", _CUT)
        if len(kinds) == limits.png_chunks:
            raise refused(name, f"it has more than {limits.png_chunks} chunks", _REMEDY)
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            raise refused(name, f"its chunk {_word(kind)} is longer than the file", _CUT)
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            raise refused(name, f"it has a chunk {_word(kind)}, allowed are IHDR, IDAT and IEND", _REMEDY)
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise refused(name, f"the checksum of its chunk {_word(kind)} is wrong", _CUT)
        kinds.append(kind)
        parts.append(view[at + 8 : end])
        at = end + 4
    if at < len(content):
        raise refused(name, f"{len(content) - at} bytes follow its chunk IEND", _REMEDY)
    if kinds != [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"] or len(kinds) < 3:
        raise refused(name, "its chunks are not one IHDR, then IDAT, then IEND", _REMEDY)
    if len(parts[0]) != 13 or len(parts[-1]) != 0:
        raise refused(name, "its chunk IHDR or IEND has a wrong length", _REMEDY)
    return bytes(parts[0]), b"".join(parts[1:-1])


def _check_header(name: str, header: bytes, limits: ReadLimits) -> tuple[int, int, int]:
    """Height, width and channels that the header names."""
    width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    if not width or not height:
        raise refused(name, f"it is {width} x {height} pixels", _REMEDY)
    if width * height > limits.png_pixels or max(width, height) > limits.png_side:
        most = f"{limits.png_pixels} and {limits.png_side} on a side"
        raise refused(name, f"it is {width} x {height} pixels, allowed are {most}", "make it smaller")
    if bits != 8:
        raise refused(name, f"it has {bits} bits a sample, wanted are 8", _REMEDY)
    if colour not in _CHANNELS:
        raise refused(name, f"its colour type is {colour}, wanted is 0 (grey) or 2 (RGB)", _REMEDY)
    if interlace or compression or filtering:
        raise refused(name, "it is interlaced or uses an unknown compression or filter method", _REMEDY)
    return height, width, _CHANNELS[colour]


def _check_pixels(name: str, packed: bytes, height: int, row: int) -> None:
    """The packed pixels expand to the size that the header names, and never beyond one byte more."""
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(packed, height * row + 1)
    except zlib.error as error:
        raise refused(name, "its pixels cannot be unpacked", _CUT) from error
    if len(rows) > height * row:
        raise refused(name, "its pixels unpack to more than its header says", _REMEDY)
    if len(rows) < height * row or not stream.eof:
        raise refused(name, "its pixels unpack to less than its header says", _CUT)
    if stream.unused_data:
        raise refused(name, "bytes follow the packed pixels in its chunk IDAT", _REMEDY)
    if rows[::row].translate(None, b"\0\1\2\3\4"):
        raise refused(name, "a row has an unknown filter", _REMEDY)


def _word(kind: bytes) -> str:
    return f"'{shown(kind.decode('latin-1'))}'"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
