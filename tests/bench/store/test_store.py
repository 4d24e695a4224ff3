"""The folder of a run: files that are whole or absent, marks of dead processes, damage, and the table that is read."""

import errno
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout

from bench.errors import ConfigurationError, Unwritable
from bench.store import store as frames
from bench.store import whole_files
from bench.store.block_marks import BlockMarks
from bench.store.store import Store
from bench.store.whole_files import process_name, publish, sweep

BLOCKS = ("aaaa-00000-00002", "aaaa-00002-00004", "bbbb-00000-00002")


@pytest.fixture
def store(tmp_path):
    """A run of two cells: the first finished over four images, the second of one block failed."""
    store = Store(tmp_path / "run")
    store.create()
    cells = [
        {
            "cell": name,
            "attack": attack,
            "defense": "none",
            "control": False,
            "skip": None,
            "blocks": [
                {"id": block, "start": int(block[5:10]), "stop": int(block[11:]), "fingerprint": "f"}
                for block in BLOCKS
                if block.startswith(name)
            ],
        }
        for name, attack in (("aaaa", "first"), ("bbbb", "second"))
    ]
    store.write_arrays(store.folder / "truth-0.npz", images=np.zeros((4, 1, 8, 8), np.uint8))
    plan = {"version": 1, "cells": cells, "truth": "truth-0.npz", "expect": None}
    store.write_text("plan.json", json.dumps(plan))
    for block in BLOCKS[:2]:
        start = int(block[5:10])
        rows = [
            {"image": i, "trial": i, "position": [i - start, 0], "true_label": 3, "psnr_db": 20.0 + i, "ssim": None}
            for i in (start, start + 1)
        ]
        stored = store.write_arrays(store.blocks / f"{block}.npz", images=np.full((2, 1, 1, 8, 8), start, np.uint8))
        made = {"scoring": "s", "cost": {"chunk": 2}, "provenance": {"device": "cpu"}}
        store.write_record(block, {"status": "ok", "fingerprint": "f", "images": rows, **made, **stored})
    store.write_record(BLOCKS[2], {"status": "error", "fingerprint": "f", "reason": "out of luck"})
    return store


def left_in(folder):
    """Names of what no reader asks for."""
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".tmp", ".running", ".deaths"))


def a_dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "record.json"
    publish(path, b"old")
    monkeypatch.setattr(whole_files.os, step, no_space)
    with pytest.raises(Unwritable, match=r"cannot write .*record\.json: No space left on device; free some space and"):
        publish(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["record.json"]


def test_a_disk_that_takes_half_a_file_leaves_none_of_it(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(Unwritable, match="File too large; free some space"):
            publish(tmp_path / "large", bytes(4000))
        publish(tmp_path / "small", bytes(400))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["small"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, sizes = tmp_path / "file", set()
    publish(path, b"a" * 100_000)
    writer = threading.Thread(target=lambda: [publish(path, letter * 100_000) for letter in (b"b", b"a") * 20])
    writer.start()
    while writer.is_alive():
        content = path.read_bytes()
        sizes.add((len(content), len(set(content))))
    writer.join()
    assert sizes == {(100_000, 1)}


def test_what_dead_processes_left_is_swept_away_and_what_living_ones_write_is_not(tmp_path):
    machine, dead, living = platform.node(), a_dead_process(), os.getppid()
    keep = [f".x.json.{living}@{machine}.tmp", f"x.{living}@{machine}.running", ".x.json.7@elsewhere.tmp", "x.json"]
    drop = [f".x.json.{dead}@{machine}.tmp", f"x.{dead}@{machine}.running", f"y.{os.getpid()}@{machine}.running"]
    for name in keep + drop:
        (tmp_path / name).write_text("")
    yesterday = time.time() - 25 * 3600
    (tmp_path / ".y.json.7@elsewhere.tmp").write_text("")
    os.utime(tmp_path / ".y.json.7@elsewhere.tmp", (yesterday, yesterday))
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(keep)


def test_a_death_is_counted_on_the_block_that_the_process_had_in_flight(tmp_path):
    marks, dead = BlockMarks(tmp_path), a_dead_process()
    marks.start("one")
    assert marks.blame(dead) is None
    for count in (1, 2):
        (tmp_path / f"two.{process_name(dead)}.running").touch()
        assert marks.blame(dead) == "two"
        assert marks.deaths("two") == count
    assert marks.deaths("one") == 0
    marks.end("one")
    marks.forget("two")
    assert marks.deaths("two") == 0
    assert left_in(tmp_path) == []


def test_one_process_after_the_other_publishes(store):
    order = []

    def second():
        with Store(store.folder).turn():
            order.append("second")

    with store.turn():
        other = threading.Thread(target=second)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_killed_process_ends_its_turn(store):
    code = "import sys, time; from bench.store.store import Store\n"
    code += "with Store(sys.argv[1]).turn(): print('mine', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code, store.folder], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "mine\n"
    with pytest.raises(Timeout):
        FileLock(store.folder / "run.lock", timeout=0.1).acquire()
    child.kill()
    child.wait()
    with store.turn():
        pass


def test_where_there_are_no_locks_nobody_waits_and_nothing_is_left_to_wait_for(store, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with store.turn(), Store(store.folder).turn():
        assert left_in(store.folder) == []


def test_a_folder_that_takes_no_lock_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(Unwritable, match=r"cannot write .*file/run/run\.lock: Not a directory; make it writable and"),
        Store(tmp_path / "file" / "run").turn(),
    ):
        pass


def test_numbers_that_are_not_finite_become_null(store):
    store.write_record("cccc", {"status": "error", "fingerprint": "f", "values": [float("nan"), (float("inf"), 1.5)]})
    assert store.record("cccc")["values"] == [None, [None, 1.5]]


DAMAGE = {
    "half a record": lambda s: _edit(s, ".json", lambda b: b[: len(b) // 2]),
    "an empty record": lambda s: _edit(s, ".json", lambda b: b""),
    "bytes that are no text": lambda s: _edit(s, ".json", lambda b: b"\xff" + b),
    "no object": lambda s: _edit(s, ".json", lambda b: b"[1]"),
    "an unknown status": lambda s: _edit(s, ".json", lambda b: b.replace(b'"ok"', b'"fine"')),
    "a record without images": lambda s: _edit(s, ".json", lambda b: b.replace(b'"images"', b'"pictures"')),
    "a record without a fingerprint": lambda s: _edit(s, ".json", lambda b: b.replace(b'"fingerprint"', b'"print"')),
    "half the reconstructions": lambda s: _edit(s, ".npz", lambda b: b[: len(b) // 2]),
    "no reconstructions": lambda s: (s.blocks / f"{BLOCKS[0]}.npz").unlink(),
}


def _edit(store, suffix, change):
    path = store.blocks / f"{BLOCKS[0]}{suffix}"
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_block_counts_as_one_that_never_finished(store, damage):
    assert store.status_of(BLOCKS[0], "f") == "ok"
    DAMAGE[damage](store)
    assert store.status_of(BLOCKS[0], "f") == "pending"
    assert store.counts() == {"pending": 1, "ok": 1, "error": 1}
    frame = store.frame()
    assert frame.loc[frame["status"] == "ok", "image"].tolist() == [2, 3]


def test_a_changed_byte_of_the_reconstructions_is_noticed_where_they_are_read(store):
    _edit(store, ".npz", lambda b: b[:-30] + bytes([b[-30] ^ 1]) + b[-29:])
    with pytest.raises(ConfigurationError, match=rf"{BLOCKS[0]}\.npz is damaged: its SHA-256 .*; delete it and give"):
        store.arrays(BLOCKS[0])
    assert store.arrays(BLOCKS[1])["images"].shape == (2, 1, 1, 8, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"plan\.json is damaged: .*; delete it and give the run's command again"),
        ("[]", r"plan\.json is damaged: it holds no object"),
        ('{"version": 1, "cells": []}', r"plan\.json is damaged: it has no expect, truth"),
        ('{"version": 99}', r"plan\.json is of version 99, this Leakboard reads 1; run into another folder"),
    ],
)
def test_a_damaged_plan_is_a_message(store, content, message):
    (store.folder / "plan.json").write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        store.frame()


@pytest.mark.parametrize(
    ("break_it", "message"), [(lambda p: p.unlink(), "is missing"), (lambda p: p.write_bytes(b"PK"), "is damaged")]
)
def test_images_that_are_missing_or_damaged_are_a_message(store, break_it, message):
    break_it(store.folder / "truth-0.npz")
    with pytest.raises(ConfigurationError, match=rf"truth-0\.npz {message}.*the run's command again"):
        store.truth()


def test_another_fingerprint_makes_a_result_stale_and_a_failure_pending(store):
    assert store.status_of(BLOCKS[0], "other") == "stale"
    assert store.status_of(BLOCKS[2], "other") == "pending"
    assert store.status_of(BLOCKS[2], "f") == "error"


def test_the_frame_has_one_type_a_column_with_and_without_failures(store):
    frame = store.frame()
    assert frame["status"].tolist() == ["ok"] * 4 + ["error"]
    assert frame["reason"].tolist() == [""] * 4 + ["out of luck"]
    assert frame["image"].tolist()[:4] == [0, 1, 2, 3]
    assert frame["image"].isna().tolist() == [False] * 4 + [True]
    assert frame["psnr_db"].tolist()[:4] == [20.0, 21.0, 22.0, 23.0]
    assert frame["ssim"].isna().all()
    assert frame["device"].tolist()[0] == "cpu"
    assert "position" not in frame  # where the store keeps an image is its own affair
    whole = frame[frame["status"] == "ok"]
    for column in (*frames.RESULT_COUNTS, *frames.RESULT_FIGURES):
        wanted = pd.Int64Dtype() if column in frames.RESULT_COUNTS else np.dtype("float64")
        assert frame[column].dtype == whole[column].dtype == wanted, column
    assert frame["control"].dtype == bool


def test_a_folder_that_is_no_run_is_a_message_that_names_a_near_one(store, monkeypatch):
    monkeypatch.chdir(store.folder.parent)
    with pytest.raises(ConfigurationError, match=r"^nowhere is no run: it has no plan\.json; give the folder"):
        Store.existing("nowhere")
    (store.folder.parent / "runs").mkdir()
    store.folder.rename(store.folder.parent / "runs" / "mine")
    with pytest.raises(ConfigurationError, match="did you mean runs/mine"):
        Store.existing("mine")


def test_a_run_cannot_be_written_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot write a run to .*file/run: Not a directory; give another"):
        Store(tmp_path / "file" / "run").create()


def test_results_of_another_grid_are_counted(store):
    assert store.unplanned() == 0
    store.write_record("cccc-00000-00002", {"status": "error", "fingerprint": "f", "reason": ""})
    assert store.unplanned() == 1
