"""The engine: which blocks run, what becomes of failures, and what other processes did meanwhile."""

import time

import pytest

import leakboard
from attacks.floors.grey_image import GreyImage
from attacks.optimisation.inverting_gradients import InvertingGradients
from bench.devices import choose_device, default_threads
from bench.engines.local import LocalEngine
from bench.engines.run import prepare
from bench.errors import Unwritable
from bench.plan.description import begin
from bench.plan.groups import Group
from bench.store.block_marks import DEATHS
from bench.store.store import Store
from bench.trial.clients import Clients


class Heard:
    """Notes what the engine says of the running work."""

    def __init__(self):
        self.trained, self.iterated = [], []

    def training(self, item, done, total):
        self.trained.append((done, total))

    def progress(self, work, done, total):
        self.iterated.append((done, total))


def outcome(engine, block, watch):
    """Status and reason of a block that runs alone."""
    [(_, status, reason)] = engine.run(Group([block]), watch)
    return status, reason


@pytest.fixture
def engine(grid_file, tmp_path):
    """Makes an engine for the small grid with overrides, its run begun in `tmp_path / "run"`."""

    def make(*overrides):
        config, registry, clients, plan = prepare(grid_file, overrides=overrides)
        store = Store(tmp_path / "run")
        store.create()
        begin(store, plan, clients)
        return LocalEngine(plan, registry, clients, store, config.engine, choose_device("cpu"))

    return make


def stamps(engine):
    return {path.name: path.stat().st_mtime_ns for path in engine.store.blocks.glob("*.json")}


def test_a_control_that_found_nothing_to_borrow_runs_once_there_is_something(grid_file, tmp_path, monkeypatch):
    def fail(self, observation, seeds):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as broken:
        broken.setattr(InvertingGradients, "reconstruct", fail)
        run = leakboard.run(grid_file, output=tmp_path / "run")
    assert run.counts() == {"ok": 18, "error": 3, "skipped": 3}
    leakboard.run(grid_file, output=tmp_path / "run")
    assert run.counts() == {"ok": 18, "error": 3, "skipped": 3}
    leakboard.run(grid_file, output=tmp_path / "run", retry=["error"])
    assert run.counts() == {"ok": 24}


def test_a_control_without_a_second_client_is_not_tried_again(grid_file, tmp_path):
    overrides = ["grid.images=1"]
    run = leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides)
    before = {path.name: path.stat().st_mtime_ns for path in run.store.blocks.glob("*.json")}
    said = []
    leakboard.run(grid_file, output=tmp_path / "run", overrides=overrides, say=said.append)
    assert said == [f"nothing left to run in {run.folder}"]
    assert before == {path.name: path.stat().st_mtime_ns for path in run.store.blocks.glob("*.json")}


def test_an_attack_that_leaves_the_process_is_a_failed_cell(engine, monkeypatch):
    def leave(self, observation, seeds):
        raise SystemExit(3)

    monkeypatch.setattr(GreyImage, "reconstruct", leave)
    own = engine()
    block = next(block for block in own.pending(()) if block.cell.attack.name == "grey_image")
    assert outcome(own, block, Heard()) == ("error", "SystemExit: 3")


def test_a_block_that_another_process_has_finished_is_left_alone(engine):
    one, other = engine(), engine()
    blocks = one.pending(())
    for block in blocks:
        outcome(other, block, Heard())
    before, heard = stamps(one), Heard()
    assert [outcome(one, block, heard) for block in blocks] == [("ok", None)] * len(blocks)
    assert stamps(one) == before
    assert heard.iterated == []


def test_the_slower_of_two_processes_on_a_block_throws_its_result_away(engine):
    """Arrays of one and the record of the other would not belong together."""
    one, other = engine(), engine()
    block = one.pending(())[0]

    published = []

    class Overtaken(Heard):
        def progress(self, work, done, total):
            if done == 1:
                outcome(other, block, Heard())
                published.append(stamps(one))

    assert outcome(one, block, Overtaken()) == ("ok", None)
    assert [stamps(one)] == published


def test_a_block_is_given_up_after_two_deaths_and_tried_again_when_asked(engine):
    own = engine()
    block = own.pending(())[0]
    deaths = own.store.blocks / f"{block.id}.deaths"
    deaths.write_text(str(DEATHS - 1))
    assert outcome(own, block, Heard())[0] == "ok"
    (own.store.blocks / f"{block.id}.json").unlink()
    deaths.write_text(str(DEATHS))
    heard = Heard()
    status, reason = outcome(own, block, heard)
    assert (status, heard.iterated) == ("crashed", [])
    assert "died 2 times" in reason
    assert "engine.chunk" in reason
    assert block not in own.pending(())
    assert block in own.pending(["crashed"])
    assert outcome(own, block, heard)[0] == "ok"


def test_a_restarted_process_does_not_try_again_what_its_command_has_tried(engine, monkeypatch):
    """Else three blocks that always kill their process would kill it not 6 times but 26."""
    own = engine()
    blocks = own.pending(())
    for block in blocks:
        own.store.write_record(
            block.id, {"status": "error", "fingerprint": own.plan.fingerprints[block.id], "reason": "out of luck"}
        )
    assert own.pending(()) == []
    assert own.pending(["error"]) == blocks
    assert own.pending(["error"], since=blocks[5].id) == blocks[5:]


def test_training_is_heard_of_and_costs_the_attack_no_time(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("LEAKBOARD_CACHE", str(tmp_path / "cache"))
    own = engine("grid.weights=[1]", "engine.timeout=5.0")
    plain = Clients.release

    def slow(self, block, progress=None):
        started = time.perf_counter()
        released = plain(self, block, progress)
        clock.append(20.0 + time.perf_counter() - started)  # as if the training had taken so long
        return released

    clock, real = [0.0], time.perf_counter
    monkeypatch.setattr(Clients, "release", slow)
    monkeypatch.setattr("bench.engines.blocks.time.perf_counter", lambda: real() + clock[-1])
    heard = Heard()
    assert outcome(own, own.pending(())[0], heard)[0] == "ok"
    assert heard.trained[-1] == (11, 11)  # 1,437 images in batches of 128
    assert heard.iterated[-1] == (4, 4)


def test_a_full_disk_stops_the_run_and_leaves_no_mark(engine, monkeypatch):
    own = engine()
    first, second, *_ = own.pending(())
    assert outcome(own, first, Heard())[0] == "ok"
    before = sorted(path.name for path in own.store.blocks.iterdir())

    def full(path, content):
        raise Unwritable(path, OSError(28, "No space left on device"))

    monkeypatch.setattr("bench.store.store.publish", full)
    with pytest.raises(Unwritable, match="No space left"):
        outcome(own, second, Heard())
    assert sorted(path.name for path in own.store.blocks.iterdir()) == before


def test_as_many_threads_as_the_user_says(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    for nonsense in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert default_threads() >= 1
