"""Figures show what is in the results, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leaderboards.figures.all_figures import write_plots
from leaderboards.figures.curves import strength_curves
from leaderboards.figures.gallery import gallery
from leaderboards.figures.heat_map import heat_map
from leaderboards.ranking.families import families
from leaderboards.statistics.summary import records, summarise

Make = Callable[..., pd.DataFrame]
COSINE = "inverting_gradients(iterations=600)"
DEFENSES = [
    ("none", [{}]),
    ("gradient_pruning(ratio=0.5)", [{"ratio": 0.5, "scope": "layer"}]),
    ("gradient_pruning(ratio=0.9)", [{"ratio": 0.9, "scope": "layer"}]),
]


class Pictures:
    """Flat images whose value is the image's index, or 100 more for a reconstruction."""

    def __init__(self, channels: int = 3) -> None:
        self.asked: list[tuple[str, int]] = []
        self.channels = channels

    def truth(self, image: int) -> np.ndarray:
        return np.full((8, 8, self.channels), image, dtype=np.uint8)

    def reconstruction(self, cell: str, image: int) -> np.ndarray | None:
        self.asked.append((cell, image))
        return self.truth(image) + 100


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]  # type: ignore[attr-defined]


def test_every_setting_gets_its_files_and_the_same_bytes_again(results: Make, tmp_path: Path) -> None:
    frame = results(images=3, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES)
    once = write_plots(frame, Pictures(), tmp_path / "once")
    again = write_plots(frame, Pictures(), tmp_path / "again")
    name = "cifar10-samples-lenet-zhu-untrained"
    assert [path.name for path in once] == [
        f"{kind}-{name}.{suffix}" for kind in ("leakage", "curves", "heatmap", "gallery") for suffix in ("png", "svg")
    ]
    for a, b in zip(once, again, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_settings_that_differ_in_the_threat_model_do_not_overwrite_each_other(results: Make, tmp_path: Path) -> None:
    frame = results(images=2, attacks=[COSINE], controls=[], defenses=DEFENSES[:1])
    written = write_plots(pd.concat([frame, frame.assign(labels="recovered")]), Pictures(1), tmp_path)
    assert len({path.name for path in written}) == len(written) == 8
    assert any("labels-recovered" in path.name for path in written)


def test_a_family_is_one_defense_at_several_strengths(results: Make) -> None:
    found, single = families(records(summarise(results(images=2, attacks=["linear_layer"], controls=[]))))
    assert [(f.title, f.parameter, list(f.strengths)) for f in found] == [
        ("gradient_pruning", "ratio", [0.5, 0.9, 0.99]),
    ]
    assert [f.scale for f in found] == ["linear"]
    assert [label.split("(")[0] for label in single] == ["larger_batch", "local_epochs", "norm_clipping"]


def test_a_second_varying_parameter_makes_families_of_its_own() -> None:
    rows = [
        {
            "defense_name": "dp_sgd",
            "defense": f"dp_sgd(clip_norm={c}, noise_multiplier={s})",
            "defense_parameters": json.dumps([{"clip_norm": c, "noise_multiplier": s}]),
        }
        for c in (1.0, 4.0)
        for s in (0.001, 0.01, 0.1)
    ]
    found, single = families(rows)
    assert [f.title for f in found] == ["dp_sgd(clip_norm=1.0)", "dp_sgd(clip_norm=4.0)"]
    assert [f.scale for f in found] == ["logarithmic", "logarithmic"]
    assert list(found[0].places.values()) == pytest.approx([-3, -2, -1])
    assert single == {}


def test_strengths_that_a_linear_axis_would_press_together_are_spread() -> None:
    rows = [
        {"defense_name": "p", "defense": f"p({r})", "defense_parameters": json.dumps([{"ratio": r}])}
        for r in (0.999, 0.5, 0.99)
    ]
    (family,), _ = families(rows)
    assert family.scale == "even"
    assert family.places == {0.5: 0, 0.99: 1, 0.999: 2}


def test_curves_draw_the_means_and_break_where_a_result_is_missing(results: Make, fail: Make) -> None:
    frame = fail(results(images=4, controls=[]), "inverting", "gradient_pruning(ratio=0.9)", "oom")
    rows = records(summarise(frame))
    figure = strength_curves(rows, "title")
    assert figure is not None
    line = next(line for line in figure.axes[0].lines if line.get_marker() == "o" and len(line.get_xdata()) == 3)
    drawn = np.asarray(line.get_ydata(), dtype=float)
    means = [r["psnr_db_mean"] for r in rows if r["attack"] == COSINE and r["defense_name"] == "gradient_pruning"]
    np.testing.assert_allclose(drawn, means)
    assert np.isnan(drawn[1])
    assert "no result" in texts(figure)


def test_there_are_no_curves_without_a_defense(results: Make) -> None:
    assert strength_curves(records(summarise(results(images=2, defenses=DEFENSES[:1]))), "title") is None


def test_curves_of_small_images_leave_similarity_out(results: Make) -> None:
    figure = strength_curves(records(summarise(results(images=2, side=8, defenses=DEFENSES))), "title")
    assert figure is not None
    assert [ax.get_ylabel() for ax in figure.axes] == ["PSNR [dB]"]


def test_the_heat_map_shows_every_mean_and_names_every_failure(results: Make, fail: Make) -> None:
    frame = fail(results(images=4, defenses=DEFENSES), "linear_layer", "none", "skipped", "no layer")
    rows = records(summarise(frame))
    shown = texts(heat_map(rows, "title"))
    for r in rows:
        if not r["control"] and r["status"] == "ok":
            assert f"{r['psnr_db_mean']:.2f}" in shown
    assert "skipped" in shown
    assert "strongest floor" in shown


def test_the_gallery_shows_first_median_and_worst_of_the_undefended_attack(results: Make) -> None:
    frame = results(images=5, defenses=DEFENSES, seeds=2)
    undefended = (frame["attack"] == COSINE) & (frame["defense"] == "none") & (frame["seed"] == 0)
    frame.loc[undefended, "psnr_db"] = [22.0, 30.0, 12.0, 25.0, 18.0]
    pictures = Pictures()
    figure = gallery(frame, pictures, "title")
    assert figure is not None
    cells = set(frame[(frame["attack"] == COSINE) & (frame["seed"] == 0)]["cell"])
    # Image 0 is both the first and the median of 30 25 22 18 12; image 2 is the worst.
    assert {image for _, image in pictures.asked} == {0, 2}
    assert {cell for cell, _ in pictures.asked} == cells
    shown = texts(figure)
    assert "first\nmedian\n#0" in shown
    assert "worst\n#2" in shown
    ssim = frame.loc[undefended, "ssim"].iloc[0]
    assert f"22.0 dB, {ssim:.2f}" in shown


def test_the_gallery_marks_a_failed_cell_and_survives_a_missing_control(results: Make, fail: Make) -> None:
    frame = fail(results(images=3, defenses=DEFENSES), "inverting", "none", "diverged")
    figure = gallery(frame, Pictures(), "title")
    assert figure is not None
    shown = texts(figure)
    assert shown.count("diverged") >= 2
    assert "gradient_pruning(ratio=0.5)" in " ".join(shown).replace("\n", " ")


@pytest.mark.parametrize("status", ["pending", "skipped"])
def test_a_run_without_results_still_has_its_heat_map(results: Make, fail: Make, tmp_path: Path, status: str) -> None:
    frame = fail(results(images=2, attacks=[COSINE], controls=[], defenses=DEFENSES[:1]), "inverting", "none", status)
    assert [path.name.split("-")[0] for path in write_plots(frame, Pictures(), tmp_path)] == ["heatmap", "heatmap"]
    assert write_plots(pd.DataFrame(), Pictures(), tmp_path) == []


def test_drawing_leaves_the_users_settings_alone(results: Make, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    write_plots(results(images=1, attacks=[COSINE], defenses=DEFENSES[:1]), Pictures(), tmp_path)
    assert dict(mpl.rcParams) == before
