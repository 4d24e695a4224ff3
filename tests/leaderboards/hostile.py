"""Hostile submissions: what strangers may put into a folder, and the words with which it is refused.

A case takes a folder that holds `entry.json`, `cells/*.json` and `sheets/*.png`, alone in a folder that may be written
to, and spoils one thing in it: the first cell, the first sheet, or what lies beside them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Spoil = Callable[[Path], None]
MAGIC = b"\x89PNG\r\n\x1a\n"


def make_folder(folder: Path) -> None:
    """A small folder that is in order."""
    (folder / "cells").mkdir(parents=True)
    (folder / "sheets").mkdir()
    entry = {"title": "Größe < 1 & <script>alert(1)</script>", "url": "https://example.org", "tau": -0.0, "none": None}
    (folder / "entry.json").write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
    for number in range(2):
        cell = {"defense": "none", "images": [{"image": i, "psnr": 20.5 + i, "found": True} for i in range(4)]}
        (folder / "cells" / f"{number:016x}.json").write_text(json.dumps(cell))
        rows = b"".join(b"\0" + bytes((x * y + number) % 256 for x in range(36)) for y in range(8))
        (folder / "sheets" / f"{number:016x}.png").write_bytes(
            png(("IHDR", header(12, 8)), ("IDAT", zlib.compress(rows)), ("IEND", b""))
        )


def cell_of(folder: Path) -> Path:
    return min((folder / "cells").glob("*.json"))


def sheet_of(folder: Path) -> Path:
    return min((folder / "sheets").glob("*.png"))


# JSON


def whole_cell(content: bytes) -> Spoil:
    return lambda folder: put(cell_of(folder), content)


def changed_cell(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: put(cell_of(folder), change(cell_of(folder).read_bytes()))


def member(raw: str | bytes) -> Spoil:
    """One more member at the start of a cell's object."""
    more = raw if isinstance(raw, bytes) else raw.encode()
    return changed_cell(lambda content: content.replace(b"{", b"{" + more + b",", 1))


def text(raw: str | bytes) -> Spoil:
    inside = raw if isinstance(raw, bytes) else raw.encode()
    return member(b'"note": "' + inside + b'"')


def number(literal: str) -> Spoil:
    return member(f'"note": {literal}')


def put(path: Path, content: bytes) -> None:
    """A new file, so that a folder whose files share their content stays in order."""
    path.unlink()
    path.write_bytes(content)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil.py", "print('out')")
    return file.getvalue()


class Malice:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("exit 1",)


PARQUET = b"PAR1" + bytes(range(1, 128)) + b"PAR1"
FOREIGN = {
    "a_pickle": pickle.dumps(Malice()),
    "a_pickle_of_ascii": pickle.dumps(Malice(), protocol=0),
    "a_zip": zipped(),
    "a_parquet": PARQUET,
    "a_gzip": gzip.compress(b"{}"),
    "a_page": b"<!DOCTYPE html><script>alert(1)</script>",
    "a_drawing": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "a_script": b"#!/bin/sh\nexit 1\n",
    "a_jpeg": b"\xff\xd8\xff\xe0\x10\x10JFIF",
    "a_gif": b"GIF89a\x01\x01",
    "nothing": b"",
}

JSON: dict[str, tuple[Spoil, str]] = {
    "utf_16": (changed_cell(lambda content: content.decode().encode("utf-16")), "null byte"),
    "utf_16_without_mark": (changed_cell(lambda content: content.decode().encode("utf-16-be")), "null byte"),
    "utf_32": (changed_cell(lambda content: content.decode().encode("utf-32")), "null byte"),
    "byte_order_mark": (changed_cell(lambda content: b"\xef\xbb\xbf" + content), "begins with a byte order mark"),
    "latin_1": (text("é".encode("latin-1")), "not UTF-8 at byte"),
    "overlong_slash": (text(b"..\xc0\xaf"), "not UTF-8 at byte"),
    "encoded_surrogate": (text(b"\xed\xa0\x80"), "not UTF-8 at byte"),
    "null_byte": (text(b"a\0b"), "null byte"),
    "escaped_null": (text(r"a\u0000b"), "U+0000"),
    "lone_high_surrogate": (text(r"\ud800"), "U+D800"),
    "lone_low_surrogate": (text(r"\udc00x"), "U+DC00"),
    "swapped_surrogates": (text(r"\ude00\ud83d"), "U+DE00"),
    "bidi_override": (text("a\u202eb"), "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    "escaped_bidi_override": (text(r"a\u202Eb"), "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
    "bidi_isolate": (text("\u2067a"), "U+2067"),
    "bidi_in_a_key": (member('"a\u202e": 1'), "U+202E"),
    "bidi_in_a_key_inside": (member('"x": [{"a\\u202e": 1}]'), "U+202E"),
    "bidi_deep_inside": (member('"a": [[{"b": ["\u202d"]}]]'), "U+202D"),
    "zero_width_joiner": (text("a\u200db"), "U+200D (ZERO WIDTH JOINER)"),
    "zero_width_space": (text("a\u200bb"), "U+200B"),
    "mark_inside": (text("a\ufeffb"), "U+FEFF"),
    "soft_hyphen": (text("a\u00adb"), "U+00AD"),
    "hangul_filler": (text("\u3164"), "U+3164"),
    "blank_braille": (text("\u2800"), "U+2800"),
    "variation_selector": (text("a\ufe0f"), "U+FE0F"),
    "tag_letter": (text("a\U000e0041"), "U+E0041"),
    "private_use": (text("\ue000"), "U+E000"),
    "no_character": (text("\uffff"), "U+FFFF"),
    "unassigned": (text("\u0378"), "U+0378"),
    "line_separator": (text("a\u2028b"), "U+2028"),
    "hard_space": (text("a\u00a0b"), "U+00A0"),
    "terminal_escape": (text(r"\u001b[2J"), "U+001B"),
    "terminal_escape_of_one_byte": (text("\u009b2J"), "U+009B"),
    "escaped_newline": (text(r"a\nb"), "U+000A"),
    "raw_newline": (text("a\nb"), "Invalid control character"),
    "not_normalised": (text("e\u0301"), "normal form C"),
    "pile_of_marks": (text("x" + "\u0489" * 30), "piles more than 4 marks"),
    "long_text": (text("x" * 2001), "2001 characters, allowed are 2000"),
    "long_key": (member(f'"{"x" * 3000}": 1'), "3000 characters, allowed are 2000"),
    "text_of_3_megabytes": (text("x" * 3_000_000), "3000000 characters, allowed are 2000"),
    "text_of_5_megabytes": (text("x" * 5_000_000), "bytes, allowed are 4194304"),
    "key_twice": (member('"a": 1, "b": 2, "a": 1'), "the key 'a' stands twice"),
    "escaped_key_twice": (member(r'"a": 1, "\u0061": 2'), "the key 'a' stands twice"),
    "key_twice_inside": (member('"x": [{"a": {}, "a": []}]'), "the key 'a' stands twice"),
    "nan": (number("NaN"), "NaN is no number of JSON"),
    "infinity": (number("Infinity"), "Infinity is no number of JSON"),
    "minus_infinity": (number("-Infinity"), "-Infinity is no number of JSON"),
    "overflow": (number("1e999"), "too large for 64 bits"),
    "negative_overflow": (number("[-1e999]"), "too large for 64 bits"),
    "integer_past_doubles": (number(str(2**53 + 1)), "the number 9007199254740993 lies beyond 2**53"),
    "negative_integer_past_doubles": (number(str(-(2**53) - 1)), "beyond 2**53"),
    "integer_of_401_digits": (number(str(10**400)), "a number has more than 40 characters"),
    "integer_of_a_million_digits": (number("9" * 1_000_000), "a number has more than 40 characters"),
    "fraction_of_a_million_digits": (number("0." + "3" * 1_000_000), "a number has more than 40 characters"),
    "exponent_of_a_million_digits": (number("1e" + "0" * 1_000_000), "a number has more than 40 characters"),
    "nested_17_deep": (number("[" * 16 + "]" * 16), "nests more than 16 deep"),
    "nested_lists": (number("[" * 200_000 + "]" * 200_000), "nests more than 16 deep"),
    "nested_lists_left_open": (whole_cell(b"[" * 200_000), "nests more than 16 deep"),
    "nested_objects": (number('{"a":' * 200_000 + "1" + "}" * 200_000), "nests more than 16 deep"),
    "nested_behind_quotes": (member(r'"a\\\"": "\\", "b": ' + "[" * 200_000), "nests more than 16 deep"),
    "nested_up_to_the_limit_of_bytes": (whole_cell(b"[[]" * 1_300_000), "values"),
    "closed_too_often": (whole_cell(b"]" * 4_000_000), "no JSON"),
    "million_values": (number("[" + "0," * 1_000_000 + "0]"), "more than 1000000 values"),
    "million_empty_lists": (number("[" + "[]," * 1_000_000 + "0]"), "more than 1000000 values"),
    "million_quotes": (whole_cell(b'{"' + rb"\"" * 2_000_000), "no JSON"),
    "million_backslashes": (whole_cell(b'{"' + b"\\" * 4_000_001), "no JSON"),
    "million_short_texts": (number('["' + '","' * 999_000 + '\u202e"]'), "U+202E"),
    "many_keys": (member(",".join(f'"{i:x}":1' for i in range(350_000)) + ',"0":1'), "stands twice"),
    "cut": (changed_cell(lambda content: content.rstrip()[:-1]), "no JSON"),
    "trailing_bytes": (changed_cell(lambda content: content + b"x"), "Extra data"),
    "two_objects": (changed_cell(lambda content: content + b"\n" + content), "Extra data"),
    "json_and_zip": (changed_cell(lambda content: content + zipped().replace(b"\0", b" ")), "not UTF-8"),
    "comment": (member("/* */"), "no JSON"),
    "trailing_comma": (number("[1,]"), "no JSON"),
    "single_quotes": (member("'a': 1"), "no JSON"),
    "hexadecimal": (number("0x10"), "no JSON"),
    "leading_zero": (number("010"), "no JSON"),
    "plus_sign": (number("+1"), "no JSON"),
    "unicode_digit": (number("\u0661"), "no JSON"),
    "list_on_top": (whole_cell(b"[]"), "it holds no object"),
    "null_on_top": (whole_cell(b"null"), "it holds no object"),
    "number_on_top": (whole_cell(b"1"), "it holds no object"),
    "png_named_json": (lambda folder: put(cell_of(folder), sheet_of(folder).read_bytes()), "null byte"),
}
JSON |= {
    f"{name}_named_json": (whole_cell(content), "null byte" if b"\0" in content else ": it is no")
    for name, content in FOREIGN.items()
}


# PNG


def header(width: int, height: int, bits: int = 8, colour: int = 2, *methods: int) -> bytes:
    return struct.pack(">IIBBBBB", width, height, bits, colour, *(methods or (0, 0, 0)))


def chunk(kind: str, data: bytes) -> bytes:
    body = kind.encode("latin-1") + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(*chunks: tuple[str, bytes]) -> bytes:
    return MAGIC + b"".join(chunk(*one) for one in chunks)


def whole_sheet(content: bytes) -> Spoil:
    return lambda folder: put(sheet_of(folder), content)


def changed_sheet(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda folder: put(sheet_of(folder), change(sheet_of(folder).read_bytes()))


def after_header(kind: str, data: bytes) -> Spoil:
    """One more chunk between the header of a sheet and its pixels."""
    return changed_sheet(lambda content: content[:33] + chunk(kind, data) + content[33:])


def headed(change: Callable[[int, int], bytes]) -> Spoil:
    """A sheet with the header that `change` makes of its width and height."""
    return changed_sheet(
        lambda content: content[:8] + chunk("IHDR", change(*struct.unpack(">II", content[16:24]))) + content[33:]
    )


def pixels(change: Callable[[bytes], bytes]) -> Spoil:
    """A sheet whose rows are what `change` makes of them; packed again."""
    return packed(lambda data: zlib.compress(change(zlib.decompress(data))))


def packed(change: Callable[[bytes], bytes]) -> Spoil:
    """A sheet whose packed pixels are what `change` makes of them."""

    def changed(content: bytes) -> bytes:
        data, at = b"", 33
        while content[at + 4 : at + 8] == b"IDAT":
            length = int.from_bytes(content[at : at + 4], "big")
            data, at = data + content[at + 8 : at + 8 + length], at + 12 + length
        return content[:33] + chunk("IDAT", change(data)) + chunk("IEND", b"")

    return changed_sheet(changed)


def flipped(place: int) -> Spoil:
    """A sheet with one bit changed at this place."""

    def changed(content: bytes) -> bytes:
        spoilt = bytearray(content)
        spoilt[place] ^= 1
        return bytes(spoilt)

    return changed_sheet(changed)


def bomb(mebibytes: int) -> bytes:
    """Zeros for zlib, a thousandth of their size; without the checksum at the end, where nobody should arrive."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    more = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + more * (mebibytes - 1)


def with_dictionary(data: bytes) -> bytes:
    packer = zlib.compressobj(zdict=b"\0\1\2\3")
    return packer.compress(zlib.decompress(data)) + packer.flush()


def sparse(folder: Path, name: str, size: int) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.touch()
    os.truncate(path, size)


PNG: dict[str, tuple[Spoil, str]] = {
    "magic_alone": (whole_sheet(MAGIC), "ends before its chunk IEND"),
    "line_ends_converted": (changed_sheet(lambda content: content.replace(b"\r\n", b"\n", 1)), "no PNG"),
    "text": (after_header("tEXt", b"Comment\0<script>"), "a chunk 'tEXt', allowed are"),
    "text_bomb": (after_header("zTXt", b"Comment\0\0" + bomb(1000)), "a chunk 'zTXt', allowed are"),
    "international_text": (after_header("iTXt", b"a\0\0\0\0\0b"), "a chunk 'iTXt', allowed are"),
    "camera_data": (after_header("eXIf", b"MM\0*"), "a chunk 'eXIf', allowed are"),
    "colour_profile": (after_header("iCCP", b"a\0\0" + zlib.compress(b"x")), "a chunk 'iCCP', allowed are"),
    "standard_colours": (after_header("sRGB", b"\0"), "a chunk 'sRGB', allowed are"),
    "gamma": (after_header("gAMA", struct.pack(">I", 45455)), "a chunk 'gAMA', allowed are"),
    "time": (after_header("tIME", bytes(7)), "a chunk 'tIME', allowed are"),
    "density": (after_header("pHYs", bytes(9)), "a chunk 'pHYs', allowed are"),
    "suggested_palette": (after_header("PLTE", bytes(3)), "a chunk 'PLTE', allowed are"),
    "transparent_colour": (after_header("tRNS", bytes(6)), "a chunk 'tRNS', allowed are"),
    "animation": (after_header("acTL", struct.pack(">II", 2, 0)), "a chunk 'acTL', allowed are"),
    "frame": (after_header("fdAT", bytes(8)), "a chunk 'fdAT', allowed are"),
    "private_chunk": (after_header("evIl", zipped()), "a chunk 'evIl', allowed are"),
    "chunk_named_by_escapes": (after_header("\x1b[2J", b""), r"a chunk '\x1b[2J', allowed are"),
    "sixteen_bits": (headed(lambda w, h: header(w, h, 16)), "16 bits a sample"),
    "one_bit": (headed(lambda w, h: header(w, h, 1, 0)), "1 bits a sample"),
    "palette": (headed(lambda w, h: header(w, h, 8, 3)), "colour type is 3"),
    "grey_alpha": (headed(lambda w, h: header(w, h, 8, 4)), "colour type is 4"),
    "alpha": (headed(lambda w, h: header(w, h, 8, 6)), "colour type is 6"),
    "unknown_colour": (headed(lambda w, h: header(w, h, 8, 7)), "colour type is 7"),
    "interlaced": (headed(lambda w, h: header(w, h, 8, 2, 0, 0, 1)), "interlaced"),
    "other_compression": (headed(lambda w, h: header(w, h, 8, 2, 1, 0, 0)), "unknown compression"),
    "other_filter_method": (headed(lambda w, h: header(w, h, 8, 2, 0, 1, 0)), "filter method"),
    "no_width": (headed(lambda w, h: header(0, h)), "it is 0 x"),
    "no_height": (headed(lambda w, h: header(w, 0)), "x 0 pixels"),
    "widest": (headed(lambda w, h: header(2**31 - 1, 1)), "2147483647 x 1 pixels, allowed are 16000000"),
    "largest": (headed(lambda w, h: header(2**31 - 1, 2**31 - 1)), "2147483647 pixels, allowed are 16000000"),
    "a_bit_too_wide": (headed(lambda w, h: header(16_385, 1)), "16385 x 1 pixels, allowed are"),
    "a_bit_too_tall": (headed(lambda w, h: header(1, 16_385)), "1 x 16385 pixels, allowed are"),
    "negative_width": (headed(lambda w, h: header(2**32 - 1, h)), "pixels, allowed are 16000000"),
    "a_bit_too_large": (headed(lambda w, h: header(4001, 4000)), "4001 x 4000 pixels, allowed are 16000000"),
    "wrong_checksum_of_header": (flipped(29), "checksum of its chunk 'IHDR'"),
    "wrong_checksum_of_pixels": (flipped(45), "checksum of its chunk 'IDAT'"),
    "wrong_checksum_of_end": (flipped(-1), "checksum of its chunk 'IEND'"),
    "cut_in_pixels": (changed_sheet(lambda content: content[:60]), "'IDAT' is longer than the file"),
    "cut_before_end": (changed_sheet(lambda content: content[:-12]), "ends before its chunk IEND"),
    "chunk_of_4_gigabytes": (
        changed_sheet(lambda content: content[:33] + b"\xff\xff\xff\xffIDAT" + content[41:]),
        "'IDAT' is longer than the file",
    ),
    "no_header": (changed_sheet(lambda content: content[:8] + content[33:]), "not one IHDR, then IDAT, then IEND"),
    "two_headers": (
        changed_sheet(lambda content: content[:33] + content[8:]),
        "not one IHDR, then IDAT, then IEND",
    ),
    "header_last": (
        changed_sheet(lambda content: content[:8] + content[33:-12] + content[8:33] + content[-12:]),
        "not one IHDR, then IDAT, then IEND",
    ),
    "no_pixels": (changed_sheet(lambda content: content[:33] + content[-12:]), "not one IHDR, then IDAT, then IEND"),
    "long_header": (headed(lambda w, h: header(w, h) + b"\0"), "IHDR or IEND has a wrong length"),
    "end_with_data": (
        changed_sheet(lambda content: content[:-12] + chunk("IEND", b"<script>")),
        "IHDR or IEND has a wrong length",
    ),
    "png_and_zip": (changed_sheet(lambda content: content + zipped()), "bytes follow its chunk IEND"),
    "png_and_page": (changed_sheet(lambda content: content + FOREIGN["a_page"]), "40 bytes follow its chunk IEND"),
    "two_pngs": (changed_sheet(lambda content: content + content), "bytes follow its chunk IEND"),
    "pixel_bomb": (packed(lambda data: bomb(4000)), "unpack to more than its header says"),
    "pixel_bomb_as_large_as_allowed": (
        lambda folder: put(sheet_of(folder), png(("IHDR", header(4000, 4000)), ("IDAT", bomb(4000)), ("IEND", b""))),
        "unpack to more than its header says",
    ),
    "a_row_too_many": (pixels(lambda rows: rows + b"\0"), "unpack to more than its header says"),
    "a_row_too_few": (pixels(lambda rows: rows[:-1]), "unpack to less than its header says"),
    "huge_picture_of_nothing": (headed(lambda w, h: header(4000, 4000)), "unpack to less than its header says"),
    "pixels_without_end": (packed(lambda data: data[:-1]), "unpack to less than its header says"),
    "pixels_with_wrong_sum": (packed(lambda data: data[:-1] + bytes([data[-1] ^ 1])), "cannot be unpacked"),
    "pixels_of_noise": (packed(lambda data: b"\xff" * 50), "cannot be unpacked"),
    "pixels_with_dictionary": (packed(with_dictionary), "cannot be unpacked"),
    "bytes_behind_pixels": (packed(lambda data: data + b"hidden"), "bytes follow the packed pixels"),
    "unknown_row_filter": (pixels(lambda rows: b"\5" + rows[1:]), "a row has an unknown filter"),
    "half_a_million_chunks": (
        changed_sheet(lambda content: content[:33] + chunk("IDAT", b"") * 500_000 + content[33:]),
        "more than 4096 chunks",
    ),
    "json_named_png": (lambda folder: put(sheet_of(folder), cell_of(folder).read_bytes()), "no PNG"),
    "sparse_png": (
        lambda folder: sparse(folder, f"sheets/{sheet_of(folder).name}", 2**33),
        "8589934592 bytes, allowed are 8388608",
    ),
}
PNG |= {f"{name}_named_png": (whole_sheet(content), "no PNG") for name, content in FOREIGN.items()}


# The folder


def more(name: str | bytes) -> Spoil:
    """A harmless file of this name beside the entry; folders on the way are made."""

    def spoil(folder: Path) -> None:
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"{}")

    return spoil


def instead(make: Callable[[Path, Path], None], find: Callable[[Path], Path] = cell_of) -> Spoil:
    """Something else where a cell was, made by a function of its path and of the file or folder, moved outside."""

    def spoil(folder: Path) -> None:
        path = find(folder)
        outside = folder.parent / f"outside-{path.name}"
        path.rename(outside)
        make(path, outside)

    return spoil


def bind(path: Path) -> None:
    with suppress(OSError):
        os.mknod(path, stat.S_IFSOCK | 0o600)
        return
    with socket.socket(socket.AF_UNIX) as one:  # Where only the system itself makes them; short paths.
        one.bind(str(path))


def many(folder: Path, count: int) -> None:
    for index in range(count):
        os.close(os.open(folder / "cells" / f"x{index}.json", os.O_CREAT | os.O_WRONLY))  # Faster than `touch`.


def many_large(folder: Path) -> None:
    for index in range(30):
        sparse(folder, f"sheets/x{index}.png", 8 * 2**20)


SIGNS = "its name holds other signs"
DEVICE = "its name is a device's on Windows"
ENDING = "its name ends neither in .json nor in .png"
HIDDEN = "it is a hidden file"
LINK = "it is a symbolic link"

FOLDER: dict[str, tuple[Spoil, str]] = {
    "link_to_the_passwords": (instead(lambda path, _: path.symlink_to("/etc/passwd")), LINK),
    "link_to_the_file_itself": (instead(lambda path, outside: path.symlink_to(outside)), LINK),
    "link_to_a_neighbour": (lambda folder: (folder / "a.json").symlink_to("entry.json"), LINK),
    "link_to_nowhere": (lambda folder: (folder / "a.json").symlink_to("b.json"), LINK),
    "link_to_itself": (lambda folder: (folder / "a.json").symlink_to("a.json"), LINK),
    "link_to_a_folder": (
        instead(lambda path, outside: path.symlink_to(outside), lambda folder: folder / "sheets"),
        LINK,
    ),
    "link_to_the_parent": (lambda folder: (folder / "more").symlink_to(".."), LINK),
    "link_as_the_submission": (
        instead(lambda path, outside: path.symlink_to(outside), lambda folder: folder),
        "the submission is a link",
    ),
    "file_as_the_submission": (
        instead(lambda path, _: path.write_bytes(zipped()) and None, lambda folder: folder),
        "it is not a folder",
    ),
    "hard_link_outside": (instead(lambda path, outside: path.hardlink_to(outside)), "it is a hard link"),
    "hard_link_inside": (lambda folder: (folder / "a.json").hardlink_to(cell_of(folder)), "it is a hard link"),
    "pipe": (instead(lambda path, _: os.mkfifo(path)), "it is neither a file nor a folder"),
    "socket": (instead(lambda path, _: bind(path)), "it is neither a file nor a folder"),
    "folder_named_as_a_file": (instead(lambda path, _: path.mkdir()), "a folder with a file's name"),
    "names_that_differ_in_case": (more("Entry.json"), "only upper and lower case tell it from Entry.json"),
    "upper_case": (more("Other.json"), SIGNS),
    "upper_case_ending": (more("sheets/x.PNG"), SIGNS),
    "device": (more("con.json"), DEVICE),
    "device_png": (more("sheets/nul.png"), DEVICE),
    "device_with_two_endings": (more("com1.x.json"), DEVICE),
    "device_as_folder": (more("aux/a.json"), DEVICE),
    "trailing_dot": (more("entry.json."), SIGNS),
    "trailing_space": (more("entry.json "), SIGNS),
    "trailing_newline": (more("a.json\n"), r"a.json\n: its name holds other signs"),
    "space": (more("a b.json"), SIGNS),
    "leading_dash": (more("-rf.json"), SIGNS),
    "underscore": (more("__pycache__/a.json"), SIGNS),
    "backslashes": (more("..\\..\\a.json"), r"..\\..\\a.json: it is a hidden file"),
    "drive": (more("c:a.json"), SIGNS),
    "stream": (more("entry.json:x.json"), SIGNS),
    "wildcard": (more("*.json"), SIGNS),
    "home": (more("~root.json"), SIGNS),
    "command": (more("$(exit 1).json"), SIGNS),
    "percent": (more("%2e%2e%2fa.json"), SIGNS),
    "markup": (more("<img src=x onerror=alert(1)>.json"), SIGNS),
    "terminal_escape_in_name": (more("\x1b[2J.json"), r"\x1b[2J.json: its name holds other signs"),
    "bidi_in_name": (more("\u202egnp.json"), r"\u202egnp.json: its name holds other signs"),
    "cyrillic_letter": (more("entr\u0443.json"), r"entr\u0443.json: its name holds other signs"),
    "full_width_dot": (more("a\uff0ejson"), SIGNS),
    "not_utf_8": (more(b"\xff.json"), r"\udcff.json: its name holds other signs"),
    "three_dots": (more(".../a.json"), HIDDEN),
    "hidden_file": (more(".DS_Store"), HIDDEN),
    "hidden_folder": (more(".git/config.json"), HIDDEN),
    "hidden_json": (more(".json"), HIDDEN),
    "long_name": (more("a" * 200 + ".json"), "its name is longer than 100 characters"),
    "pickle": (more("a.pkl"), ENDING),
    "arrays": (more("a.npz"), ENDING),
    "parquet": (more("a.parquet"), ENDING),
    "page": (more("index.html"), ENDING),
    "drawing": (more("a.svg"), ENDING),
    "program": (more("cells/a.json.exe"), ENDING),
    "without_ending": (more("makefile"), ENDING),
    "other_ending": (more("a.xjson"), ENDING),
    "deep_folders": (more("a/b/c/d.json"), "folders lie more than 2 deep"),
    "endless_folders": (more("a/" * 100 + "a.json"), "folders lie more than 2 deep"),
    "many_files": (lambda folder: many(folder, 5001), "more than 4000 files"),
    "many_folders": (
        lambda folder: [(folder / f"f{index}").mkdir() for index in range(4001)] and None,
        "more than 4000 files",
    ),
    "sparse_json": (lambda folder: sparse(folder, "a.json", 2**33), "8589934592 bytes, allowed are 4194304"),
    "many_large_files": (many_large, "bytes together, allowed are 209715200"),
}

CORPUS: dict[str, tuple[Spoil, str]] = {
    **{f"json-{name}": case for name, case in JSON.items()},
    **{f"png-{name}": case for name, case in PNG.items()},
    **{f"folder-{name}": case for name, case in FOLDER.items()},
}
