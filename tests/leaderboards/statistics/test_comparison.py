"""Paired comparisons: right about clear differences, and silent about chance as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from leaderboards.statistics.comparison import (
    common_units,
    holm,
    lower_p_values,
    ratio,
    significantly_lower,
    unit_means,
)

ALONE = np.arange(100)


def alone(methods: int, n: int = 100) -> np.ndarray:
    """Every image an update of its own, one seed."""
    return np.tile(np.arange(n), (methods, 1, 1))


def test_holm_steps_down_as_in_the_textbook() -> None:
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_p_values_agree_with_the_paired_t_test_on_normal_differences() -> None:
    rng = np.random.default_rng(0)
    scores = np.stack([rng.normal(0, 1, 100), rng.normal(0.2, 1, 100)])
    expected = stats.ttest_rel(scores[0], scores[1], alternative="less").pvalue
    found = lower_p_values(scores, alone(2))
    assert found[0, 1] == pytest.approx(expected, abs=0.02)
    assert found[1, 0] == pytest.approx(1 - expected, abs=0.02)


def test_the_pairing_is_used() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, 100)
    scores = np.stack([image, image + 0.05 + rng.normal(0, 0.01, 100)])
    assert significantly_lower(scores, alone(2)).tolist() == [[False, True], [False, False]]
    shuffled = np.stack([rng.permutation(image), scores[1]])
    assert not significantly_lower(shuffled, alone(2)).any()


def test_equal_scores_and_too_few_units_show_nothing() -> None:
    assert not significantly_lower(np.ones((3, 100)), alone(3)).any()
    assert not significantly_lower(np.stack([np.zeros(100), np.ones(100)]), np.tile(ALONE // 25, (2, 1, 1))).any()


def test_a_constant_difference_of_few_units_is_as_significant_as_so_many_signs() -> None:
    found = lower_p_values(np.stack([np.zeros(6), np.ones(6)]), alone(2, 6))
    assert found[0, 1] == pytest.approx(0.5**6)


def test_units_of_two_dealings_cut_no_batch_of_either() -> None:
    assert common_units([0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]).tolist() == [0, 0, 1, 1, 2, 2]
    assert common_units([0, 0, 1, 1, 2, 2], [5, 6, 6, 7, 8, 9]).tolist() == [0, 0, 0, 0, 1, 1]
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    assert unit_means(values, np.array([0, 0, 0, 0, 1, 1])).mean() == pytest.approx(values.mean())


def test_batches_that_share_their_luck_are_not_taken_for_many_images() -> None:
    rng = np.random.default_rng(2)
    scores = np.stack([np.repeat(rng.normal(-0.2, 1, 25), 4), np.zeros(100)])
    p_alone = lower_p_values(scores, alone(2))[0, 1]
    p_batches = lower_p_values(scores, np.stack([[ALONE // 4], [ALONE]]))[0, 1]
    assert p_alone < p_batches


def test_a_ratio_of_means_is_resampled_jointly() -> None:
    rng = np.random.default_rng(0)
    whole = rng.gamma(2, 1, 100)
    found = ratio(0.5 * whole, whole, [ALONE], [ALONE])
    assert found == pytest.approx((0.5, 0.5, 0.5))
    assert ratio(whole, whole - whole.mean(), [ALONE], [ALONE]) is None


def test_scores_that_are_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="1 that are not"):
        lower_p_values([[0.0, np.nan], [0.0, 1.0]], alone(2, 2))


def test_two_copies_of_a_defense_are_told_apart_in_at_most_one_board_of_twenty() -> None:
    """500 boards of five defenses, of which two are one under independent noise of the clients."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(500):
        image = rng.beta(1, 4, 100)
        copies = [np.clip(0.6 * image + rng.normal(0, 0.05, 100), 0, 1) for _ in range(2)]
        others = [image, 0.3 * image + rng.normal(0, 0.05, 100), rng.normal(0, 0.02, 100)]
        found = significantly_lower(np.stack([*copies, *others]), alone(5))
        wrong += bool(found[0, 1] or found[1, 0])
        assert found[4, 2]
    assert wrong <= 25
