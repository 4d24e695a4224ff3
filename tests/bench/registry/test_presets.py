"""Versioned names of published settings: what they mean, and that they never change."""

import pytest

from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.grid.reading import presets
from bench.registry.presets import attack_presets
from bench.registry.registry import Registry, UnknownName
from bench.registry.specs import parse
from leaderboards.cli.grids import listing, render_listing

MILESTONES = [0.375, 0.625, 0.875]
PUBLISHED = {
    "ig@neurips20": (
        "inverting_gradients",
        {
            "iterations": 4800, "restarts": 1, "tv_weight": 1e-4, "learning_rate": 0.1, "milestones": MILESTONES,
            "decay": 0.1, "signed": True, "boxed": True, "orders": 1,
        },
    ),
    "ig@breaching": (
        "inverting_gradients",
        {
            "iterations": 24000, "restarts": 1, "tv_weight": 0.2, "learning_rate": 0.1, "milestones": MILESTONES,
            "decay": 0.1, "signed": True, "boxed": True, "orders": 1,
        },
    ),
}  # fmt: skip


def resolved(*values):
    return [spec for (spec,) in Registry().expand("attack", values)]


def test_the_settings_of_a_preset_never_change():
    """A new setting is a new name; this table only grows."""
    assert {name: (p.attack, p.parameters) for name, p in attack_presets().items()} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_says_all_parameters_of_its_attack_so_that_no_default_can_change_it(name):
    attack, parameters = PUBLISHED[name]
    [entry] = [e for e in Registry().descriptions("attack") if e.name == attack]
    assert list(parameters) == [p.name for p in entry.parameters]


def test_a_preset_is_the_attack_with_its_settings():
    plain = resolved("inverting_gradients(iterations=24000, tv_weight=0.2)")
    assert resolved("ig@breaching") == plain
    assert resolved({"name": "ig@breaching"}) == plain
    assert resolved("ig@breaching")[0].label == "inverting_gradients(iterations=24000, tv_weight=0.2)"
    assert len(resolved("ig@neurips20", "inverting_gradients", "ig@breaching(iterations=4800, tv_weight=0.0001)")) == 1


def test_a_preset_takes_overrides_and_axes():
    called, table = resolved("ig@neurips20(iterations=600)", {"name": "ig@breaching", "iterations": 600})
    assert (called.parameters["iterations"], called.parameters["tv_weight"]) == (600, 1e-4)
    assert (table.parameters["iterations"], table.parameters["tv_weight"]) == (600, 0.2)
    axes = resolved("ig@breaching(tv_weight=[0.1, 0.3], iterations=[1, 2])")
    assert [(s.parameters["tv_weight"], s.parameters["iterations"]) for s in axes] == [
        (0.1, 1), (0.1, 2), (0.3, 1), (0.3, 2),
    ]  # fmt: skip


def test_a_preset_s_cells_are_those_of_the_attack(grid_file):
    ids = []
    for attack in ("ig@neurips20(iterations=4)", "inverting_gradients(iterations=4)"):
        plan = prepare(grid_file, overrides=[f'grid.attacks=["{attack}"]'])[3]
        ids.append([cell.id for cell in plan.cells])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ig@neurips2", r"\[0\]: unknown attack 'ig@neurips2'; did you mean 'ig@neurips20'"),
        ("ig@breeching(iterations=3)", r"unknown attack 'ig@breeching'; did you mean 'ig@breaching'"),
        ({"name": "ig@neurips20", "iteration": 3}, r"unknown parameter 'iteration'; did you mean 'iterations'"),
    ],
)
def test_a_typo_gets_a_suggestion(value, message):
    with pytest.raises(ConfigurationError, match=message):
        Registry().expand("attack", [value])


def test_a_preset_of_an_attack_is_no_defense_and_no_grid():
    with pytest.raises(UnknownName, match="unknown defense 'ig@neurips20'"):
        Registry().expand("defense", ["ig@neurips20"])
    assert "attacks" not in presets()


@pytest.mark.parametrize("text", ["1@a", "a@1", "a@", "@a", "a@b@(c)"])
def test_what_is_no_name_with_a_version_is_refused(text):
    with pytest.raises(ConfigurationError):
        Registry().expand("attack", [text])


def test_a_versioned_name_is_read_bare_and_with_parameters():
    assert parse("ig@neurips20") == [("ig@neurips20", {})]
    assert parse("ig@neurips20(iterations=600)") == [("ig@neurips20", {"iterations": 600})]


def test_presets_are_listed_with_their_settings():
    rows = {row["name"]: row for row in listing("attacks", Registry())}
    row = rows["ig@breaching"]
    assert row["origin"] == "preset of inverting_gradients"
    assert {p["name"]: p["default"] for p in row["parameters"]} == PUBLISHED["ig@breaching"][1]
    assert rows["inverting_gradients"]["parameters"][0]["default"] == 4800
    assert list(rows) == sorted(rows)
    assert "ig@neurips20" in render_listing(listing("presets", Registry()))
