"""Accuracy and its losses: Student's t over seeds, paired seed by seed, and nothing averaged away."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bench.price.federated import Rounds
from leaderboards.ranking.accuracy import Training, estimate, trainings

PRUNED = "gradient_pruning(ratio=0.5)"
NONE = [0.60, 0.64, 0.62]


def of(jobs: pd.DataFrame, defense: str = PRUNED) -> Training:
    return trainings(jobs)["cifar10-samples", "lenet-zhu", defense]


def test_the_interval_is_students_t_over_seeds() -> None:
    found = estimate([1.0, 2.0, 3.0])
    # t(.975, 2) = 4.30265, SD 1, three seeds.
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-5)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate([0.5])
    assert found.mean == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert np.isnan(estimate([]).mean)


def test_losses_are_percentage_points_paired_by_seed(make: SimpleNamespace) -> None:
    """Every seed loses between 1.9 and 2.1 points, however much the seeds differ: unpaired, that would be noise."""
    own = [reached - lost for reached, lost in zip(NONE, (0.019, 0.020, 0.021), strict=True)]
    found = of(make.frame(make.training("none", NONE), make.training(PRUNED, own)))
    half = 4.30265 * 0.1 / 3**0.5
    assert found.at_equal_rounds.accuracy.mean == pytest.approx(0.6)
    assert (
        found.at_equal_rounds.lost.mean,
        found.at_equal_rounds.lost.low,
        found.at_equal_rounds.lost.high,
    ) == pytest.approx((2.0, 2 - half, 2 + half), abs=1e-5)
    assert found.at_equal_rounds.cost is not None
    assert found.at_equal_rounds.cost.high == pytest.approx(2 + half, abs=1e-5)


def test_only_seeds_that_both_have_are_compared(make: SimpleNamespace) -> None:
    found = of(make.frame(make.training("none", NONE[:2]), make.training(PRUNED, [0.50, 0.54, 0.99])))
    assert found.at_equal_rounds.lost.n == 2
    assert found.at_equal_rounds.lost.mean == pytest.approx(10)
    assert found.at_equal_rounds.accuracy.n == 3


def test_a_failed_seed_leaves_no_accuracy_and_its_reason(make: SimpleNamespace) -> None:
    own = make.training(PRUNED, [0.5] * 3)
    own[1] |= {"status": "oom", "reason": "2 GiB were asked for", "accuracy": np.nan, "bytes_sent": np.nan}
    found = of(make.frame(make.training("none", NONE), own))
    assert found.at_equal_rounds.reason == found.at_equal_rounds.lost_reason == "seed 1 is oom (2 GiB were asked for)"
    assert found.at_equal_rounds.cost is None
    assert np.isnan(
        [
            found.at_equal_rounds.accuracy.mean,
            found.at_equal_rounds.lost.mean,
            found.facts["bytes_sent"],
            found.facts["update_ms"],
        ]
    ).all()
    # What the plan says of all seeds does not depend on one of them.
    assert found.facts["rounds"] == 400


def test_a_failed_undefended_seed_leaves_nobody_a_loss(make: SimpleNamespace) -> None:
    undefended = make.training("none", NONE)
    undefended[2] |= {"status": "pending", "accuracy": np.nan}
    found = of(make.frame(undefended, make.training(PRUNED, NONE)))
    assert found.at_equal_rounds.accuracy.mean == pytest.approx(0.62)
    assert found.at_equal_rounds.lost_reason == "undefended: seed 2 is pending"
    assert of(make.frame(make.training(PRUNED, NONE))).at_equal_rounds.lost_reason == "undefended: not trained"


def test_fewer_than_three_seeds_claim_nothing(make: SimpleNamespace) -> None:
    found = of(make.frame(make.training("none", NONE[:2]), make.training(PRUNED, NONE[:2])))
    assert (found.at_equal_rounds.lost.low, found.at_equal_rounds.lost.high) == (0, 0)
    assert found.at_equal_rounds.cost is not None
    assert np.isnan(found.at_equal_rounds.cost.high)


@pytest.mark.parametrize(("reached", "at_chance"), [([0.10, 0.11, 0.12], True), ([0.20, 0.201, 0.202], False)])
def test_an_accuracy_whose_interval_reaches_chance_is_one_of_chance(
    make: SimpleNamespace, reached: list[float], at_chance: bool
) -> None:
    assert (
        of(make.frame(make.training("none", NONE), make.training(PRUNED, reached))).at_equal_rounds.at_chance
        is at_chance
    )


def test_what_seeds_should_share_and_do_not_is_null_and_never_a_mean(make: SimpleNamespace) -> None:
    own = make.training(PRUNED, NONE, **make.proof(1.0))
    own[1]["epsilon"] = 3.0
    found = of(make.frame(make.training("none", NONE), own))
    assert np.isnan(found.facts["epsilon"])
    assert found.conflicts == "seeds disagree on epsilon: 1.0 and 3.0"
    assert found.facts["epsilon_rdp"] == 1.2


def test_a_seed_that_was_trained_twice_has_no_accuracy(make: SimpleNamespace) -> None:
    found = of(make.frame(make.training("none", NONE), make.training(PRUNED, NONE), make.training(PRUNED, [0.9])))
    assert found.at_equal_rounds.reason == "a seed was trained in two ways"


def test_models_are_trained_apart(make: SimpleNamespace) -> None:
    jobs = make.frame(
        make.training("none", NONE), make.training(PRUNED, NONE), make.training(PRUNED, NONE, model="resnet20")
    )
    assert of(jobs).at_equal_rounds.lost.mean == 0
    assert (
        trainings(jobs)["cifar10-samples", "resnet20", PRUNED].at_equal_rounds.lost_reason == "undefended: not trained"
    )


LARGER = "larger_batch(examples=4)"


def larger(make: SimpleNamespace, early: list[float] | None, examples: int = 4, rounds: int = 400) -> Training:
    """Training with more images ends 2 points above undefended training, and was `early` at as many images."""
    own = make.training(LARGER, [a + 0.02 for a in NONE], images_per_update=examples, rounds=rounds)
    for row, reached in zip(own, early or [np.nan] * 3, strict=True):
        row["accuracy_at_equal_images"] = reached
    return of(make.frame(make.training("none", NONE, rounds=rounds), own), LARGER)


def test_four_times_the_images_gain_at_equal_rounds_what_they_lose_at_equal_images(make: SimpleNamespace) -> None:
    found = larger(make, [a - 0.03 for a in NONE])
    assert found.images_seen == 4
    assert found.at_equal_rounds.lost.mean == pytest.approx(-2.0)
    assert found.at_equal_images.lost.mean == pytest.approx(3.0)
    assert found.price(equal_images=True).cost == found.at_equal_images.cost != found.at_equal_rounds.cost


def test_an_accuracy_that_is_of_chance_at_equal_images_trains_nothing(make: SimpleNamespace) -> None:
    found = larger(make, [0.10, 0.11, 0.12])
    assert found.at_equal_images.at_chance
    assert not found.at_equal_rounds.at_chance


def test_equal_images_are_equal_rounds_where_an_update_has_as_many_images(make: SimpleNamespace) -> None:
    """Local epochs see the images of a round again, and no others."""
    epochs = make.training(PRUNED, [0.5] * 3, local_steps=5)
    found = of(make.frame(make.training("none", NONE), epochs))
    assert found.images_seen == 1
    assert found.at_equal_images == found.at_equal_rounds


def test_a_training_from_before_equal_images_were_counted_has_a_reason_and_no_accuracy_there(
    make: SimpleNamespace,
) -> None:
    early = larger(make, None).at_equal_images
    assert np.isnan([early.accuracy.mean, early.lost.mean]).all()
    assert early.cost is None
    assert early.lost_reason == (
        "no accuracy at equal images was recorded of seed 0, 1, 2: give the run's command again, with --retry stale"
    )
    fewer = of(make.frame(make.training("none", NONE, images_per_update=8), make.training(PRUNED, NONE)))
    assert fewer.at_equal_images.lost_reason.startswith("its rounds see 0.125 times the images of undefended ones")


@pytest.mark.parametrize(("rounds", "examples"), [(1, 4), (3, 4), (4, 4), (2, 5), (5, 5), (9, 4)])
def test_fewer_rounds_than_an_update_has_times_the_images_are_said_to_be_too_few(
    make: SimpleNamespace, rounds: int, examples: int
) -> None:
    """The reason agrees with the training itself, which knows no such round then."""
    reason = larger(make, None, examples, rounds).at_equal_images.reason
    if Rounds(rounds, 5, 100, examples).at_equal_images(1) is None:
        assert reason.endswith(f"than undefended training does in all: raise utility.rounds to at least {examples}")
        assert Rounds(examples, 5, 100, examples).at_equal_images(1) is not None
    else:
        assert reason.endswith("with --retry stale")
