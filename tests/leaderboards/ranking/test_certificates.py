"""Certificates: an attack that wins more than noise allows is no luck, and costs a defense its epsilon and its rank."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from leaderboards.ranking.costs import certificates

NOISE = "dp_sgd(noise_multiplier=1.0)"
KEY = ("cifar10-samples", "lenet-zhu", "untrained", NOISE)


def test_the_successes_of_all_seeds_are_added_up(make: SimpleNamespace) -> None:
    jobs = make.frame(make.certificate(NOISE, 30), make.certificate(NOISE, 50, seed=1))
    found = certificates(jobs)[KEY]
    assert (found.bound, found.measured, found.trials, found.candidates) == (0.23, 80 / 400, 400, 16)
    assert not found.broken


def test_all_trials_won_break_a_bound_just_above_their_lower_limit(make: SimpleNamespace) -> None:
    """Of n trials all won, the exact lower limit at level a is a ** (1 / n)."""
    limit = 0.001 ** (1 / 200)
    just_above, just_below = limit + 1e-6, limit - 1e-6
    assert not certificates(make.frame(make.certificate(NOISE, 200, bound=just_above)))[KEY].broken
    assert certificates(make.frame(make.certificate(NOISE, 200, bound=just_below)))[KEY].broken


def test_the_level_is_divided_among_the_certificates_of_the_run(make: SimpleNamespace) -> None:
    bound = 0.001 ** (1 / 200) - 1e-6
    others = [make.certificate(f"dp_sgd(noise_multiplier={i})", 0) for i in range(9)]
    jobs = make.frame(make.certificate(NOISE, 200, bound=bound), others)
    assert not certificates(jobs)[KEY].broken


def test_a_certificate_without_a_single_success_is_kept(make: SimpleNamespace) -> None:
    found = certificates(make.frame(make.certificate(NOISE, 0)))[KEY]
    assert (found.measured, found.broken) == (0, False)


def test_a_failed_job_leaves_the_certificate_unmeasured_with_its_reason(make: SimpleNamespace) -> None:
    failed = make.certificate(NOISE, np.nan, status="error", reason="boom", trials=np.nan, bound=np.nan, seed=1)  # type: ignore[arg-type]
    found = certificates(make.frame(make.certificate(NOISE, 30), failed))[KEY]
    assert np.isnan(found.measured)
    assert found.reason == "seed 1 is error; boom"
    # What another seed has shown stays shown.
    assert certificates(make.frame(make.certificate(NOISE, 200), failed))[KEY].broken


def test_bounds_that_differ_are_not_averaged(make: SimpleNamespace) -> None:
    found = certificates(make.frame(make.certificate(NOISE, 30), make.certificate(NOISE, 30, seed=1, bound=0.3)))[KEY]
    assert np.isnan(found.bound)
    assert found.reason == "seeds disagree on the bound"


@pytest.mark.parametrize("weights", ["untrained", "5 epochs"])
def test_a_certificate_belongs_to_the_weights_that_were_attacked(make: SimpleNamespace, weights: str) -> None:
    found = certificates(make.frame(make.certificate(NOISE, 30, weights=weights)))
    assert list(found) == [("cifar10-samples", "lenet-zhu", weights, NOISE)]
