"""The front of privacy against accuracy, and the figure that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from leaderboards.evidence.question import questions
from leaderboards.figures.all_figures import write_plots
from leaderboards.figures.privacy_accuracy import pareto_plot
from leaderboards.ranking.costs import costs_of
from leaderboards.ranking.pareto import pareto_front, points_of
from leaderboards.ranking.verdicts import RankingRule

Make = Callable[..., pd.DataFrame]
COSINE = "inverting_gradients(iterations=600)"
DEFENSES = [
    ("none", [{}]),
    ("gradient_pruning(ratio=0.5)", [{"ratio": 0.5}]),
    ("gradient_pruning(ratio=0.9)", [{"ratio": 0.9}]),
    ("larger_batch(examples=4)", [{"examples": 4}]),
]
LOST = dict(zip([name for name, _ in DEFENSES], [0.0, 1.0, 5.0, 40.0], strict=True))


@pytest.fixture
def frame(results: Make) -> pd.DataFrame:
    made = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=DEFENSES)
    return made.assign(underpowered=0.0)


@pytest.fixture
def jobs(make: SimpleNamespace) -> Callable[..., pd.DataFrame]:
    def trained(**changes: list[float]) -> pd.DataFrame:
        own = {name: [0.8 - lost / 100 + d for d in (0.0, 0.001, 0.002)] for name, lost in LOST.items()} | changes
        return make.frame(*(make.training(name, accuracies) for name, accuracies in own.items()))

    return trained


def lines(figure: Figure | None, marker: str) -> list[tuple[float, float]]:
    """Where single points with this marker are drawn."""
    assert figure is not None
    drawn = [line for line in figure.axes[0].lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in drawn]  # type: ignore[index]


def test_a_point_that_another_beats_is_not_in_the_front() -> None:
    assert pareto_front([(0, 5), (1, 3), (2, 4), (3, 1)]) == [0, 1, 3]


def test_no_worse_in_one_and_better_in_the_other_beats() -> None:
    assert pareto_front([(1, 2), (1, 1), (2, 1)]) == [1]


def test_equal_points_stay_together() -> None:
    assert pareto_front([(2, 1), (1, 2), (2, 1)]) == [1, 0, 2]


def test_points_with_a_missing_figure_are_left_out_and_beat_nobody() -> None:
    assert pareto_front([(np.nan, 0), (0, np.nan), (3, 3)]) == [2]
    assert pareto_front([]) == []


def test_points_stand_at_accuracy_lost_and_gain(frame: pd.DataFrame, jobs: Callable) -> None:
    (question,) = questions(frame)
    found = points_of(question, costs_of(jobs()))
    assert {name: point.lost.mean for name, point in found.items()} == pytest.approx(LOST)
    gains = {e.row["defense"]: float(e.gain("ssim").mean()) for e in question.defenses}
    assert {name: point.gain.mean for name, point in found.items()} == pytest.approx(gains)
    drawn = lines(pareto_plot(question, costs_of(jobs()), "title"), "o")
    assert drawn == [pytest.approx((LOST[name], gains[name])) for name, _ in DEFENSES[1:3]]


def test_what_bounds_leakage_from_below_claims_nothing(
    frame: pd.DataFrame, jobs: Callable, make: SimpleNamespace, fail: Make
) -> None:
    pruned, stronger = DEFENSES[1][0], DEFENSES[2][0]
    claims = lambda rows, own: {n: p.claims for n, p in points_of(questions(rows)[0], costs_of(own)).items()}
    assert all(claims(frame, jobs()).values())
    weak = frame.assign(underpowered=(frame["defense"] == pruned).astype(float))
    assert claims(weak, jobs()) == {name: name != pruned for name in LOST}
    assert not claims(frame, jobs(**{pruned: [0.79, 0.79]}))[pruned]
    # With another attack that finished there is a figure, without the failed one it is a bound.
    both = pd.concat([frame, frame[frame["attack"] == COSINE].assign(attack="other", attack_name="other")])
    assert not claims(fail(both, "other", stronger, "oom"), jobs())[stronger]
    broken = pd.concat([jobs(), make.frame(make.certificate(pruned, 190))])
    assert claims(frame, broken) == {name: name != pruned for name in LOST}


def test_a_defense_without_an_accuracy_is_not_drawn(frame: pd.DataFrame, jobs: Callable) -> None:
    rows = jobs()
    failed = rows["defense"].eq("larger_batch(examples=4)") & rows["seed"].eq(1)
    rows.loc[failed, ["status", "accuracy"]] = "oom", np.nan
    assert "larger_batch(examples=4)" not in points_of(questions(frame)[0], costs_of(rows))
    assert pareto_plot(questions(frame)[0], costs_of(None), "title") is None


def test_no_line_is_drawn_across_a_strength_without_an_accuracy(
    results: Make, jobs: Callable, make: SimpleNamespace
) -> None:
    stronger = "gradient_pruning(ratio=0.99)"
    defenses = [*DEFENSES, (stronger, [{"ratio": 0.99}])]
    frame = results(images=8, attacks=[COSINE], controls=["grey_image"], defenses=defenses)
    rows = pd.concat([jobs(), make.frame(make.training(stronger, [0.7] * 3))])
    rows = rows[rows["defense"] != DEFENSES[2][0]]
    figure = pareto_plot(questions(frame)[0], costs_of(rows), "title")
    assert figure is not None
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]  # type: ignore[arg-type]
    assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).tolist() == [False, True, False]


def test_the_figure_names_strengths_and_proofs(frame: pd.DataFrame, jobs: Callable, make: SimpleNamespace) -> None:
    rows = jobs()
    rows.loc[rows["defense"] == DEFENSES[1][0], list(make.proof(1))] = list(make.proof(14.21).values())
    # Of the one release that is attacked, and by rules 1 of the whole training.
    for rule, epsilon in ((RankingRule(rules=2), "4.38"), (RankingRule(rules=1), "14.3")):
        figure = pareto_plot(questions(frame)[0], costs_of(rows), "title", rule)
        assert figure is not None
        shown = {text.get_text() for text in figure.findobj(Text)}  # type: ignore[union-attr]
        assert {f"0.5 (ε {epsilon})", "0.9", "gradient_pruning: ratio", "larger_batch(examples=4)"} <= shown
        assert ("at equal images" in figure.axes[0].get_xlabel()) == (rule.rules == 2)


def test_the_figure_is_drawn_where_accuracy_was_measured(frame: pd.DataFrame, jobs: Callable, tmp_path: Path) -> None:
    class Nothing:
        def truth(self, image: int) -> np.ndarray:
            return np.zeros((8, 8, 3), dtype=np.uint8)

        def reconstruction(self, cell: str, image: int) -> np.ndarray | None:
            return None

    written = [path.name for path in write_plots(frame, Nothing(), tmp_path, jobs())]
    assert [name for name in written if name.startswith("pareto")] == [
        "pareto-cifar10-samples-lenet-zhu-untrained.png", "pareto-cifar10-samples-lenet-zhu-untrained.svg",
    ]  # fmt: skip
