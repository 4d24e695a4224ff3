"""The page of the paper's claims, from synthetic rows and from a run."""

import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.engines.run import run
from bench.grid.config import load_config, to_toml
from leaderboards.statistics.intervals import interval
from tools.paper.archive import Result, command, in_one_line, read, write_archive
from tools.paper.claims import TABLE1, Claim, ClaimVariant, Held, PaperFigure, PaperLine
from tools.paper.orderings import LEAST_PAIRED_UNITS, Cells, Ordering, decide, judge
from tools.paper.page import CLAIMS, ORDERING_METRICS, PAPER_RUNS, draw_pictures, paper_page, picture_names, sentence
from tools.paper.pictures import digest

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
    assert 0 < above.low < 1.5 < above.high < 3
    assert verdict(wide - np.tile([1, 2], 3), wide).answer == "does not hold"
    assert verdict(wide + np.tile([1, -1], 3), wide).answer == "not decided"


def test_under_twenty_units_the_interval_is_student_s_and_from_twenty_on_the_bootstrap_s():
    gains = np.array([1.0, 2, 3, 4, 5, 6, 7])
    found = verdict(gains, np.zeros(7))
    # Mean 4, standard error sqrt(14 / 3 / 7), and t(.975; 6) = 2.446912.
    assert (found.low, found.high) == pytest.approx((4 - 2.446912 * np.sqrt(2 / 3), 4 + 2.446912 * np.sqrt(2 / 3)))
    many = np.random.default_rng(0).exponential(size=20)
    for n, is_bootstrap in ((19, False), (20, True)):
        found = verdict(many[:n], np.zeros(n))
        assert ((found.low, found.high) == pytest.approx(interval(many[:n]))) is is_bootstrap


@pytest.mark.parametrize(
    ("above", "below", "p", "answer"),
    [
        (6, 0, 0.03125, "holds"),
        (0, 6, 0.03125, "does not hold"),
        (5, 0, 0.0625, "not decided"),
        (9, 1, 22 / 1024, "holds"),
        (8, 1, 20 / 512, "holds"),
        (7, 1, 18 / 256, "not decided"),
        (0, 0, 1, "not decided"),
    ],
)
def test_images_identified_are_compared_by_the_exact_sign_test(above, below, p, answer):
    ties = np.tile([0, 1], 3)
    high, low = np.r_[np.ones(above), np.zeros(below), ties], np.r_[np.zeros(above), np.ones(below), ties]
    frame = pd.concat([rows("high", high, identified=high), rows("low", low, identified=low)])
    found = judge(Ordering(HIGH, LOW, "identified"), frame)
    assert (found.answer, found.above, found.below) == (answer, above, below)
    assert found.p == pytest.approx(p)
    assert found.difference == pytest.approx((above - below) / len(high))


def test_units_of_several_images_decide_nothing_where_their_mean_contradicts_their_signs():
    high = np.repeat([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 100)
    low = high.copy()
    low[:100] = 1.0  # One unit is below by all of its images, eight are above by one image each.
    low[100::100] = 0.0
    frame = pd.concat([rows("high", high, identified=high, images_per_update=100), rows("low", low, identified=low)])
    found = judge(Ordering(HIGH, LOW, "identified"), frame)
    assert (found.above, found.below) == (8, 1)
    assert found.p < 0.05
    assert found.difference < 0
    assert found.answer == "not decided"


def test_where_there_is_no_difference_about_one_ordering_in_twenty_is_decided_or_fewer():
    rng = np.random.default_rng(1)
    for n in (6, 8, 12):
        normal = [decide(units, signs=False).answer for units in rng.normal(size=(800, n))]
        signs = [decide(units, signs=True).answer for units in rng.integers(-1, 2, size=(200, n)).astype(float)]
        # 99.9% of the counts of 800 trials at .05 lie in these bounds; a bootstrap decided 10 to 14% of them.
        assert 0.026 < 1 - normal.count("not decided") / 800 < 0.078
        assert 1 - signs.count("not decided") / 200 < 0.08


def test_images_are_paired_by_number_and_not_by_row():
    high, low = rows("high", [10.0, 20, 30, 40, 50, 60]), rows("low", [9.0, 19, 29, 39, 49, 59])
    found = judge(Ordering(HIGH, LOW), pd.concat([high.iloc[::-1], low]))
    assert (found.low, found.high) == (1.0, 1.0)


def test_the_images_of_one_client_are_one_unit():
    values = np.arange(12.0)
    assert verdict(values + 1, values, images_per_update=2).units == 6
    few = verdict(values + 1, values, images_per_update=4)
    assert (few.answer, few.units, few.reason) == ("not decided", 3, "too few independent units")
    assert verdict(np.arange(5.0) + 1, np.arange(5.0)).reason == "too few independent units"


@pytest.mark.parametrize("metric", ["psnr_db", "identified"])
def test_batches_that_do_not_nest_are_one_unit_with_all_that_they_share_an_image_with(metric):
    values = np.arange(24.0)
    nested = rows("low", values, images_per_update=4)
    high = rows("high", values + 1, images_per_update=2)
    assert judge(Ordering(HIGH, LOW, metric), pd.concat([high, nested])).units == 6
    # A deal of the same images that begins one image later ties every batch to its neighbour.
    shifted = nested.assign(trial=[(i + 1) % 24 // 4 for i in range(24)])
    found = judge(Ordering(HIGH, LOW, metric), pd.concat([high, shifted]))
    assert (found.answer, found.units, found.reason) == ("not decided", 1, "too few independent units")


def test_an_underpowered_attack_is_no_evidence_that_an_ordering_does_not_hold():
    def frame(psnr, missed):
        return pd.concat([rows("high", psnr, underpowered=missed), rows("low", np.full(6, 9.0))])

    half, most = np.r_[np.ones(3), np.zeros(3)], np.r_[np.ones(4), np.zeros(2)]
    ordering = Ordering(HIGH, LOW)
    assert judge(ordering, frame(np.arange(6.0), half)).answer == "does not hold"
    found = judge(ordering, frame(np.arange(6.0), most))
    assert (found.answer, found.reason) == ("not decided", "the first is underpowered")
    assert judge(ordering, frame(np.arange(6.0) + 20, most)).reason == ""
    missed = pd.concat([rows("high", np.arange(6.0) + 20), rows("low", np.full(6, 9.0), underpowered=most)])
    found = judge(ordering, missed)
    assert (found.answer, found.reason) == ("holds", "though the second is underpowered")
    # What an update's norm is, no attack decides.
    norms = frame(np.arange(6.0), most).assign(update_norm=lambda f: f["psnr_db"])
    assert judge(Ordering(HIGH, LOW, "update_norm"), norms).answer == "does not hold"


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
    wide = np.array([10.0, 20, 30, 40, 50, 60])
    held = Held(Ordering(HIGH, LOW))
    said = sentence(held, verdict(wide + 2, wide))
    assert said == "**holds**: *the high one* above *the low one*: +2.00 dB [+2.00, +2.00], 6 units."
    asked = sentence(Held(Ordering(HIGH, LOW), asked=True), verdict(wide - 2, wide))
    assert asked.startswith("**the other way round (our question)**")
    frame = pd.concat([rows("high", wide, identified=1.0), rows("low", wide, identified=[0, 0, 0, 0, 0, 0.0])])
    found = judge(Ordering(HIGH, LOW, "identified"), frame)
    assert sentence(Held(Ordering(HIGH, LOW, "identified")), found) == (
        "**holds**: *the high one* above *the low one*, in images identified: +100 percentage points, "
        "6 of 6 units above and 0 below, p = 0.031."
    )


def test_the_page_puts_the_paper_s_figure_beside_ours_and_says_what_was_not_run(monkeypatch):
    lines = (PaperLine(HIGH, PaperFigure(18.0, 3.33, remembered=False)), PaperLine(LOW, PaperFigure(9.5, 1.0)))
    variants = (
        ClaimVariant("paper-x", lines, (), "Nothing."),
        ClaimVariant("paper-x-small", lines, (Held(Ordering(HIGH, LOW)),), "Fewer images."),
        ClaimVariant("paper-y-small", lines, (), "Nothing."),
    )
    monkeypatch.setattr("tools.paper.page.CLAIMS", (Claim("x", "A claim", "It says so.", variants),))
    about = {"dataset": "D", "command": "leakboard run", "commits": ["c" * 40], "device": ["cpu"], "threads": [1]}
    frame = pd.concat([rows("high", [12.0] * 6), rows("low", [11.0] * 6)]).assign(dataset="d")
    text = paper_page({"paper-x-small": Result("paper-x-small", frame, about | {"seconds": 60}, None)}, {})
    assert (
        "| the high one | 18.00 ± 3.33 | 12.00 ± 0.00 | -6.00 | [12.0, 12.0] | 0.50 | 100% @20 | 6 | 7 | 0% | 3.25 |"
        in text
    )
    assert "9.50 ± 1.00 [from memory]" in text
    assert "### `paper-x`\n\nNot run.\n" in text
    assert "6 images of *D*" in text
    assert "### `paper-y-small`\n\nNot run.\n" in text
    assert "| [A claim](#x) | `paper-x-small` | 1 | 0 | 0 |" in text
    assert "Fewer images." in text


def test_an_ordering_under_two_claims_is_counted_under_the_first(monkeypatch):
    same = Held(Ordering(Cells("another name", HIGH.where), LOW))
    variants = [
        (ClaimVariant("one", (), (Held(Ordering(HIGH, LOW)), Held(Ordering(HIGH, LOW), asked=True)), ""),),
        (ClaimVariant("one", (), (same, Held(Ordering(HIGH, LOW, "ssim"))), ""), ClaimVariant("two", (), (same,), "")),
    ]
    monkeypatch.setattr("tools.paper.page.ORDERING_METRICS", ORDERING_METRICS | {"ssim": ("", "", 1, ".2f")})
    monkeypatch.setattr(
        "tools.paper.page.CLAIMS", tuple(Claim(f"c{i}", f"C{i}", "", v) for i, v in enumerate(variants))
    )
    about = {"dataset": "D", "command": "", "commits": [], "device": [], "threads": [1], "seconds": 60}
    frame = pd.concat([rows("high", [12.0] * 6), rows("low", [11.0] * 6)]).assign(dataset="d")
    text = paper_page({name: Result(name, frame, about, None) for name in ("one", "two")}, {})
    assert "| [C0](#c0) | `one` | 1 | 0 | 0 |" in text
    assert "| [C1](#c1) | `one` | 0 | 0 | 1 |" in text
    assert "| [C1](#c1) | `two` | 1 | 0 | 0 |" in text


def test_the_accuracy_of_a_network_names_the_set_that_it_is_of(monkeypatch):
    monkeypatch.setattr(
        "tools.paper.page.CLAIMS",
        (Claim("x", "X", "", (ClaimVariant("x", (PaperLine(HIGH), PaperLine(LOW)), (), ""),)),),
    )
    about = {"dataset": "D", "command": "", "commits": [], "device": [], "threads": [1], "seconds": 60}
    trained = {"weights_accuracy": 0.5, "dataset": "attacked"}
    for label, name in (("epochs=5", "attacked"), ("epochs=5 on another", "another")):
        frame = pd.concat([rows("high", [1.0], weights=label, **trained), rows("low", [1.0], dataset="attacked")])
        assert f"| test accuracy ({name}) |" in paper_page({"x": Result("x", frame, about, None)}, {})


def test_only_pictures_of_the_results_given_are_shown(tmp_path: Path):
    name = "paper-resnet20-4-small"
    result = read(PAPER_RUNS / name)
    draw_pictures({name: result}, tmp_path / "paper")
    assert picture_names({name: result}, tmp_path / "paper") == {f"table1 {name}": [f"paper/psnr-table1-{name}.png"]}
    assert picture_names({}, tmp_path / "paper") == {}
    another = replace(result, frame=result.frame.assign(psnr_db=result.frame["psnr_db"] + 1))
    assert picture_names({name: another}, tmp_path / "paper") == {f"table1 {name}": []}


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


def test_every_model_and_all_weights_of_a_claim_s_preset_are_read_by_the_page():
    read_of: dict[str, set[tuple[str, str]]] = {}
    for variant in (variant for claim in CLAIMS for variant in claim.variants):
        for where in (line.cells.where for line in variant.lines):
            for key in ("model", "weights"):
                read_of.setdefault(variant.preset, set()).add((key, where.get(key, "untrained")))
    for preset, named in read_of.items():
        grid = load_config(preset).grid
        assert {("model", model.label) for model in grid.models} <= named
        assert {("weights", weights.label) for weights in grid.weights} <= named


def test_the_presets_of_batches_have_enough_clients_of_the_largest():
    for preset in ("paper-batch", "paper-batch-small"):
        assert load_config(preset).grid.images >= 100 * LEAST_PAIRED_UNITS


def test_the_command_of_a_run_has_every_setting_that_is_not_its_preset_s(tmp_path: Path):
    def of(*overrides: str) -> str:
        (tmp_path / "run.toml").write_text(to_toml(load_config("paper-fedavg-small", overrides)))
        return command(tmp_path / "run.toml")

    assert of() == "leakboard run paper-fedavg-small"
    assert of("engine.threads=1") == "leakboard run paper-fedavg-small --set engine.threads=1"
    words = shlex.split(of("grid.images=3", 'grid.defenses=["none"]', "engine.device=cpu"))
    overrides = words[4::2]
    assert load_config("paper-fedavg-small", overrides) == load_config(
        "paper-fedavg-small", ["grid.images=3", 'grid.defenses=["none"]', "engine.device=cpu"]
    )
    (tmp_path / "run.toml").write_text('name = "mine"\n')
    assert command(tmp_path / "run.toml") == "leakboard run mine"


@pytest.mark.parametrize(
    "value", [3, True, 1e22, 'a "b"\n\x7f', [], ["none"], {"name": "x", "sizes": [1, 2]}, [{"root": "r" * 120}, {}]]
)
def test_a_setting_reads_back_from_one_line(value: object):
    line = in_one_line(value)
    assert "\n" not in line
    assert tomllib.loads(f"value = {line}") == {"value": value}


def test_the_published_runs_state_the_command_of_their_run_toml():
    for folder in PAPER_RUNS.iterdir():
        assert read(folder).about["command"] == command(folder / "run.toml")


def test_a_published_run_gives_the_rows_of_its_folder(tmp_path: Path):
    small = Path(__file__).parents[2] / "small.toml"
    folder = run(str(small), output=tmp_path / "run").folder
    write_archive(folder, tmp_path / "published")
    there, back = read(folder), read(tmp_path / "published")
    assert back.about == there.about
    assert back.images is None
    assert digest(back.frame) == digest(there.frame)
    assert str(tmp_path) not in (tmp_path / "published" / "about.json").read_text()
    for column in ("psnr_db", "ssim", "update_norm"):
        np.testing.assert_array_equal(back.frame[column], there.frame[column])
    for column in ("attack", "defense", "status", "reason", "control"):
        assert back.frame[column].tolist() == there.frame[column].tolist()


def test_the_committed_page_is_that_of_the_published_runs():
    results = {result.name: result for result in map(read, PAPER_RUNS.iterdir())}
    committed = Path(__file__).parents[3] / "docs" / "paper.md"
    assert paper_page(results, picture_names(results, committed.with_suffix(""))) == committed.read_text(
        encoding="utf-8"
    )
