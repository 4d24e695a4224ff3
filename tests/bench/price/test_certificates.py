"""The bound of a certificate has its known values, and only what chance does not explain breaks it."""

import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from bench.price.certificates import SIGNIFICANCE, Identification, identification_bound, is_broken, lower_limit

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
ORTHOGONAL = (0.97018, 0.55799, 0.22840, 0.11638, 0.07798, 0.06279)
"""The rate of the best guess among 20 candidates with orthogonal gradients at these levels, by integration."""


@pytest.mark.parametrize(
    ("candidates", "multiplier", "steps", "expected"),
    [
        # Phi(Phi^-1(1/20) + 1/s) from tables: Phi^-1(.05) = -1.644854.
        (20, 1.0, 1, 0.259511),
        (20, 0.5, 1, 0.638760),
        (20, 0.5, 4, 0.990742),
        # Two candidates: Phi(1/s).
        (2, 1.0, 1, 0.841345),
        (2, 2.0, 1, 0.691462),
        # Nine steps at noise 3 are one at noise 1.
        (20, 3.0, 9, 0.259511),
    ],
)
def test_the_bound_has_its_known_values(candidates, multiplier, steps, expected):
    assert identification_bound(candidates, multiplier, steps) == pytest.approx(expected, abs=1e-6)


def test_the_bound_lies_between_chance_and_one_and_falls_with_noise_and_candidates():
    bounds = [identification_bound(20, s) for s in (1e-3, *LEVELS, 1e6)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 1.0
    assert bounds[-1] == pytest.approx(1 / 20, rel=1e-5)
    assert identification_bound(100, 1.0) < identification_bound(20, 1.0) < identification_bound(20, 1.0, steps=2)


def test_the_bound_is_that_of_any_test_between_one_candidate_and_the_empty_place():
    """Neyman and Pearson: with probability a under N(0, 1), the best event has Phi(Phi^-1(a) + mu) under N(mu, 1)."""
    threshold = stats.norm.isf(1 / 20)
    assert identification_bound(20, 2.0) == pytest.approx(stats.norm.sf(threshold - 0.5), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials", "levels"), [(33, 200, 6), (1, 200, 1), (200, 200, 6), (8, 20, 3)])
def test_the_lower_limit_is_the_rate_under_which_so_many_successes_have_the_stated_chance(successes, trials, levels):
    low = lower_limit(successes, trials, levels)
    assert stats.binom.sf(successes - 1, trials, low) == pytest.approx(SIGNIFICANCE / levels, rel=1e-6)
    test = stats.binomtest(successes, trials, alternative="greater")
    exact = test.proportion_ci(1 - SIGNIFICANCE / levels, method="exact")
    assert low == pytest.approx(exact.low, rel=1e-6)


def test_without_a_success_nothing_is_shown():
    assert lower_limit(0, 200) == 0.0
    assert not is_broken(0, 200, bound=1e-9)


def test_correct_code_is_called_broken_in_less_than_a_thousandth_of_runs_and_a_plain_comparison_calls_most():
    """Exact probabilities over six levels of 200 trials each, for the best guess and for one that meets the bound."""
    for rates in (ORTHOGONAL, [identification_bound(20, s) for s in LEVELS]):
        passed = plain = 1.0
        for s, rate in zip(LEVELS, rates, strict=True):
            bound, counts = identification_bound(20, s), range(201)
            chances = stats.binom.pmf(counts, 200, rate)
            passed *= 1 - sum(chances[k] for k in counts if is_broken(k, 200, bound, levels=6))
            plain *= 1 - sum(chances[k] for k in counts if k / 200 > bound)
        assert 1 - passed < SIGNIFICANCE
        assert 1 - plain > 0.8
    assert 1 - passed > SIGNIFICANCE / 10  # what meets the bound is not far from the promise: nothing is given away


@pytest.mark.parametrize("noise", [1, 2, 4])
def test_a_bound_for_another_noise_is_broken_in_nearly_every_run(noise):
    """The best guess at a quarter of the stated noise, 200 trials at one of six levels."""
    rate = dict(zip(LEVELS, ORTHOGONAL, strict=True))[noise / 4]
    bound = identification_bound(20, noise)
    power = sum(stats.binom.pmf(k, 200, rate) for k in range(201) if is_broken(k, 200, bound, levels=6))
    assert power > 0.85


def measured(**other):
    common = {"candidates": 20, "trials": 200, "successes": 90, "images": 1, "noise_multiplier": 1.0, "steps": 1}
    named = {"seed": 0, "pool": 1000, "pool_digest": "", "weights_digest": ""}
    return Identification(**{**common, **named, **other})


def test_a_measurement_states_its_rate_its_bound_and_whether_it_breaks_it():
    found = measured()
    assert (found.rate, found.chance) == (0.45, 0.05)
    assert found.bound == identification_bound(20, 1.0, 1)
    assert found.lower_limit(6) == lower_limit(90, 200, 6)
    assert found.broken(6)
    assert not measured(steps=4).broken(6)
    assert not measured(successes=60).broken(6)


def test_what_is_not_proven_has_no_bound_and_cannot_be_broken():
    unproven = measured(successes=200, noise_multiplier=None, steps=None)
    assert unproven.bound is None
    assert not unproven.broken()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: identification_bound(1, 1.0), "candidates must be at least 2, got 1"),
        (lambda: identification_bound(20, 0.0), "noise_multiplier must be positive and finite, got 0.0"),
        (lambda: identification_bound(20, 1.0, 0), "steps must be at least 1, got 0"),
        (lambda: lower_limit(0, 0), "trials must be at least 1, got 0"),
        (lambda: lower_limit(21, 20), "between 0 and trials, 20, got 21"),
        (lambda: lower_limit(1, 20, 0), "levels must be at least 1, got 0; count the noise levels"),
    ],
)
def test_impossible_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_certificate_is_read_without_torch():
    code = "import sys, bench.price.certificates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False).returncode == 0
