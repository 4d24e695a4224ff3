"""Entries hold what their run holds: the same figures, the same pictures, and how to make them again."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from pandas.api.types import is_numeric_dtype
from tiny_board import NOISE, PICTURES, PLUGIN, RUNS, TRAININGS

from bench.config import load_config
from bench.errors import ConfigurationError
from bench.runs import prepare, run
from bench.store import Store
from leaderboards.board import board
from leaderboards.packing import Author, pack
from leaderboards.publications import published
from leaderboards.ranking import ranking
from leaderboards.stored_images import StoredImages


@pytest.mark.parametrize("name", [PICTURES, TRAININGS])
def test_the_ranking_of_a_board_s_entries_is_that_of_the_run_that_they_were_packed_from(tiny, name):
    store, rule = Store.existing(tiny.parent / name), board(name).rule
    from_run = ranking(store.frame(), rule, store.jobs_frame())
    entries = published(name, tiny).entries
    images, jobs = published(name, tiny).frames()
    from_entries = ranking(images, rule, jobs)
    assert len(from_entries) == len(from_run) == sum(len(entry.defenses) for entry in entries)
    one, other = (frame.sort_values("defense").reset_index(drop=True) for frame in (from_run, from_entries))
    figures = [column for column in one if is_numeric_dtype(one[column]) and column != "defense_order"]
    assert len(figures) > 50
    for column in figures:
        mine, its = (frame[column].to_numpy(dtype=float, na_value=np.nan) for frame in (one, other))
        assert np.allclose(mine, its, rtol=1e-5, atol=1e-6, equal_nan=True), column
    for column in {*one} - {*figures, "defense_order"}:
        assert one[column].fillna("").tolist() == other[column].fillna("").tolist(), column


def test_the_sheets_of_an_entry_show_truth_and_reconstructions_by_image_number(tiny):
    stored = StoredImages(Store.existing(tiny.parent / PICTURES))
    shown = 0
    for entry in published(PICTURES, tiny).entries:
        truth = entry.truth()
        assert all(np.array_equal(truth[i], stored.truth(i)) for i in range(len(truth)))
        for cell in entry.cells:
            tiles = entry.images(cell)
            if tiles is None:
                assert cell.of is not None or cell.status != "ok"
                continue
            for i, tile in enumerate(tiles):
                assert np.array_equal(tile, stored.reconstruction(cell.identity.cell, i))
                shown += 1
    assert shown > 100


def test_the_command_of_an_entry_plans_its_cells_again(tiny):
    for entry in published(PICTURES, tiny).entries:
        words = shlex.split(entry.manifest.command)
        assert words[:2] == ["leakboard", "run"]
        options = {"--defense": [], "--attack": [], "--plugin": []}
        for key, value in zip(words[3::2], words[4::2], strict=True):
            options[key].append(value)
        plugins = [PLUGIN] if options["--plugin"] == [PLUGIN.name] else []
        asked = {"defenses": options["--defense"], "attacks": options["--attack"]}
        _, _, _, plan = prepare(words[2], plugins=plugins, **asked)
        own = {cell.identity.cell for cell in entry.cells}
        assert own <= {cell.id for cell in plan.cells}
        assert own >= {cell.id for cell in plan.cells if cell.defense[0].name != "none"}


def test_an_added_attack_is_part_of_the_command(tiny, tmp_path):
    done = run(
        f"board:{PICTURES}", output=tmp_path / "run", defenses=["zeros"], attacks=["euclidean_adam(iterations=2)"],
        overrides=["engine.execution=eager", "engine.threads=1"],
    )  # fmt: skip
    pack(done.folder, tmp_path, "zeros", Author("Tester"))
    config = load_config(f"board:{PICTURES}", defenses=["zeros"])
    assert "euclidean_adam" not in [attack.name for attack in config.grid.attacks]
    text = (tmp_path / "zeros" / "entry.json").read_text()
    assert "--defense zeros --attack 'euclidean_adam(iterations=2)'" in text


@pytest.mark.parametrize(
    ("name", "author", "defenses", "words"),
    [
        ("noise", Author("Tester"), ["dp_sgd"], "is there already; give another --name"),
        ("other", Author("Tester"), ["dp_sdg"], "the run has no defense 'dp_sdg'; did you mean 'dp_sgd'"),
        ("other", Author("Tester", repository="https://a.b/c"), ["dp_sgd"], "commit and file missing"),
        ("other", Author("Tester", "", "https://a.b/c", "0" * 40, PLUGIN / "x"), ["dp_sgd"], "cannot read the plugin"),
    ],
)
def test_what_cannot_be_packed_is_said_with_its_reason(tiny, name, author, defenses, words):
    with pytest.raises(ConfigurationError, match=words):
        pack(tiny.parent / PICTURES, tiny / PICTURES, name, author, defenses)


def test_a_run_of_no_board_and_an_unfinished_one_are_not_packed(tiny, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        '[grid]\ndataset = "digits"\nmodels = ["mlp"]\nimages = 2\nattacks = ["grey_image", "label_rule"]\n'
        'defenses = ["none"]\n'
    )
    done = run(grid, output=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="is no run of a board; make one with `leakboard run board:NAME"):
        pack(done.folder, tmp_path, "mine", Author("Tester"))
    store = Store.existing(tiny.parent / PICTURES)
    removed = next(path for path in sorted(store.blocks.glob("*.json")))
    content = removed.read_bytes()
    removed.unlink()
    try:
        with pytest.raises(ConfigurationError, match="pending: finish the run"):
            pack(store.folder, tmp_path, "all", Author("Tester"), list({d.split("(")[0] for d in RUNS[PICTURES]}))
    finally:
        removed.write_bytes(content)
    assert NOISE.startswith("dp_sgd")
