"""The door for files of strangers: every hostile one is refused for its reason, quickly, and nothing else is."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hostile import CORPUS, cell_of, header, make_folder, png, sheet_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leaderboards.untrusted.folder import LIMITS, ReadLimits, Refused, read_folder, write_png
from leaderboards.untrusted.refusals import refused, shown
from leaderboards.untrusted.strict_json import parse_json
from leaderboards.untrusted.strict_png import decode_png

ROOT = Path(__file__).parents[3]
MEASURE = """
import json, sys, time
from pathlib import Path
from hostile import CORPUS, make_folder
from leaderboards.untrusted.folder import Refused, read_folder
import numpy, PIL.Image

def memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024

costs = {}
for number, (name, (spoil, _)) in enumerate(CORPUS.items()):
    folder = Path(sys.argv[1]) / str(number) / "submission"
    make_folder(folder)
    spoil(folder)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.process_time()
    try:
        opened = read_folder(folder)
        for one in opened.names:
            opened.json(one) if one.endswith(".json") else opened.png(one)
    except Refused:
        costs[name] = time.process_time() - start, memory("VmHWM") - before
print(json.dumps(costs))
"""


def read_all(folder, limits=LIMITS):
    opened = read_folder(folder, limits)
    return {name: opened.json(name) if name.endswith(".json") else opened.png(name) for name in opened.names}


def parsed(text, limits=LIMITS, **longer):
    return parse_json("a.json", text if isinstance(text, bytes) else text.encode(), limits, longer)


def decoded(content, shape=None):
    return decode_png("a.png", content, LIMITS, shape)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "submission"
    make_folder(path)
    return path


def test_a_folder_in_order_is_read_whole(folder):
    read = read_all(folder)
    assert len(read) == 5
    assert read["entry.json"]["title"] == "Größe < 1 & <script>alert(1)</script>"
    assert read["entry.json"]["tau"] == 0.0
    assert read["cells/0000000000000001.json"]["images"][3] == {"image": 3, "psnr": 23.5, "found": True}
    with Image.open(sheet_of(folder)) as image:
        np.testing.assert_array_equal(read["sheets/0000000000000000.png"], np.asarray(image))


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_folder_is_refused_for_its_reason(folder, name):
    spoil, words = CORPUS[name]
    spoil(folder)
    with pytest.raises(Refused) as found:
        read_all(folder)
    message = str(found.value)
    assert words in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 500
    assert "; " in message, "a refusal says what to do"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux only")
def test_every_refusal_takes_less_than_a_second_and_200_megabytes(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "leaderboards")])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert costs.keys() == CORPUS.keys()
    assert {name: cost for name, cost in costs.items() if cost[0] > 1 or cost[1] > 200} == {}


def test_a_refusal_never_shows_what_steers_a_terminal():
    message = str(refused("a\x1b[2J\u202e" + "x" * 500, shown("ü\n" * 100), "go"))
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 500


# Listing and opening


def test_nothing_is_read_before_the_listing_is_in_order(folder, monkeypatch):
    (folder / "zz.exe").touch()
    monkeypatch.setattr("builtins.open", lambda *_, **__: pytest.fail("a file was opened"))
    with pytest.raises(Refused, match=r"zz\.exe"):
        read_folder(folder)


def test_a_name_that_was_not_listed_is_never_opened(folder):
    (folder.parent / "secret.json").write_text("{}")
    opened = read_folder(folder)
    for name in ("../secret.json", "cells/../entry.json", "/etc/passwd", str(folder / "entry.json"), "a\0.json"):
        with pytest.raises(Refused, match="it is missing"):
            opened.json(name)
        with pytest.raises(Refused, match="it is missing"):
            opened.digest(name)


def test_a_picture_is_no_json_and_the_other_way_round(folder):
    opened = read_folder(folder)
    with pytest.raises(Refused, match=r"ends in \.json belongs here"):
        opened.json("sheets/0000000000000000.png")
    with pytest.raises(Refused, match=r"ends in \.png belongs here"):
        opened.png("entry.json")


def test_a_folder_that_is_missing_or_may_not_be_read_is_refused(tmp_path):
    with pytest.raises(Refused, match=r"nothing: it cannot be opened \(No such file or directory\)"):
        read_folder(tmp_path / "nothing")


def swap_for_a_link(path):
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def swap_for_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def swap_for_a_folder(path):
    path.unlink()
    path.mkdir()


def swap_for_another(path):
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def grow(path):
    path.write_bytes(path.read_bytes() + b" " * 10_000_000)


def swap_the_folder_for_a_link(path):
    outside = path.parent.parent.parent / "outside"
    path.parent.rename(outside)
    path.parent.symlink_to(outside)
    swap_for_another(path)


SWAPS = {
    swap_for_a_link: "cannot be opened",
    swap_for_a_pipe: "changed after it was listed",
    swap_for_a_folder: "cannot be opened",
    swap_for_another: "changed after it was listed",
    swap_the_folder_for_a_link: "changed after it was listed",
    grow: "changed after it was listed",
    Path.unlink: "cannot be opened",
}


@pytest.mark.parametrize(("swap", "words"), SWAPS.items(), ids=[swap.__name__ for swap in SWAPS])
@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_that_changes_after_the_listing_is_refused_without_waiting(folder, swap, words, read_before):
    path = cell_of(folder)
    name = f"cells/{path.name}"
    opened = read_folder(folder)
    if read_before:
        opened.json(name)
    swap(path)
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the reader waits"))
    signal.alarm(10)
    try:
        with pytest.raises(Refused, match=words):
            opened.json(name)
    finally:
        signal.alarm(0)


def test_a_digest_is_that_of_the_bytes_that_were_read(folder):
    opened = read_folder(folder)
    for name in opened.names:
        assert opened.digest(name) == hashlib.sha256((folder / name).read_bytes()).hexdigest()


@pytest.mark.parametrize("longer", [0, 1])
def test_content_that_changes_under_the_same_mark_is_refused(folder, monkeypatch, longer):
    opened = read_folder(folder)
    if not longer:
        opened.digest("entry.json")
    size = (folder / "entry.json").stat().st_size
    (folder / "entry.json").write_bytes(b"{" + b" " * (size - 2 + longer) + b"}")
    monkeypatch.setattr("leaderboards.untrusted.folder._mark", lambda _: opened.marks["entry.json"])
    with pytest.raises(Refused, match="changed after it was listed"):
        opened.json("entry.json")


def test_an_empty_file_that_changes_is_refused(folder):
    (folder / "entry.json").write_bytes(b"")
    opened = read_folder(folder)
    (folder / "entry.json").write_bytes(b"{}")
    with pytest.raises(Refused, match="changed after it was listed"):
        opened.digest("entry.json")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (ReadLimits(most_files=6), "more than 6 files"),
        (ReadLimits(most_bytes=100), "allowed are 100"),
        (ReadLimits(folders_deep=0), "more than 0 deep"),
        (ReadLimits(name_length=10), "longer than 10"),
        (ReadLimits(json_bytes=50), "allowed are 50"),
        (ReadLimits(json_depth=2), "more than 2 deep"),
        (ReadLimits(json_values=5), "more than 5 values"),
        (ReadLimits(text_length=30), "allowed are 30"),
        (ReadLimits(number_length=3), "more than 3 characters"),
        (ReadLimits(png_bytes=50), "allowed are 50"),
        (ReadLimits(png_pixels=95), "allowed are 95"),
        (ReadLimits(png_side=11), "allowed are 16000000 and 11 on a side"),
        (ReadLimits(png_chunks=2), "more than 2 chunks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_limit_is_kept(folder, limits, words):
    with pytest.raises(Refused, match=words):
        read_all(folder, limits)


def test_a_folder_at_its_limits_passes(folder):
    sizes = [path.stat().st_size for path in folder.rglob("*.*")]
    largest = {ending: max(path.stat().st_size for path in folder.rglob(f"*.{ending}")) for ending in ("json", "png")}
    read_all(
        folder,
        replace(
            LIMITS,
            most_files=7,
            most_bytes=sum(sizes),
            folders_deep=1,
            name_length=21,
            json_bytes=largest["json"],
            json_depth=3,
            text_length=37,
            number_length=4,
            png_bytes=largest["png"],
            png_pixels=96,
            png_side=12,
            png_chunks=3,
        ),
    )


# JSON

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('az"\\[]{},:é日'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a"\\[]{},'), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def depth_of(value):
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(depth_of, inside), default=0)


@given(st.dictionaries(st.text('a"\\[]{},'), VALUES, max_size=4), st.booleans())
def test_a_json_in_order_is_read_as_it_was_written_and_refused_one_level_below_its_depth(value, ascii_only):
    content = json.dumps(value, ensure_ascii=ascii_only)
    depth = depth_of(value)
    assert parsed(content, replace(LIMITS, json_depth=depth)) == value
    with pytest.raises(Refused, match="deep"):
        parsed(content, replace(LIMITS, json_depth=depth - 1))


@given(st.binary(max_size=60) | st.text('{}[]",:\\0e-', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(content):
    with suppress(Refused):
        assert isinstance(parsed(b"{" + content), dict)


def test_only_the_texts_of_a_named_key_may_be_longer():
    config, note = "x" * 5000, "y" * 2000
    content = json.dumps({"config": [config], "note": note})
    assert parsed(content, config=5000) == {"config": [config], "note": note}
    with pytest.raises(Refused, match="5000 characters, allowed are 4999"):
        parsed(content, config=4999)
    with pytest.raises(Refused, match="2001 characters, allowed are 2000"):
        parsed(json.dumps({"config": config, "note": note + "y"}), config=5000)
    with pytest.raises(Refused, match="5000 characters, allowed are 2000"):
        parsed(json.dumps({"note": {"config": config}}), config=5000)


def test_numbers_at_the_edge_of_what_doubles_hold_are_read():
    edges = {"most": 2**53, "least": -(2**53), "large": 1.7976931348623157e308, "small": 5e-324, "zero": -0.0}
    assert parsed(json.dumps(edges)) == edges


@pytest.mark.parametrize(
    "text", ["Größe", "日本語", "नमस्ते", "Việt", "שלום", "سلام", "0 ≤ ½", "👍", "</script>", "'; --"]
)
def test_texts_of_living_languages_are_read(text):
    assert parsed(json.dumps({"a": text}, ensure_ascii=False)) == {"a": text}


# PNG


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 9, 3), (30, 20, 3)])
@pytest.mark.parametrize("kind", ["noise", "flat", "rows", "columns"])
def test_a_written_png_is_read_back_exactly_here_and_by_pillow(shape, kind):
    rng = np.random.default_rng(0)
    pixels = {
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "flat": np.full(shape, 200, np.uint8),
        "rows": np.broadcast_to(rng.integers(0, 256, shape[1:], dtype=np.uint8), shape),
        "columns": np.broadcast_to(rng.integers(0, 256, (shape[0], 1, *shape[2:]), dtype=np.uint8), shape),
    }[kind]
    before = pixels.copy()
    content = write_png(pixels)
    assert content == write_png(np.asfortranarray(pixels))
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(decoded(content, shape), pixels)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_the_filter_that_packs_best_is_chosen():
    rng = np.random.default_rng(0)
    steps = np.cumsum(np.broadcast_to(rng.integers(0, 256, 50, dtype=np.uint8), (50, 50)), axis=0, dtype=np.uint8)
    bits = rng.integers(0, 2, (50, 50), dtype=np.uint8) * np.uint8(255)
    for kind, pixels in enumerate((bits, steps.T, steps)):
        content = write_png(pixels)
        rows = zlib.decompress(content[41:-16])
        assert set(rows[::51]) == {kind}


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 3), np.uint8)],
    ids=lambda pixels: f"{pixels.dtype}{pixels.shape}",
)
def test_only_pictures_are_written(pixels):
    with pytest.raises(ValueError, match="pixels must be uint8"):
        write_png(pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_pillow_writes_is_read(mode):
    rng = np.random.default_rng(0)
    pixels = np.cumsum(rng.integers(0, 3, (40, 30, 3), dtype=np.uint8), axis=1, dtype=np.uint8)
    pixels = pixels if mode == "RGB" else pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    np.testing.assert_array_equal(decoded(file.getvalue()), pixels)


def test_the_wanted_shape_is_checked_before_the_pixels_are_unpacked():
    content = write_png(np.zeros((6, 4, 3), np.uint8))
    for shape in ((6, 4), (4, 6, 3), (6, 4, 1)):
        with pytest.raises(Refused, match="its shape is 6 x 4 x 3, wanted is"):
            decoded(content, shape)
    with pytest.raises(Refused, match="wanted is 7 x 4"):
        decoded(png(("IHDR", header(4, 6, 8, 0)), ("IDAT", b"not packed"), ("IEND", b"")), (7, 4))


def test_pixels_cannot_be_changed_by_accident():
    assert not decoded(write_png(np.zeros((6, 4), np.uint8))).flags.writeable


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(1, 300))
def test_a_spoilt_png_is_refused_and_never_decoded_to_something_else(place, byte, kept):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    content = write_png(pixels)
    spoilt = bytearray(content)
    spoilt[place % len(content)] = byte
    for changed in (bytes(spoilt), content[:kept]):
        if changed != content:
            with pytest.raises(Refused):
                decoded(changed)
