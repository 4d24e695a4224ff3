"""The words and columns of each set of rules in tables of ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from leaderboards.ranking.standing import Standing
from leaderboards.ranking.verdicts import RankingRule, Verdict
from leaderboards.statistics.intervals import Summary
from leaderboards.tables.prices import bound_sign
from leaderboards.tables.scores import ABSENT, number


@dataclass(frozen=True)
class RuleWords:
    """A set of rules, as a reader of its tables meets it."""

    title: str
    """The title of the table of ranks."""
    columns: tuple[str, ...]
    """The columns of the gain."""
    cells: Callable[[Standing], list[str]]
    """A cell for each of these columns."""
    beside: tuple[str, ...]
    """Columns behind the gain: what stands beside it, without the ratio and the verdicts."""
    beside_cells: Callable[[Standing], list[str]]
    """A cell for each of these columns."""
    notes: tuple[str, ...]
    """The meaning of the gain, for whoever reads the table."""
    compared: str
    """The comparison that a rank is made of."""
    verdicts: Mapping[Verdict, str]
    """The meaning of each verdict that is of these rules alone, or is given otherwise by others; no full stop."""


def words_of(rule: RankingRule) -> RuleWords:
    """The words of the rules that a ranking follows."""
    return RULE_WORDS[rule.rules]


def _gain(standing: Standing) -> str:
    gain = standing.shown_gain
    return ABSENT if np.isnan(gain) else f"{bound_sign(standing)}{gain:.3f}"


def _span(summary: Summary) -> str:
    """An interval; of images that all count as no gain a bootstrap says nothing."""
    low, high = summary.low, summary.high
    return ABSENT if np.isnan(low) or low == high == 0 else f"[{low:.3f}, {high:.3f}]"


def _by_seed(standing: Standing) -> str:
    return " ".join(f"{own + 0.0:.3f}" for own in standing.by_seed) or ABSENT


RULE_WORDS = {
    1: RuleWords(
        title="Worst case over all attacks",
        columns=("SSIM gain", "95% interval"),
        cells=lambda own: [_gain(own), _span(own.gain)],
        beside=("by chance",),
        beside_cells=lambda own: [number(own.chance, ".3f")],
        notes=(
            "SSIM gain: per image the strongest attack, adapting or not, minus the strongest control that belongs to "
            "it (controls use no gradient); seeds averaged first, then the mean over images.",
            "An image whose strongest attack stays under its floor counts as no gain; where all do there is no "
            "interval.",
            "By chance: the gain of as many attacks whose reconstructions are compared with other images. What does "
            "not exceed it comes from no update.",
        ),
        compared="paired bootstrap over images",
        verdicts={
            Verdict.UNAUDITED: "no attack that simulates the defense, and works undefended, has finished; a "
            "low gain proves no protection",
        },
    ),
    2: RuleWords(
        title="The strongest attack by its mean",
        columns=("SSIM gain", "95%, images and seeds", "95%, these seeds", "each seed"),
        cells=lambda own: [_gain(own), _span(own.gain), _span(own.given_seeds), _by_seed(own)],
        beside=("worst case", "by chance"),
        beside_cells=lambda own: [number(own.worst_case, ".3f"), number(own.chance, ".3f")],
        notes=(
            "SSIM gain: the mean of the strongest attack minus that of its strongest floor, both the strongest by "
            "their mean over images and seeds of weights; at least 0.",
            "Intervals: over images and seeds of weights (MOVER), and over images given these seeds (bootstrap-t); "
            "attack and floor are chosen inside each resample.",
            "Worst case: the mean of the largest gain on each image. By chance: that of as many attacks whose "
            "reconstructions are compared with other images.",
        ),
        compared="paired bootstrap over images, of one sign in every seed; below 0 nobody is better than 0",
        verdicts={
            Verdict.UNREAD: "a plugin without a built-in proof whose code nobody says to have read; "
            "no attack replaces a reader. On a board its review says who has; a grid file says it by [[reviews]] with "
            "defense, read_by and read, one sentence",
            Verdict.UNAUDITED: "posterior_mean and black_box_decoder have not both finished with "
            "public images and the defense known, and shown on held-out clients that they work; or no re-run of the "
            "board's entry has found that its plugin passes the conformance suite",
            Verdict.BLIND: "the strongest attack stays more than .02 SSIM below its own floor; the "
            "gain is unknown, not 0",
            Verdict.INCONSISTENT: "attacks do better on held-out clients of the defense than on "
            "the attacked ones, or a reviewer's spot check gains more than the board's attacks, by more than .05 SSIM",
            Verdict.SURROGATE_BEATEN: "the defense as a black box gives more away than attacks "
            "through its surrogate find",
        },
    ),
}
"""Number of the rules -> their words."""
