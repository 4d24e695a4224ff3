"""Tables show every cell once, with the right figures, and hide no failure."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from rich.text import Text

from bench.errors import ConfigurationError
from leaderboards.statistics.summary import expectation
from leaderboards.tables.formats import Table
from leaderboards.tables.labels import label_lines, slug
from leaderboards.tables.scores import render_scores, summarise

Make = Callable[..., pd.DataFrame]
COSINE = "inverting_gradients(iterations=600)"
PRUNED = "gradient_pruning(ratio=0.5)"


def row(summary: pd.DataFrame, attack: str, defense: str) -> pd.Series:
    found = summary[summary["attack"].str.startswith(attack) & (summary["defense"] == defense)]
    assert len(found) == 1
    return found.iloc[0]


def test_a_column_that_is_empty_in_every_row_is_left_out_and_what_stands_out_stays():
    table = Table(
        "t", ["name", "a", "b", "c"], [["-", "-", "1", "-"], ["-", "-", "2", "3"]], strong=frozenset({(1, 3)})
    )
    assert table.without_empty("-", ("a",)) == table
    found = table.without_empty("-")
    assert found.columns == ["name", "b", "c"]
    assert found.rows == [["-", "1", "-"], ["-", "2", "3"]]
    assert found.strong == {(1, 2)}


def test_every_cell_has_one_row_in_grid_order(results: Make) -> None:
    frame = results(images=4)
    summary = summarise(frame.sample(frac=1, random_state=0))
    assert len(summary) == 7 * 5
    assert list(summary["defense"].unique()) == list(frame["defense"].unique())
    assert list(summary["attack"][:5]) == list(frame["attack"].unique())


def test_figures_are_those_of_the_images_with_seeds_averaged_first(results: Make) -> None:
    frame = results(images=6, seeds=3)
    found = row(summarise(frame), "euclidean", PRUNED)
    rows = frame[(frame["attack"] == "euclidean(iterations=300)") & (frame["defense"] == PRUNED)]
    images = rows.groupby("image")["psnr_db"].mean()
    assert found["psnr_db_mean"] == pytest.approx(images.mean())
    assert found["psnr_db_sd"] == pytest.approx(images.std(ddof=1))
    assert (found["n"], found["seeds"], found["failed"]) == (6, 3, 0)
    assert found["psnr_db_low"] < found["psnr_db_mean"] < found["psnr_db_high"]


def test_the_unit_of_a_larger_batch_is_the_client(results: Make) -> None:
    found = row(summarise(results(images=20)), COSINE[:8], "larger_batch(examples=4)")
    assert (found["n"], found["units"]) == (20, 5)


def test_a_failed_seed_leaves_no_mean_and_says_how_many_failed(results: Make, fail: Make) -> None:
    frame = fail(results(images=4, seeds=3), "euclidean", PRUNED, "oom", "2 GiB were asked for", seed=1)
    found = row(summarise(frame), "euclidean", PRUNED)
    assert (found["status"], found["failed"], found["seeds"]) == ("oom", 1, 3)
    assert np.isnan(found["psnr_db_mean"])
    assert np.isnan(found["identified_mean"])
    text = render_scores(frame)
    assert "1 of 3 oom [1]" in text
    assert "[1] oom: 2 GiB were asked for" in text


def test_a_block_that_failed_fails_its_cell(results: Make, fail: Make) -> None:
    frame = results(images=4)
    lost = fail(frame, "euclidean", PRUNED, "error", "boom").iloc[[-1]]
    found = row(summarise(pd.concat([frame, lost])), "euclidean", PRUNED)
    assert found["status"] == "error"
    assert np.isnan(found["psnr_db_mean"])


def test_the_worst_status_of_the_seeds_is_shown(results: Make, fail: Make) -> None:
    frame = results(images=2, seeds=3)
    frame = fail(frame, "euclidean", PRUNED, "pending", seed=0)
    frame = fail(frame, "euclidean", PRUNED, "crashed", "signal 9", seed=2)
    assert row(summarise(frame), "euclidean", PRUNED)["status"] == "crashed"


@pytest.mark.parametrize("status", ["skipped", "stale", "pending", "diverged"])
def test_every_status_is_printed_in_its_cell(results: Make, fail: Make, status: str) -> None:
    text = render_scores(fail(results(images=4), "linear_layer", "none", status, "because"))
    line = next(line for line in text.splitlines() if line.startswith("none "))
    assert f"{status} [1]" in line
    assert f"[1] {status}: because" in text


def test_the_matrix_compares_with_the_strongest_floor(results: Make) -> None:
    frame = results(images=20)
    summary = summarise(frame)
    line = next(line for line in render_scores(frame).splitlines() if line.startswith(PRUNED))
    best, floor = row(summary, "inverting", PRUNED), row(summary, "dataset_mean", PRUNED)
    assert f"{best['psnr_db_mean']:.2f} ± {best['psnr_db_sd']:.2f}" in line
    assert f"{floor['psnr_db_mean']:.2f} ± {floor['psnr_db_sd']:.2f}" in line
    assert line.endswith(f"{best['psnr_db_mean'] - floor['psnr_db_mean']:+.2f}")


def test_a_failed_attack_or_control_leaves_the_gain_open(results: Make, fail: Make) -> None:
    frame = fail(results(images=4), "linear_layer", "none", "timeout")
    frame = fail(frame, "grey_image", PRUNED, "error")
    lines = render_scores(frame).splitlines()
    assert "≥ +" in next(line for line in lines if line.startswith("none "))
    pruned = next(line for line in lines if line.startswith(PRUNED))
    assert pruned.endswith(" -")
    assert "≥ 1" in pruned


def test_text_fits_a_terminal_of_120_columns(results: Make) -> None:
    many = [f"attack_number_{i}(iterations=600, learning_rate=0.1)" for i in range(9)]
    for frame in (results(images=4), results(images=2, attacks=many)):
        text = render_scores(frame)
        assert max(map(len, text.splitlines())) <= 120
        for attack in frame["attack"].unique():
            assert attack.split("(")[0] in text


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_is_filled_and_the_best_figure_is_bold(results: Make, width: int) -> None:
    frame = results(images=4)
    plain = render_scores(frame)
    text = render_scores(
        frame, console=Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    )
    bare = Text.from_ansi(text).plain
    assert 0.8 * width < max(map(len, bare.splitlines())) <= width
    assert set(re.findall(r"\d+\.\d+ ± \d+\.\d+", bare)) == set(re.findall(r"\d+\.\d+ ± \d+\.\d+", plain))
    best = row(summarise(frame), "inverting", PRUNED)
    assert re.search(rf"\x1b\[1m *{best['psnr_db_mean']:.2f} ± {best['psnr_db_sd']:.2f}", text)


def test_a_label_is_printed_as_it_is_whatever_it_holds(results: Make) -> None:
    frame = results(images=2, attacks=["odd(kind='[red]:smile:')", "wide(kind='画像')"])
    for text in (
        render_scores(frame),
        Text.from_ansi(render_scores(frame, console=Console(width=300, force_terminal=True))).plain,
    ):
        assert "kind=[red]:smile:" in text
        assert "kind=画像" in text


def test_markdown_escapes_the_bar_of_a_chain_and_keeps_its_columns(results: Make) -> None:
    lines = render_scores(results(images=4), "markdown").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    first = tables[: tables.index(next(line for line in tables if line.startswith("| defense | attack")))]
    assert len({line.replace("\\|", "").count("|") for line in first}) == 1
    assert any("`norm_clipping(clip_norm=1.0) \\| gaussian_noise(std=0.01)`" in line for line in first)
    assert sum("**" in line for line in first) == 7


def test_latex_is_balanced_and_escaped(results: Make) -> None:
    text = render_scores(results(images=4), "latex")
    assert text.count("\\begin{") == text.count("\\end{")
    assert "gradient\\_pruning" in text
    assert "±" not in text
    for line in text.splitlines():
        assert line.count("{") == line.count("}")


def test_csv_and_json_hold_the_whole_summary(results: Make, fail: Make) -> None:
    frame = fail(results(images=4), "linear_layer", "none", "skipped", "no such layer")
    summary = summarise(frame)
    table = pd.read_csv(io.StringIO(render_scores(frame, "csv")))
    rows = json.loads(render_scores(frame, "json"))
    assert list(table.columns) == list(summary.columns) == list(rows[0])
    np.testing.assert_allclose(table["psnr_db_mean"], summary["psnr_db_mean"])
    skipped = next(each for each in rows if each["status"] == "skipped")
    assert skipped["psnr_db_mean"] is None
    assert skipped["reason"] == "no such layer"


def test_settings_have_tables_of_their_own(results: Make) -> None:
    frame = pd.concat([results(images=4), results(images=4, model="resnet20")])
    text = render_scores(frame)
    assert "cifar10-samples, lenet-zhu, untrained weights" in text
    assert "cifar10-samples, resnet20, untrained weights" in text
    assert text.count("4 images, 1 seed. Threat model: labels known, local schedule known, defense not known") == 2
    assert "class B, C under local_epochs." in text


def test_threat_models_that_differ_in_batch_norm_never_share_a_row(results: Make) -> None:
    known = results(images=4).assign(batch_norm="batch", threat_class="E")
    frame = pd.concat([results(images=4), known, results(images=4).assign(batch_norm="unknown")])
    text = " ".join(render_scores(frame).split())
    assert text.count("Threat model:") == 3
    assert "defense not known, batch statistics known; class E." in text
    assert "defense not known, batch norm's statistics not used; class B" in text


def test_small_images_have_no_similarity_and_one_image_no_interval(results: Make) -> None:
    text = render_scores(results(images=1, side=8, controls=[]))
    assert "nan" not in text.lower()
    assert "1 image, 1 seed" in text
    assert "strongest floor" not in text


def test_notes_say_what_the_attacks_know(results: Make) -> None:
    frame = results(images=4)
    assert "do not adapt" in render_scores(frame)
    assert "chance 1.0%" in render_scores(frame)
    assert "do not adapt" not in render_scores(frame.assign(defense_known=True))


def test_a_defense_that_no_attack_adapts_to_is_marked_in_every_table(results: Make) -> None:
    frame = results(images=4)
    assert "naudited" not in render_scores(frame)
    odd = frame["defense"].iloc[-1]
    text = render_scores(frame.assign(audited=frame["defense"] != odd), "markdown")
    assert text.count("(unaudited)") == text.count(odd.replace("|", "\\|")) > 2
    assert "Unaudited: no attack adapts to this defense" in text


def test_a_better_optimiser_s_chance_is_stated(results: Make) -> None:
    frame = results(images=4)
    frame["underpowered"] = (frame["image"] == 0).astype(float)
    text = render_scores(frame)
    assert "25%" in text
    assert "Underpowered:" in text
    assert "Underpowered:" not in render_scores(frame.assign(underpowered=0.0))


def test_an_empty_run_and_an_unknown_format_are_explained(results: Make) -> None:
    assert "No cells yet" in render_scores(pd.DataFrame())
    assert json.loads(render_scores(pd.DataFrame(), "json")) == []
    with pytest.raises(ConfigurationError, match="did you mean 'markdown'"):
        render_scores(results(images=1), "markdwn")


def test_expectation_holds_when_the_attack_clears_every_floor(results: Make) -> None:
    frame = results(images=20)
    assert expectation(frame, "inverting_gradients", 3) is None
    assert expectation(frame, COSINE, 3) is None
    message = expectation(frame, "inverting_gradients", 8)
    assert message is not None
    assert "dataset_mean" in message
    assert "at least 8 dB" in message


@pytest.mark.parametrize("method", ["inverting", "grey_image"])
def test_expectation_fails_with_a_failed_attack_or_control(results: Make, fail: Make, method: str) -> None:
    message = expectation(fail(results(images=4), method, "none", "error", "boom"), "inverting_gradients", 3)
    assert message is not None
    assert "boom" in message


def test_expectation_fails_when_there_is_nothing_to_compare(results: Make) -> None:
    assert expectation(pd.DataFrame(), "inverting_gradients", 3) is not None
    assert "not in the grid" in (expectation(results(images=2), "inverting_gradient", 3) or "")
    assert "a control" in (expectation(results(images=2, controls=[]), "inverting_gradients", 3) or "")


def test_expectation_looks_at_every_setting(results: Make) -> None:
    weak = results(images=4, model="resnet20")
    weak.loc[weak["attack"] == COSINE, "psnr_db"] -= 6
    message = expectation(pd.concat([results(images=4), weak]), "inverting_gradients", 3)
    assert message is not None
    assert "resnet20" in message
    assert "lenet-zhu" not in message


def test_labels_break_between_name_and_parameters() -> None:
    assert label_lines("dp_sgd(clip_norm=1.0, noise_multiplier=0.1)", 14) == [
        "dp_sgd",
        "clip_norm=1.0",
        "noise_",
        "multiplier=0.1",
    ]
    chain = label_lines("norm_clipping(clip_norm=1.0) | gaussian_noise(std=0.01)", 20)
    assert chain == ["norm_clipping", "clip_norm=1.0", "| gaussian_noise", "std=0.01"]
    assert label_lines("wrong_image(of='euclidean')", 20) == ["wrong_image", "of=euclidean"]


def test_slugs_are_safe_file_names() -> None:
    assert slug("CIFAR10 samples", "", "ckpt:/a b/c.pt") == "cifar10-samples-ckpt-a-b-c.pt"
