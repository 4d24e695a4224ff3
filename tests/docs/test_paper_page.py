"""The page of the paper's claims, from synthetic rows and from a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claims import Claim, Held, Line, Published, Variant
from claims_attacks import TABLE1
from orderings import Cells, Ordering, judge
from paper import CLAIMS, PUBLISHED, drawn, page, sentence
from published_run import Result, read, write

from bench.config import load_config
from bench.runs import run

HIGH, LOW = Cells("the high one", {"attack": "high"}), Cells("the low one", {"attack": "low"})


def rows(attack, psnr, *, images_per_update=1, status="ok", **also):
    """One row per image of an attack, in the columns that the page reads."""
    count = len(psnr)
    return pd.DataFrame(
        {
            "cell": attack, "attack": attack, "attack_name": attack, "attack_parameters": '{"iterations": 7}',
            "defense_parameters": "[{}]", "control": False, "status": status, "reason": "" if status == "ok" else "why",
            "seed": 0, "image": range(count), "trial": [i // images_per_update for i in range(count)],
            "images_per_update": images_per_update, "psnr_db": psnr, "ssim": 0.5, "identified": 1.0,
            "identification_pool": 20, "update_norm": 3.25, "weights": "untrained",
            "underpowered": 0.0, "weights_accuracy": None, **also,
        }
    )  # fmt: skip


def verdict(high, low, **also):
    return judge(Ordering(HIGH, LOW), pd.concat([rows("high", high, **also), rows("low", low)]))


def test_an_ordering_holds_or_not_by_the_interval_of_the_paired_difference():
    wide = np.array([10.0, 20, 30, 40, 50, 60])
    above = verdict(wide + np.tile([1, 2], 3), wide)
    assert (above.answer, above.units) == ("holds", 6)
    assert above.difference == pytest.approx(1.5)
    assert 1 <= above.low < 1.5 < above.high <= 2
    assert verdict(wide - np.tile([1, 2], 3), wide).answer == "does not hold"
    assert verdict(wide + np.tile([1, -1], 3), wide).answer == "not decided"


def test_images_are_paired_by_number_and_not_by_row():
    high, low = rows("high", [10.0, 20, 30, 40, 50]), rows("low", [9.0, 19, 29, 39, 49])
    found = judge(Ordering(HIGH, LOW), pd.concat([high.iloc[::-1], low]))
    assert (found.low, found.high) == (1.0, 1.0)


def test_the_images_of_one_client_are_one_unit():
    values = np.arange(12.0)
    assert verdict(values + 1, values, images_per_update=2).units == 6
    few = verdict(values + 1, values, images_per_update=4)
    assert (few.answer, few.units, few.reason) == ("not decided", 3, "fewer than 5 independent clients")


def test_a_side_that_is_absent_or_failed_decides_nothing():
    assert judge(Ordering(HIGH, LOW), rows("high", [1.0] * 6)).answer == "not run"
    failed = pd.concat([rows("high", [1.0] * 6), rows("low", [np.nan] * 6, status="oom")])
    found = judge(Ordering(HIGH, LOW), failed)
    assert (found.answer, found.reason) == ("not decided", "the low one is oom: why")


def test_two_attacks_under_the_floor_decide_nothing():
    low, high, floor = np.arange(6.0), np.arange(6.0) + 1, np.full(6, 9.0)
    frame = pd.concat([rows("high", high), rows("low", low), rows("floor", floor, control=True)])
    found = judge(Ordering(HIGH, LOW), frame)
    assert (found.answer, found.reason) == ("not decided", "both are under the strongest floor")
    assert (
        judge(Ordering(HIGH, LOW), frame.assign(psnr_db=frame["psnr_db"].where(~frame["control"], 3.0))).answer
        == "holds"
    )


def test_the_strongest_control_is_that_of_the_highest_mean():
    frame = pd.concat([rows("grey", [1.0, 9.0], control=True), rows("mean", [6.0, 6.0], control=True)])
    assert set(Cells("floor", {"control": True}, strongest="psnr_db").of(frame)["attack"]) == {"mean"}


def test_cells_can_be_chosen_by_the_parameters_of_attack_and_defense():
    frame = pd.concat(
        [
            rows("a", [1.0], defense_parameters='[{"epochs": 5}]'),
            rows("b", [1.0], attack_parameters='{"tv_weight": 0.1}'),
        ]
    )
    assert set(Cells("", {"defense.epochs": 5}).of(frame)["attack"]) == {"a"}
    assert set(Cells("", {"attack.tv_weight": 0.1}).of(frame)["attack"]) == {"b"}


def test_a_sentence_says_what_was_found_and_of_how_many():
    wide = np.array([10.0, 20, 30, 40, 50])
    held = Held(Ordering(HIGH, LOW))
    said = sentence(held, verdict(wide + 2, wide))
    assert said == "**holds**: *the high one* above *the low one*: +2.00 dB [+2.00, +2.00], 5 clients."
    asked = sentence(Held(Ordering(HIGH, LOW), asked=True), verdict(wide - 2, wide))
    assert asked.startswith("**the other way round (our question)**")


def test_the_page_puts_the_paper_s_figure_beside_ours_and_says_what_was_not_run(monkeypatch):
    lines = (Line(HIGH, Published(18.0, 3.33, remembered=False)), Line(LOW, Published(9.5, 1.0)))
    variants = (
        Variant("paper-x", lines, (), "Nothing."),
        Variant("paper-x-small", lines, (Held(Ordering(HIGH, LOW)),), "Fewer images."),
        Variant("paper-y-small", lines, (), "Nothing."),
    )
    monkeypatch.setattr("paper.CLAIMS", (Claim("x", "A claim", "It says so.", variants),))
    about = {"dataset": "D", "command": "leakboard run", "commits": ["c" * 40], "device": ["cpu"], "threads": [1]}
    frame = pd.concat([rows("high", [12.0] * 5), rows("low", [11.0] * 5)])
    text = page({"paper-x-small": Result("paper-x-small", frame, about | {"seconds": 60}, None)}, {})
    assert (
        "| the high one | 18.00 ± 3.33 | 12.00 ± 0.00 | -6.00 | [12.0, 12.0] | 0.50 | 100% @20 | 5 | 7 | 0% | 3.25 |"
        in text
    )
    assert "9.50 ± 1.00 [from memory]" in text
    assert "### `paper-x`\n\nNot run: no GPU was available." in text
    assert "### `paper-y-small`\n\nNot run.\n" in text
    assert "| [A claim](#x) | `paper-x-small` | 1 | 0 | 0 |" in text
    assert "Fewer images." in text


def test_only_the_verified_figure_of_table_1_is_not_marked_as_remembered():
    verified = [str(p) for pair in TABLE1.values() for p in pair if not p.remembered]
    assert verified == ["18.00 ± 3.33"]


def test_every_preset_of_a_claim_exists_and_has_the_models_and_weights_that_it_names():
    for claim in CLAIMS:
        for variant in claim.variants:
            grid = load_config(variant.preset).grid
            models = {model.label for model in grid.models}
            for line in variant.lines:
                where = line.cells.where
                assert where.get("model", next(iter(models))).removesuffix(", client in train mode") in models
                assert where.get("weights", "untrained") in {w.label for w in grid.weights}


def test_a_published_run_gives_the_rows_of_its_folder(tmp_path: Path):
    small = Path(__file__).parents[1] / "small.toml"
    folder = run(str(small), output=tmp_path / "run").folder
    write(folder, tmp_path / "published")
    there, back = read(folder), read(tmp_path / "published")
    assert back.about == there.about
    assert back.images is None
    assert str(tmp_path) not in (tmp_path / "published" / "about.json").read_text()
    for column in ("psnr_db", "ssim", "update_norm"):
        np.testing.assert_array_equal(back.frame[column], there.frame[column])
    for column in ("attack", "defense", "status", "reason", "control"):
        assert back.frame[column].tolist() == there.frame[column].tolist()


def test_the_committed_page_is_that_of_the_published_runs():
    results = {result.name: result for result in map(read, PUBLISHED.iterdir())}
    committed = Path(__file__).parents[2] / "docs" / "paper.md"
    assert page(results, drawn(committed.with_suffix(""))) == committed.read_text(encoding="utf-8")
