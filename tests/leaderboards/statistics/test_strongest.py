"""The strongest attack is chosen by its mean, inside each resample, and luck among several is no gain."""

from __future__ import annotations

import numpy as np
import pytest

from leaderboards.statistics.comparison import resampled
from leaderboards.statistics.seeds import seed_component, seed_half_width
from leaderboards.statistics.strongest import StrongestGain, gains_more, p_of_more

N = 40


def alone(seeds: int = 1, n: int = N) -> np.ndarray:
    return np.tile(np.arange(n), (seeds, 1))


def gain(
    *scores: np.ndarray, floors: list[np.ndarray] | None = None, groups: np.ndarray | None = None
) -> StrongestGain:
    """Attacks with scores (s n) over a floor of 0, or over `floors` (f s n)."""
    own = floors or [np.zeros((1, *score.shape)) for score in scores]
    return StrongestGain.of(scores, own, alone(*scores[0].shape) if groups is None else groups)


def test_attack_and_floor_are_the_strongest_by_mean_and_not_image_by_image() -> None:
    up, down = np.tile([[1.0, 0.0]], N // 2), np.tile([[0.0, 0.8]], N // 2)
    assert gain(up, down).mean == pytest.approx(0.5)
    floors = [np.stack([np.full((1, N), 0.3), np.tile([[0.5, 0.0]], N // 2)])]
    assert gain(up, floors=floors).mean == pytest.approx(0.2)


def test_the_mean_is_taken_before_anything_is_clamped() -> None:
    assert gain(np.tile([[0.5, -0.9]], N // 2)).mean == pytest.approx(-0.2)


def test_adding_an_attack_lowers_no_gain() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(0, 1, (3, N)) for _ in range(6)]
    means = [gain(*scores[:count]).mean for count in range(1, 7)]
    assert means == sorted(means)


def test_attack_and_floor_are_chosen_inside_each_resample() -> None:
    up, down = np.tile([[1.0, 0.0]], N // 2), np.tile([[0.0, 1.0]], N // 2)
    drawn = resampled(N, 50)
    value, _ = gain(up, down).resample(drawn, np.arange(N), raised=False)
    slow = [max((count * up).mean(), (count * down).mean()) for count in drawn]
    assert value == pytest.approx(np.array(slow))
    over, _ = gain(up + down, floors=[np.stack([up, down])]).resample(drawn, np.arange(N), raised=False)
    assert over == pytest.approx(np.array([count.mean() for count in drawn]) - slow)


def luck(rng: np.random.Generator, attacks: int = 6) -> StrongestGain:
    image = rng.normal(0, 1, (1, N))
    guess = lambda: image + rng.normal(0, 1, (3, N))
    return gain(*(guess() for _ in range(attacks)), floors=[np.stack([guess()]) for _ in range(attacks)])


def lucky_boards(count: int) -> float:
    """The share of boards on which six attacks of pure luck gain more than 0, by the lower end of the interval."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(count):
        interval = luck(rng).interval(resamples=199)
        assert interval is not None
        found += interval.low > 0
    return found / count


def test_six_attacks_of_pure_luck_gain_nothing() -> None:
    assert lucky_boards(100) <= 0.08


@pytest.mark.slow
def test_six_attacks_of_pure_luck_gain_nothing_on_a_thousand_boards() -> None:
    assert lucky_boards(1000) <= 0.05


def test_an_attack_far_behind_widens_no_interval() -> None:
    rng = np.random.default_rng(1)
    strong = 0.5 + rng.normal(0, 0.1, (1, N))
    useless = [rng.normal(0, 0.1, (1, N)) for _ in range(5)]
    many, one = (own.interval(resamples=999) for own in (gain(strong, *useless), gain(strong)))
    assert many is not None
    assert one is not None
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=1e-12)


def test_an_interval_of_few_images_stays_within_twice_their_range() -> None:
    images = np.array([[0.02, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57]])
    found = StrongestGain.of([images], [np.zeros((1, 1, 8))], np.arange(8)[None]).interval()
    assert found is not None
    assert found.high - found.low < 2 * np.ptp(images)
    assert found.low < images.mean() < found.high


def test_a_pair_is_compared_image_by_image() -> None:
    rng = np.random.default_rng(2)
    image = rng.normal(1, 1, (1, N))
    less, more = gain(image), gain(image + 0.05 + rng.normal(0, 0.02, (1, N)))
    assert p_of_more(more, less, 999) < 0.01
    assert p_of_more(less, more, 999) > 0.9


def test_below_nothing_nobody_is_better_than_nothing() -> None:
    rng = np.random.default_rng(3)
    at = lambda level: gain(level + rng.normal(0, 0.02, (3, N)))
    far, near, leaking = at(-0.3), at(-0.05), at(0.1)
    assert gains_more([far, near, leaking]).tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_a_rank_needs_the_same_sign_in_every_seed() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.02, (3, N))
    low, steady = gain(0.1 + rng.normal(0, 0.02, (3, N))), gain(0.2 + noise)
    turning = gain(np.array([[0.35], [0.3], [0.05]]) + noise)
    assert gains_more([low, steady])[0, 1]
    assert not gains_more([low, turning])[0, 1]
    assert p_of_more(turning, low, 999) < 0.01


def test_images_of_one_update_are_one_unit() -> None:
    half = np.repeat([[0.2, 0.4, 0.1, 0.5, 0.3, 0.35, 0.15, 0.45, 0.25, 0.05]], 4, axis=1)
    own, batch = gain(half), gain(half, groups=alone() // 4)
    one, other = own.interval(resamples=999), batch.interval(resamples=999)
    assert one is not None
    assert other is not None
    assert other.high - other.low > 1.5 * (one.high - one.low)
    assert gain(half, groups=alone() // 10).interval() is None


def test_the_seeds_part_is_the_variance_of_their_means_beyond_their_residual() -> None:
    rng = np.random.default_rng(5)
    image, rest = rng.normal(0, 3, (1, N)), rng.normal(0, 1, (3, N))
    rest -= rest.mean(axis=1, keepdims=True)
    assert seed_component(image + rest) == 0
    effects = np.array([[0.0], [1.0], [5.0]])
    residual = np.square(rest - rest.mean(axis=0)).sum() / (2 * (N - 1))
    assert seed_component(effects + image + rest) == pytest.approx(7 - residual / N)
    assert seed_half_width(effects + image) == pytest.approx(4.3027 * np.sqrt(7 / 3), rel=1e-4)
    assert np.isnan(seed_half_width(image))
    assert gain(image).over_seeds() is None


def coverage(seed_sd: float, skewed: bool, boards: int, resamples: int) -> tuple[float, float]:
    """Of the intervals over images and seeds, and given these seeds: 3 seeds, 100 images, a residual SD of 1.

    The skewed images and residuals are exponential; seeds are normal.
    """
    rng, wide, narrow = np.random.default_rng(int(100 * seed_sd) + skewed), 0, 0
    draw = (lambda *n: rng.exponential(1, n) - 1) if skewed else lambda *n: rng.normal(0, 1, n)
    for _ in range(boards):
        own = gain(seed_sd * rng.normal(0, 1, (3, 1)) + draw(1, 100) + draw(3, 100))
        both, given = own.over_seeds(resamples=resamples), own.interval(resamples=resamples)
        assert both is not None
        assert given is not None
        wide += both.low <= 0 <= both.high
        narrow += given.low <= 0 <= given.high
    return wide / boards, narrow / boards


def test_the_interval_over_seeds_covers_where_that_of_these_seeds_does_not() -> None:
    over_seeds, given = coverage(1.0, False, 60, 199)
    assert over_seeds >= 0.88
    assert given < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("seed_sd", [0.0, 0.1, 0.3, 1.0])
def test_the_interval_over_seeds_covers_at_three_seeds_of_a_hundred_images(seed_sd: float, skewed: bool) -> None:
    assert coverage(seed_sd, skewed, 1000, 999)[0] >= 0.92
