"""The figures of the strongest attack show the ranking's own numbers."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from leaderboards.evidence.question import questions
from leaderboards.figures.effort import effort_curves
from leaderboards.figures.leakage import leakage_curves

Make = Callable[..., pd.DataFrame]
COSINE = "inverting_gradients(iterations=600)"
DEFENSES = [
    ("none", [{}]),
    ("gradient_pruning(ratio=0.5)", [{"ratio": 0.5}]),
    ("gradient_pruning(ratio=0.9)", [{"ratio": 0.9}]),
    ("larger_batch(examples=4)", [{"examples": 4}]),
]


def both(results: Make) -> pd.DataFrame:
    """The attack not knowing the defenses, and knowing them: then .1 more SSIM."""
    frame = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES)
    known = frame.assign(defense_known=True, adapts=True, ssim=frame["ssim"] + 0.1 * ~frame["control"])
    return pd.concat([frame, known], ignore_index=True)


def drawn(figure: Figure | None, panel: int) -> list[np.ndarray]:
    """The heights of every line with markers."""
    assert figure is not None
    lines = [container[0] for container in figure.axes[panel].containers]
    return [np.asarray(line.get_ydata(), dtype=float) for line in lines]


def test_adapting_and_not_adapting_are_two_lines_of_mean_ssim(results: Make) -> None:
    frame = both(results)
    (question,) = questions(frame)
    oblivious, adaptive = drawn(leakage_curves(question, "title"), 0)
    own = frame[(frame["attack"] == COSINE) & ~frame["defense_known"]]
    means = [own.loc[own["defense"] == name, "ssim"].mean() for name, _ in DEFENSES[1:3]]
    assert oblivious == pytest.approx(means)
    assert adaptive == pytest.approx(np.add(means, 0.1))


def test_floor_and_ceiling_are_those_of_the_undefended_client(results: Make) -> None:
    frame = both(results)
    figure = leakage_curves(questions(frame)[0], "title")
    assert figure is not None
    levels = {line.get_linestyle(): float(np.asarray(line.get_ydata())[0]) for line in figure.axes[0].lines[-2:]}
    none = frame[(frame["defense"] == "none") & frame["defense_known"]]
    assert levels["--"] == pytest.approx(none.loc[~none["control"], "ssim"].mean())
    assert levels[":"] == pytest.approx(none.loc[none["control"], "ssim"].mean())


def test_a_strength_without_whole_evidence_is_not_drawn(results: Make, fail: Make) -> None:
    frame = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES)
    broken = fail(frame, "inverting_gradients", "gradient_pruning(ratio=0.9)", "oom")
    (line,) = drawn(leakage_curves(questions(broken)[0], "title"), 0)
    assert np.isnan(line).tolist() == [False, True]


def test_a_defense_whose_strongest_attack_failed_is_not_shown_as_safer(results: Make, fail: Make) -> None:
    attacks = [COSINE, "euclidean(iterations=300)"]
    frame = results(images=8, attacks=attacks, controls=["grey_image"], defenses=DEFENSES)
    broken = fail(frame, "inverting_gradients", "gradient_pruning(ratio=0.9)", "oom")
    (line,) = drawn(leakage_curves(questions(broken)[0], "title"), 0)
    assert np.isnan(line).tolist() == [False, True]


def test_without_a_defense_there_is_no_figure(results: Make) -> None:
    frame = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES[:1])
    assert leakage_curves(questions(frame)[0], "title") is None


def test_leakage_is_drawn_against_the_iterations_of_an_attack(results: Make) -> None:
    parts = []
    for iterations in (600, 60):
        attack = f"inverting_gradients(iterations={iterations})"
        frame = results(images=8, attacks=[attack], controls=["grey_image"], defenses=DEFENSES[:2])
        parts.append(frame.assign(attack_parameters=json.dumps({"iterations": iterations, "tv_weight": 0.01})))
        parts[-1].loc[parts[-1]["control"], "attack_parameters"] = "{}"
        parts[-1]["ssim"] *= iterations / 600
    frame = pd.concat(parts, ignore_index=True).drop_duplicates(["attack", "defense", "image"])
    undefended, pruned = drawn(effort_curves(questions(frame)[0], "title"), 0)
    assert undefended[0] == pytest.approx(0.1 * undefended[1], rel=0.05)
    assert (pruned < undefended).all()


def test_one_number_of_iterations_is_no_curve(results: Make) -> None:
    frame = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES)
    assert effort_curves(questions(frame)[0], "title") is None
