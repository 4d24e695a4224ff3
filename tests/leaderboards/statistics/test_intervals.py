"""Intervals cover what they promise, over the units that are independent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.store.store import underpowered
from leaderboards.statistics.intervals import interval, summarise_metric


def rows(values: np.ndarray, images_per_update: int = 1, metric: str = "psnr_db") -> pd.DataFrame:
    """`values` (seeds images); every seed deals the images into trials in another order."""
    records = []
    for seed, row in enumerate(values):
        order = np.random.default_rng(seed).permutation(len(row))
        for position, image in enumerate(order):
            records.append(
                {
                    "image": image,
                    "seed": seed,
                    "trial": position // images_per_update,
                    "images_per_update": images_per_update,
                    metric: row[image],
                }
            )
    return pd.DataFrame(records)


def test_the_interval_of_a_normal_sample_covers_its_mean_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        bounds = interval(rng.normal(3.0, 2.0, size=30))
        assert bounds is not None
        covered += bounds[0] <= 3.0 <= bounds[1]
    assert 87 <= covered <= 99


SKEWED = {
    "exponential": (lambda rng, size: rng.exponential(1.0, size), 1.0),
    "beta": (lambda rng, size: rng.beta(0.5, 2.0, size), 0.2),
}
"""Skewed units with their true mean: like errors, and like the similarities of weak reconstructions."""


def coverage(skewed: str, n: int, simulations: int) -> float:
    """How often the 95% interval of `n` units holds their true mean."""
    draw, mean = SKEWED[skewed]
    rng, covered = np.random.default_rng(0), 0
    for _ in range(simulations):
        bounds = interval(draw(rng, n))
        assert bounds is not None
        covered += bounds[0] <= mean <= bounds[1]
    return covered / simulations


@pytest.mark.parametrize("skewed", SKEWED)
def test_the_interval_of_a_hundred_skewed_units_covers_their_mean(skewed: str) -> None:
    """100 simulations have a deviation of 2.2 points: an interval of 80% or of always would be seen, no more."""
    assert 0.87 <= coverage(skewed, 100, 100) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("skewed", SKEWED)
def test_the_interval_of_a_hundred_skewed_units_covers_their_mean_in_93_to_97_of_a_hundred_cases(skewed: str) -> None:
    """2,000 simulations: a deviation of half a point."""
    assert 0.93 <= coverage(skewed, 100, 2_000) <= 0.97


def test_the_interval_is_near_student_t_and_the_same_every_time() -> None:
    values = np.random.default_rng(1).normal(20, 4, size=100)
    bounds = interval(values)
    assert bounds is not None
    half = 1.98 * values.std(ddof=1) / 10
    assert bounds == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15)
    assert bounds == interval(values)
    assert bounds != interval(values, seed=1)


def test_constant_values_are_their_own_interval() -> None:
    assert interval([1.0] * 20) == (1.0, 1.0)
    assert interval([0.0] * 5) == (0.0, 0.0)
    assert interval([0.1 + 0.2, 0.3] * 3) == pytest.approx((0.3, 0.3))


def test_fewer_than_five_units_have_no_interval() -> None:
    assert interval([1.0, 2.0, 3.0, 4.0]) is None
    assert interval([1.0, 2.0, 3.0, 4.0, 5.0]) is not None


def test_one_unit_has_no_interval() -> None:
    assert interval([1.0]) is None
    assert interval([]) is None


def test_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        interval([1.0, np.nan])


@pytest.mark.parametrize("ones", [1, 10, 19])
def test_rates_have_intervals_inside_zero_and_one(ones: int) -> None:
    bounds = interval([1.0] * ones + [0.0] * (20 - ones))
    assert bounds is not None
    assert 0 <= bounds[0] < ones / 20 < bounds[1] <= 1


def test_seeds_are_averaged_before_images_are_counted() -> None:
    values = np.random.default_rng(0).normal(20, 4, size=(1, 12))
    one, three = (
        summarise_metric(rows(values), "psnr_db"),
        summarise_metric(rows(values.repeat(3, 0)), "psnr_db"),
    )
    assert (three.n, three.units) == (12, 12)
    assert (three.mean, three.sd) == pytest.approx((values.mean(), values.std(ddof=1)))
    assert (three.low, three.high) == pytest.approx((one.low, one.high))


def test_the_images_of_one_client_are_one_unit() -> None:
    rng = np.random.default_rng(0)
    batch = rng.normal(20, 4, size=10)
    frame = rows(np.zeros((1, 40)), images_per_update=4)
    # Images of a batch share its fate: forty images hold ten independent values.
    frame["psnr_db"] = batch[frame["trial"]]
    found = summarise_metric(frame, "psnr_db")
    assert (found.n, found.units) == (40, 10)
    assert (found.low, found.high) == pytest.approx(interval(batch))


def test_more_seeds_do_not_multiply_the_batches() -> None:
    values = np.random.default_rng(0).normal(20, 4, size=(1, 40)).repeat(5, 0)
    found = summarise_metric(rows(values, images_per_update=4), "psnr_db")
    one = summarise_metric(rows(values[:1], images_per_update=4), "psnr_db")
    assert found.units == one.units == 10
    assert found.high - found.low > 0.7 * (one.high - one.low)
    assert found.low < found.mean < found.high


def test_the_interval_of_a_single_batch_is_unknown() -> None:
    found = summarise_metric(rows(np.ones((1, 4)), images_per_update=4), "psnr_db")
    assert found.mean == 1
    assert found.units == 1
    assert np.isnan([found.low, found.high]).all()


def test_a_null_is_never_averaged_away() -> None:
    found = summarise_metric(rows(np.array([[1.0, 2.0, np.nan]])), "psnr_db")
    assert found.n == 0
    assert np.isnan([found.mean, found.sd, found.low, found.high]).all()


@pytest.mark.parametrize(("successes", "low", "high"), [(20, 0.8316, 1.0), (0, 0.0, 0.1684), (10, 0.2720, 0.7280)])
def test_rates_of_images_have_clopper_pearson_limits(successes: int, low: float, high: float) -> None:
    """The exact limits of 20, 0 and 10 of 20, as in the published tables."""
    frame = rows(np.array([[1.0] * successes + [0.0] * (20 - successes)])).rename(columns={"psnr_db": "identified"})
    found = summarise_metric(frame, "identified")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_an_attack_that_ends_above_the_truth_s_objective_by_a_thousandth_is_underpowered() -> None:
    found = [1.0, 1.0011, 1.0009, 0.5, -1.0, -0.9, np.nan, 1.0]
    truth = [1.0, 1.0000, 1.0000, 1.0, -1.0, -1.0, 1.0000, np.nan]
    expected = [0.0, 1.0, 0.0, 0.0, 0.0, 1.0, np.nan, np.nan]
    np.testing.assert_array_equal(underpowered(found, truth), expected)
