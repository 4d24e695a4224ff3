"""Entries hold what their run holds: the same figures, the same pictures, and how to make them again."""

from __future__ import annotations

import shlex
from dataclasses import replace
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
from pandas.api.types import is_numeric_dtype
from tiny_board import BOARDS as BOARDS_OF_TESTS
from tiny_board import NOISE, PICTURES, PLUGIN, PUBLIC, RUNS, TRAININGS

import leakboard
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.grid.config import from_toml, load_config, to_toml
from bench.grid.reading import GridText
from bench.registry.registry import Registry
from bench.store.store import Store
from defenses.defense import Defense
from leaderboards.entries.board import BOARDS, built_in_defenses, grid_source, load_board, proving_defenses, rule_of_run
from leaderboards.entries.entry import _place
from leaderboards.entries.packing import Author, write_entry
from leaderboards.entries.published import published
from leaderboards.entries.reviews import Review, write_review
from leaderboards.evidence.code_reviews import CodeReviews, Reading
from leaderboards.evidence.question import questions
from leaderboards.figures.gallery import StoredImages
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.ranking import ranking
from leaderboards.ranking.verdicts import RankingRule
from leaderboards.tables.exports import standings_frame


@pytest.mark.parametrize("name", [PICTURES, TRAININGS, PUBLIC])
def test_the_ranking_of_a_board_s_entries_is_that_of_the_run_that_they_were_packed_from(tiny, name):
    store, rule = Store.existing(tiny.parent / name), load_board(name).rule
    from_run = standings_frame(ranking(questions(store.frame()), rule, costs_of(store.jobs_frame())))
    entries = published(name, tiny).entries
    images, jobs = published(name, tiny).frames()
    from_entries = standings_frame(ranking(questions(images), rule, costs_of(jobs)))
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
        _, _, _, plan = prepare(grid_source(words[2]), Registry(plugins), **asked)
        own = {cell.identity.cell for cell in entry.cells}
        assert own <= {cell.id for cell in plan.cells}
        assert own >= {cell.id for cell in plan.cells if cell.defense[0].name != "none"}


def test_an_added_attack_is_part_of_the_command(tiny, tmp_path):
    done = leakboard.run(
        f"board:{PICTURES}", output=tmp_path / "run", defenses=["zeros"], attacks=["euclidean_adam(iterations=2)"],
        overrides=["engine.execution=eager", "engine.threads=1"],
    )  # fmt: skip
    write_entry(done.folder, tmp_path, "zeros", Author("Tester"))
    config = load_config(grid_source(f"board:{PICTURES}"), defenses=["zeros"])
    assert "euclidean_adam" not in [attack.name for attack in config.grid.attacks]
    text = (tmp_path / "zeros" / "entry.json").read_text()
    assert "--defense zeros --attack 'euclidean_adam(iterations=2)'" in text


@pytest.mark.parametrize(
    ("name", "author", "defenses", "words"),
    [
        ("noise", Author("Tester"), ["dp_sgd"], "is there already; give another --name"),
        ("other", Author("Tester"), ["dp_sdg"], "the run's plan has no defense 'dp_sdg'; did you mean 'dp_sgd'"),
        ("other", Author("Tester", repository="https://a.b/c"), ["dp_sgd"], "commit and file missing"),
        ("other", Author("Tester", "", "https://a.b/c", "0" * 40, PLUGIN / "x"), ["dp_sgd"], "cannot read the plugin"),
    ],
)
def test_what_cannot_be_packed_is_said_with_its_reason(tiny, name, author, defenses, words):
    with pytest.raises(ConfigurationError, match=words):
        write_entry(tiny.parent / PICTURES, tiny / PICTURES, name, author, defenses)


def test_a_run_of_no_board_and_an_unfinished_one_are_not_packed(tiny, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        '[grid]\ndataset = "digits"\nmodels = ["mlp"]\nimages = 2\nattacks = ["grey_image", "label_rule"]\n'
        'defenses = ["none"]\n'
    )
    done = leakboard.run(grid, output=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="is no run of a board; make one with `leakboard run board:NAME"):
        write_entry(done.folder, tmp_path, "mine", Author("Tester"))
    store = Store.existing(tiny.parent / PICTURES)
    removed = next(path for path in sorted(store.blocks.glob("*.json")))
    content = removed.read_bytes()
    removed.unlink()
    try:
        with pytest.raises(ConfigurationError, match="pending: finish the run"):
            write_entry(
                store.folder, tmp_path, "all", Author("Tester"), list({d.split("(")[0] for d in RUNS[PICTURES]})
            )
    finally:
        removed.write_bytes(content)
    assert NOISE.startswith("dp_sgd")


def test_the_questions_of_entries_are_in_the_order_of_a_run_untrained_first(tiny):
    [entry, *_] = published(PICTURES, tiny).entries
    trained = [
        c.model_copy(update={"identity": c.identity.model_copy(update={"weights": "epochs=1"})}) for c in entry.cells
    ]
    order = sorted([*trained, *entry.cells], key=_place)
    assert list(dict.fromkeys(cell.identity.weights for cell in order)) == ["untrained", "epochs=1"]


def test_a_review_of_an_entry_to_a_board_that_has_changed_ranks_nobody(tiny, tmp_path, monkeypatch):
    folder, own = tmp_path / "published", tmp_path / "boards"
    copytree(tiny / PICTURES, folder / PICTURES)
    for entry in published(PICTURES, folder).entries:
        review = Review(entry_sha256=entry.digest, state="re-run", checked_by="Tester", commit=None, reruns=[])
        write_review(folder / PICTURES, entry.name, review)
    before = published(PICTURES, folder)
    assert len(before.ranked) == len(before.entries) == 4
    copytree(BOARDS_OF_TESTS, own)
    text = (own / f"{PICTURES}.toml").read_text()
    (own / f"{PICTURES}.toml").write_text(text + "\n# another file\n")
    monkeypatch.setenv(BOARDS, str(own))
    after = published(PICTURES, folder)
    assert after.ranked == ()
    assert {after.state(entry.name) for entry in after.entries} == {"self-reported"}


def test_a_run_in_which_everything_failed_and_a_name_that_is_none_are_not_packed(tiny, tmp_path):
    with pytest.raises(ConfigurationError, match="name: String should match pattern"):
        write_entry(tiny.parent / PICTURES, tmp_path, "../Mine", Author("Tester"), ["dp_sgd"])
    with pytest.raises(ConfigurationError, match="submitter: String should have at least 1 character"):
        write_entry(tiny.parent / PICTURES, tmp_path, "mine", Author(""), ["dp_sgd"])
    assert list(tmp_path.iterdir()) == []


def test_the_sheet_of_a_cell_shows_each_image_s_answers_to_held_out_clients_one_after_the_other(tiny):
    store, shown = Store.existing(tiny.parent / PUBLIC), 0
    blocks = {cell["cell"]: [block["id"] for block in cell["blocks"]] for cell in store.plan()["cells"]}
    for entry in published(PUBLIC, tiny).entries:
        for cell in (cell for cell in entry.cells if cell.identity.attack_name == "same_class"):
            tiles, columns = entry.images(cell), cell.columns
            assert (len(tiles), len(columns.found_label), len(columns.ssim)) == (16, 16, 4)
            for block in blocks[cell.identity.cell]:
                stored = store.arrays(block)
                for row in store.record(block)["images"]:
                    trial, slots = row["position"]
                    for client, slot in enumerate(slots):
                        place = 4 * row["image"] + client
                        answer = stored["images"][trial, client, slot].transpose(1, 2, 0)
                        assert np.array_equal(tiles[place], answer)
                        assert columns.found_label[place] == stored["labels"][trial, client, slot]
                        shown += 1
    assert shown == 3 * 2 * 16


def test_entries_hold_what_answers_to_held_out_clients_score_against_their_own_images_and_others_have_no_column(tiny):
    images, _ = published(PUBLIC, tiny).frames()
    own = images["attack_name"] == "same_class"
    assert images.loc[own, "held_out_ssim"].notna().all()
    assert images.loc[~own, "held_out_ssim"].isna().all()
    assert not [name for name in published(PICTURES, tiny).frames()[0] if name.startswith("held_out")]


def test_a_run_of_a_board_is_ranked_by_its_rule(tiny):
    found = rule_of_run(tiny.parent / PICTURES)
    assert replace(found, reviews=CodeReviews()) == load_board(PICTURES).rule
    assert replace(rule_of_run(tiny), reviews=CodeReviews()) == RankingRule()


def test_the_built_in_defenses_that_state_a_proof_are_known_without_importing_them():
    registry = Registry()
    own = {name for name in built_in_defenses() if registry.cls("defense", name).privacy is not Defense.privacy}
    assert proving_defenses() == own == {"dp_sgd"}


def test_a_run_knows_who_has_read_a_plugin_from_its_grid_file(tmp_path):
    (tmp_path / "run.toml").write_text('[[reviews]]\ndefense = "mine"\nread_by = "Ada"\nread = "It sends signs."\n')
    reviews = rule_of_run(tmp_path).reviews
    assert reviews.readings == {"mine": Reading("Ada", "It sends signs.")}
    names = ("mine", "dp_sgd | mine", "other", "dp_sgd")
    unread = [reviews.is_unread({"defense_name": name}, proven=False) for name in names]
    assert unread == [False, False, True, False]
    (tmp_path / "run.toml").write_text('[[reviews]]\ndefense = "mine"\nread = "It sends signs."\n')
    with pytest.raises(ConfigurationError, match=r"reviews\[0\]\.read_by is missing"):
        rule_of_run(tmp_path)
    (tmp_path / "run.toml").write_text(2 * '[[reviews]]\ndefense = "mine"\nread_by = "Ada"\nread = "Signs."\n')
    with pytest.raises(ConfigurationError, match="'mine' is there twice"):
        rule_of_run(tmp_path)


SIGNS = """from leakboard import Defense
class Mine(Defense):
    def transform(self, task, update, rng):
        return {name: u.sign() for name, u in update.items()}
"""


def test_the_statements_about_plugins_that_a_grid_file_makes_are_kept_with_its_run(tmp_path):
    plain = load_config("quick")
    stated = '\n[[reviews]]\ndefense = "mine"\nread_by = "Ada"\nread = "It sends signs."\n'
    (tmp_path / "mine.py").write_text(SIGNS)
    registry = Registry([tmp_path / "mine.py"])
    found = load_config(GridText("quick", to_toml(plain) + stated, "a grid"), registry=registry)
    assert "reviews" not in plain.resolved()
    assert from_toml(to_toml(found), registry) == found
    assert [own.read_by for own in found.reviews] == ["Ada"]


def test_a_broken_proof_of_one_entry_says_nothing_of_another_s(tiny):
    _, jobs = published(TRAININGS, tiny).frames()
    [own] = [label for label in jobs["defense"].unique() if label.startswith("dp_sgd")]
    stranger = jobs[jobs["defense"] == own].assign(defense="dp_sgd | strange", defense_name="dp_sgd | strange")
    broken = stranger.assign(entry="strange", successes=stranger["trials"], bound=0.1)
    row = {"dataset": jobs["dataset"].iloc[0], "model": jobs["model"].iloc[0], "weights": "untrained"}
    honest = row | {"defense": own, "defense_name": "dp_sgd"}
    costs = costs_of(pd.concat([jobs, broken]))
    assert costs.broken(row | {"defense": "dp_sgd | strange", "defense_name": "dp_sgd | strange"})
    assert not costs.broken(honest)
    assert costs_of(pd.concat([jobs, broken]).drop(columns="entry")).broken(honest), "in one run the code is one"
