"""A key or parameter that joins after boards were published changes nothing of them, wherever it is at its default."""

import ast
import inspect
import sys
from types import ModuleType, SimpleNamespace
from typing import Annotated

import pandas as pd
import pytest

from attacks.analytic import linear_layer
from bench.columns import LATER, as_published
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.grid.config import load_config
from bench.grid.sections import BoardRules, GridSection, Since
from bench.registry.registry import Registry
from bench.registry.signatures import parameters_in, parameters_of, subclasses_in
from leaderboards.checks.board import configuration_faults
from leaderboards.checks.cells import cell_faults
from leaderboards.checks.submission import Submission
from leaderboards.entries.board import BOARDS, grid_source, load_board
from leaderboards.entries.packing import JOB_IDENTITY, packed_jobs
from leaderboards.entries.published import PUBLISHED, published

FROZEN = "cifar10-samples-v1"
LATE = '    depth: int = field(default=1, metadata={"since": 2})\n'
PLAIN = "    depth: int = 1\n"


@pytest.fixture
def added(monkeypatch):
    """Adds a line to the fields of `linear_layer`, as a later version of its file would; returns the file's text."""
    text, mark = inspect.getsource(linear_layer), "    iterations: int = 1000\n"
    assert text.count(mark) == 1

    def add(line):
        changed = text.replace(mark, mark + line).replace("import dataclass\n", "import dataclass, field\n")
        module = ModuleType(linear_layer.__name__)
        module.__file__ = linear_layer.__file__
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(changed, module.__file__, "exec"), module.__dict__)
        return changed

    return add


def choices():
    """Ids, labels and calls of the frozen board's plan, and its resolved configuration."""
    config = load_config(grid_source(f"board:{FROZEN}"), defenses=["none"])
    _, _, _, plan = prepare(config)
    attacks = [cell.attack for cell in plan.cells]
    return [cell.id for cell in plan.cells], [(a.label, a.call, a.canonical) for a in attacks], config.resolved()


def faults():
    """The faults that a check finds in the configuration and the cells of a published entry."""
    found = published(FROZEN)
    submission = Submission(found.entries[0], found, PUBLISHED / FROZEN / "none")
    return [*configuration_faults(submission), *cell_faults(submission)]


def test_a_parameter_with_since_leaves_ids_labels_calls_and_published_entries_as_they_are(added):
    before = choices()
    added(LATE)
    assert "depth" in {p.name for p in parameters_of(Registry().cls("attack", "linear_layer"))}
    assert choices() == before
    assert faults() == []


def test_a_parameter_without_since_would_break_what_is_published(added):
    before = choices()
    added(PLAIN)
    assert all(mine != its for mine, its in zip(choices(), before, strict=True))
    assert any(fault.startswith("grid.attacks") for fault in faults())


def test_a_later_parameter_away_from_its_default_is_part_of_label_call_and_id(added):
    added(LATE)
    [[asked], [written]] = Registry().expand("attack", ["linear_layer(depth=2)", "linear_layer(depth=1)"])
    assert asked.label == "linear_layer(depth=2)"
    assert "depth=2" in asked.call
    assert written == Registry().expand("attack", ["linear_layer"])[0][0]
    assert Registry().build("attack", asked).depth == 2
    assert Registry().build("attack", written).depth == 1


def test_since_is_read_from_the_source_as_from_the_class(added):
    [node] = subclasses_in(ast.parse(added(LATE)), "Attack")
    own = parameters_of(Registry().cls("attack", "linear_layer"))
    assert parameters_in(node) == own
    assert {p.name: p.since for p in own if p.since} == {"depth": 2}


JOB_ROWS = [
    dict.fromkeys(JOB_IDENTITY, "a") | {"status": "ok", "defense": "none"},
    dict.fromkeys(JOB_IDENTITY, "a") | {"status": "ok", "defense": "larger_batch(examples=4)"}
    | {"accuracy_at_equal_images": 0.5},
]  # fmt: skip


class Later(GridSection):
    old: int = 1
    new: Annotated[int, Since(2)] = 3


def test_a_later_key_is_written_only_away_from_its_default():
    assert Later().model_dump() == Later(new=3).model_dump() == {"old": 1}
    assert Later(new=4).model_dump() == {"old": 1, "new": 4}
    assert Later.model_validate(Later().model_dump()) == Later()


def test_plans_and_entries_leave_a_later_column_out_at_its_default(monkeypatch):
    monkeypatch.setitem(LATER, "luck", 7)
    assert as_published({"seed": 0, "luck": 7}) == {"seed": 0}
    assert as_published({"seed": 0, "luck": 8}) == {"seed": 0, "luck": 8}


def test_an_entry_leaves_a_later_figure_of_a_job_out_where_nothing_was_measured():
    jobs = pd.DataFrame([row | {"defense_parameters": "[{}]"} for row in JOB_ROWS])
    plain, larger = packed_jobs(SimpleNamespace(jobs_frame=lambda: jobs), ["none", "larger_batch(examples=4)"])
    assert "accuracy_at_equal_images" not in plain["figures"]
    assert larger["figures"]["accuracy_at_equal_images"] == 0.5
    assert plain["figures"].keys() == published("fashion-mnist-v1").entries[0].jobs[0].figures.keys()


def test_a_key_that_the_board_does_not_have_is_not_the_board_s_configuration():
    found = published(FROZEN)
    entry = found.entries[0]
    grid = entry.manifest.config["grid"] | {"luck": 8}
    entry.manifest.config["grid"] = grid
    assert list(configuration_faults(Submission(entry, found, PUBLISHED / FROZEN / "none"))) == [
        "grid.luck is 8, the board's is None; run the board as it is"
    ]


def test_a_board_is_judged_by_the_rules_of_its_time():
    assert load_board(FROZEN).rule.rules == 1
    assert "rules" not in BoardRules(title="t", summary="s", required=("a",)).model_dump()


def test_rules_that_nobody_has_written_are_refused(tmp_path, monkeypatch):
    text = load_board(FROZEN).text.replace("[board]\n", "[board]\nrules = 9\n")
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setenv(BOARDS, str(tmp_path))
    with pytest.raises(ConfigurationError, match="rules must be 1 or 2, got 9"):
        load_board("mine")
