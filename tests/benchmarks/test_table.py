"""The benchmarks' table marks what is under its target, and its exit status says so."""

import pytest
import table


def case(ratio, *, mode="eager", **targets):
    figures = {"engine_ms": 1.0, "rival_ms": 3.5, "ratio": ratio, "share_of_peak": 0.25, "peak_memory_mib": 64.0}
    named = {"kind": "case", "name": "lenet-zhu", "trials": 8, "mode": mode, "precision": "float32", "gradient": "auto"}
    return {**named, **figures, "targets": targets}


def scaling(trials, engine_ms):
    return {"kind": "scaling", "name": "lenet-zhu", "trials": trials, "mode": "eager", "engine_ms": engine_ms}


def stored(*rows):
    return {"benchmarks": [{"extra_info": row} for row in rows], "machine_info": {"leakboard": {"threads": 2}}}


def test_a_goal_is_met_by_the_best_of_its_rows():
    lines, reached = table.lines_of(stored(case(3.0, speed=4), case(5.0, mode="compile", speed=4)))
    assert reached
    assert [line for line in lines if "3.00*" in line]
    assert "goal speed: 5.00, target 4" in lines


def test_a_goal_that_no_row_reaches_is_named_and_fails():
    lines, reached = table.lines_of(stored(case(3.0, speed=4), case(3.9, mode="compile", speed=4)))
    assert not reached
    assert "goal speed: 3.90, target 4 NOT REACHED" in lines


@pytest.mark.parametrize(("costs", "flat"), [((4.0, 1.0, 1.05), True), ((4.0, 1.0, 1.2), False)])
def test_a_cost_per_trial_that_rises_fails(costs, flat):
    rows = [scaling(trials, cost) for trials, cost in zip((1, 64, 256), costs, strict=True)]
    assert table.lines_of(stored(*reversed(rows)))[1] is flat


def test_the_ratio_to_a_peer_stands_in_the_row_of_the_same_case():
    peer = {**case(17.0), "kind": "peer"}
    lines, _ = table.lines_of(stored(case(12.0), peer))
    (row,) = [line for line in lines if "lenet-zhu" in line]
    assert "12.00" in row
    assert "17.00" in row
    assert lines[-1] == "threads 2"
