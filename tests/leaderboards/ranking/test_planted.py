"""The planted defenses hide nothing from whoever knows their code, and rules 2 rank none of them above `none`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from planted_board import CALLS, EXPOSED, NAMES, PLANTED, PREPARED, TINY, attacked, is_above, reviewed, standings

from bench.registry.registry import Registry
from leaderboards.evidence.code_reviews import CodeReviews
from leaderboards.evidence.question import questions
from leaderboards.ranking.audit import DECODER, strongest_gain
from leaderboards.ranking.by_mean import ByMean
from leaderboards.ranking.costs import RunCosts
from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import Verdict
from leaderboards.statistics.strongest import StrongestGain

MASK = Path(__file__).parents[2] / "plugins" / "random_mask.py"
ATTACKED = [name for name in NAMES if name not in PREPARED]
OPEN = ["false_surrogate", "key_permutation", "lying_many", "public_factors", "public_offset", "tiny_scale"]
"""Those that attacks see through on a board of this size."""


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> pd.DataFrame:
    registry = Registry([*sorted(PLANTED.glob("*.py")), MASK])
    # Their clients are computed in this process: forks are no matter here, and take seconds.
    registry.foreign = lambda kind, names: []
    calls = ["none", *(CALLS.get(name, name) for name in ATTACKED)]
    calls += ["random_mask(kept=0.1)", "random_mask(kept=0.1, told=False)"]
    # The descent of `prior_only` takes seconds, and stronger floors are there.
    return attacked(TINY, calls, registry, tmp_path_factory.mktemp("planted"), left_out=("prior_only",))


@pytest.fixture(scope="module")
def by_attacks(frame) -> dict[str, Standing]:
    """The standings of `none` and the planted defenses where no code is asked about."""
    return judged(frame, CodeReviews())


@pytest.fixture(scope="module")
def on_board(frame) -> dict[str, Standing]:
    """The same on a board whose reviewers have run the conformance suite."""
    return judged(frame, reviewed(frame, EXPOSED))


@pytest.fixture(scope="module")
def conforming(frame) -> dict[str, Standing]:
    """The same, had everything passed the suite."""
    return judged(frame, reviewed(frame))


def judged(frame: pd.DataFrame, reviews: CodeReviews) -> dict[str, Standing]:
    own = pd.DataFrame(frame[frame["defense_name"] != "random_mask"])
    return standings(own, replace(TINY.rule, reviews=reviews))


def of_decoder(standing: Standing) -> StrongestGain:
    evidence = standing.evidence
    gain = strongest_gain([own for own in evidence.of_images if own.name == DECODER], evidence.groups)
    assert gain is not None
    return gain


def test_no_planted_defense_ranks_above_none(on_board):
    assert on_board.keys() == {"none", *ATTACKED}
    assert [name for name, own in on_board.items() if is_above(own, on_board["none"])] == []


@pytest.mark.parametrize("name", OPEN)
def test_the_black_box_gains_from_a_public_cipher_as_much_as_from_no_defense(by_attacks, name):
    assert not is_above(by_attacks[name], by_attacks["none"])
    gain, plain = of_decoder(by_attacks[name]), of_decoder(by_attacks["none"])
    interval = plain.interval()
    assert interval is not None
    assert interval.low > TINY.rule.margin
    assert gain.mean == pytest.approx(plain.mean, abs=0.01)


def test_a_surrogate_that_denies_a_cipher_is_beaten_by_the_black_box(by_attacks):
    assert Verdict.SURROGATE_BEATEN in by_attacks["false_surrogate"].verdicts
    assert Verdict.SURROGATE_BEATEN not in by_attacks["tiny_scale"].verdicts


@pytest.mark.parametrize("name", EXPOSED)
def test_a_plugin_that_breaks_a_rule_of_conformance_is_unaudited(on_board, name):
    assert Verdict.UNAUDITED in on_board[name].verdicts
    assert on_board[name].rank is None


@pytest.mark.parametrize("name", ["call_counter", "nonce_offset", "seed_reader"])
def test_nothing_but_the_conformance_suite_exposes_a_pad_that_looks_like_noise(conforming, name):
    assert conforming[name].verdicts <= {Verdict.SURROGATE_BEATEN}
    assert is_above(conforming[name], conforming["none"])


def test_nothing_but_a_reader_exposes_an_update_in_the_lowest_byte_of_real_noise(by_attacks, on_board):
    assert is_above(by_attacks["mantissa"], by_attacks["none"])
    assert on_board["mantissa"].verdicts == {Verdict.UNREAD}
    assert on_board["mantissa"].rank is None


def test_a_claimed_guarantee_is_no_reader_of_a_hidden_channel(frame):
    [question] = questions(frame)
    [evidence] = [own for own in question.defenses if own.row["defense_name"] == "mantissa"]
    claimed = replace(RunCosts().of(question.row | evidence.row), epsilon=1.0)
    rule = replace(TINY.rule, reviews=reviewed(frame))
    assert Verdict.UNREAD in ByMean().verdicts(question, evidence, rule, claimed)


def test_a_mask_leaks_the_same_whatever_its_surrogate_says(frame):
    """That the update is sent as it is, which entries are, or nothing at all."""
    [question] = questions(frame)
    masks = [own for own in question.defenses if own.row["defense_name"] in ("identity_surrogate", "random_mask")]
    gains = [strongest_gain(own.of_images, own.groups) for own in masks]
    assert len(gains) == 3
    for gain in gains:
        interval = gain.interval()
        assert interval.low > 0
        assert all(interval.low <= other.mean <= interval.high for other in gains)
