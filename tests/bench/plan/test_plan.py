"""The plan of a grid: the work that it takes, by the number of cells."""

import sys

import pytest

from bench.engines.run import prepare
from bench.plan import fingerprints
from bench.plan.description import begin
from bench.plan.plan import make_plan
from bench.store.store import Store

GRID = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [2] }]
images = 1
attacks = [{ name = "inverting_gradients", iterations = 4 }]
defenses = ["none"]

[grid.threat]
labels = ["known", "recovered", "joint"]
schedule_known = [true, false]
defense_known = [true, false]
"""


def calls_in(work):
    """The result of the work, and the number of function calls that it takes, in Python and in C."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        return work(), calls
    finally:
        sys.setprofile(None)


def test_the_work_to_plan_to_write_and_to_read_grows_with_the_number_of_cells_alone(tmp_path, monkeypatch):
    # The code of a method is digested once, whatever the number of its cells: a second of fixed work less.
    monkeypatch.setattr(fingerprints, "sources_fingerprint", lambda *_: "the code")
    (tmp_path / "grid.toml").write_text(GRID)
    config, registry, clients, _ = prepare(tmp_path / "grid.toml")
    cells, calls = [], []
    for seeds in (5, 10, 15):
        grid = config.grid.model_copy(update={"seeds": tuple(range(seeds))})
        larger, store = config.model_copy(update={"grid": grid}), Store(tmp_path / str(seeds))
        store.create()

        def plan_write_and_read(larger=larger, store=store):
            plan = make_plan(larger, registry, clients)
            begin(store, plan, clients)
            return len(plan.cells), len(list(store.states()))

        (planned, read), count = calls_in(plan_write_and_read)
        assert planned == read
        cells.append(planned)
        calls.append(count)
    assert cells == [320, 640, 960]
    assert calls[2] - calls[1] == pytest.approx(calls[1] - calls[0], rel=0.01)
