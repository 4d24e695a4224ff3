"""Test accuracy of training under a defense, over seeds, and the accuracy that the defense costs, seed by seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from leaderboards.statistics.summary import Row, records

Trained = tuple[str, str, str]
"""Dataset, model and defense of a test accuracy, which all weights and threat models share."""
LEAST_SEEDS = 3
"""Two seeds have an interval, which is shown; no defense is called affordable by fewer than three."""
TEXTS_OF_TRAINING = ("optimizer", "accountant", "guarantee_unit", "guarantee_relation", "no_epsilon")
NUMBERS_OF_TRAINING = (
    "chance", "test_images", "rounds", "clients", "population", "participations", "learning_rate", "least_accuracy",
    "epsilon", "delta", "epsilon_rdp", "epsilon_prv", "epsilon_central", "guarantee_steps", "noise_multiplier",
)  # fmt: skip
"""With the texts, the facts of a training that do not depend on a seed."""
EQUAL_IMAGES = "accuracy_at_equal_images"
MEASURED = ("bytes_sent", "update_ms", "seconds")
"""The facts that every seed measures anew."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95% Student-t interval; without seeds all is NaN."""

    mean: float = np.nan
    low: float = np.nan
    """Lower end of the interval; NaN below two seeds."""
    high: float = np.nan
    """Upper end of the interval; NaN below two seeds."""
    n: int = 0
    """Number of seeds."""


@dataclass(frozen=True)
class LostAccuracy:
    """Test accuracy lost against the undefended client, in percentage points."""

    mean: float
    high: float
    """Upper end of the 95% interval; NaN of fewer than `LEAST_SEEDS` seeds."""
    at_chance: bool = False
    """True if the interval of the accuracy itself reaches that of guessing: such a defense trains nothing."""


@dataclass(frozen=True)
class AccuracyPrice:
    """The test accuracy of one defense over all seeds, and the accuracy lost against undefended training."""

    accuracy: Estimate
    """Test accuracy, a fraction."""
    lost: Estimate
    """Test accuracy lost against the undefended client, in percentage points."""
    at_chance: bool
    """True if the interval of the accuracy reaches that of guessing."""
    reason: str
    """The reason for which there is no accuracy; "" where there is one."""
    lost_reason: str
    """The reason for which there is no accuracy lost; "" where there is one."""

    @property
    def cost(self) -> LostAccuracy | None:
        """The loss that is compared with a budget; None where none was measured."""
        if self.lost_reason:
            return None
        return LostAccuracy(self.lost.mean, self.lost.high if self.lost.n >= LEAST_SEEDS else np.nan, self.at_chance)


def unknown_price(reason: str, lost_reason: str = "") -> AccuracyPrice:
    """A price that nobody knows, for a reason."""
    return AccuracyPrice(Estimate(), Estimate(), False, reason, lost_reason or reason)


@dataclass(frozen=True)
class Training:
    """The training of one defense, over all seeds."""

    at_equal_rounds: AccuracyPrice
    """After as many rounds as undefended training takes."""
    at_equal_images: AccuracyPrice
    """After as many images as undefended training sees."""
    images_seen: float
    """Images that a round sees, over those of a round of undefended training."""
    facts: Row
    """The texts and numbers that all seeds share, null where they disagree; of `MEASURED` the means over seeds."""
    conflicts: str
    """The facts that seeds disagree about, in words."""

    def price(self, equal_images: bool) -> AccuracyPrice:
        """The price after equally many images, or else after equally many rounds."""
        return self.at_equal_images if equal_images else self.at_equal_rounds


def estimate(values: ArrayLike) -> Estimate:
    """Mean and Student-t interval of one value per seed (n,)."""
    seeds = np.asarray(values, dtype=np.float64)
    if not len(seeds):
        return Estimate()
    mean = float(seeds.mean())
    if len(seeds) < 2:
        return Estimate(mean, n=1)
    half = float(stats.t.ppf(0.975, len(seeds) - 1) * seeds.std(ddof=1) / len(seeds) ** 0.5)
    return Estimate(mean, mean - half, mean + half, len(seeds))


def trainings(jobs: pd.DataFrame) -> dict[Trained, Training]:
    """The training jobs of a run, by what was trained; columns as in `bench.store.store`, one row per seed.

    A seed without an accuracy leaves its defense without one; and without the undefended client's nothing is lost.
    """
    found: dict[Trained, Training] = {}
    rows = jobs.loc[jobs["kind"] == "training"]
    for (dataset, model), own in rows.groupby(["dataset", "model"], sort=False):
        undefended = records(pd.DataFrame(own.loc[own["defense_name"] == "none"]))
        for defense, alike in own.groupby("defense", sort=False):
            found[str(dataset), str(model), str(defense)] = _training(records(alike), undefended)
    return found


def _training(rows: list[Row], undefended: list[Row]) -> Training:
    reason, reference_reason = _lacking(rows), _lacking(undefended)
    facts, conflicts = _facts(rows)
    seen = _images(rows) / _images(undefended)
    if reason:
        facts |= dict.fromkeys(MEASURED, np.nan)
        nothing = unknown_price(reason)
        return Training(nothing, nothing, seen, facts, conflicts)
    reference = {} if reference_reason else _by_seed(undefended, "accuracy")
    facts |= {name: float(np.mean([row[name] for row in rows])) for name in MEASURED}
    price = lambda name: _price(_by_seed(rows, name), reference, reference_reason, facts["chance"])  # noqa: E731
    without = _without_equal_images(rows, seen, reference_reason)
    equal = "accuracy" if seen == 1 else EQUAL_IMAGES
    return Training(price("accuracy"), unknown_price(without) if without else price(equal), seen, facts, conflicts)


def _price(mine: dict[int, float], reference: dict[int, float], reference_reason: str, chance: float) -> AccuracyPrice:
    accuracy = estimate(list(mine.values()))
    accuracy = replace(accuracy, low=float(np.maximum(accuracy.low, 0)), high=float(np.minimum(accuracy.high, 1)))
    # Paired: a seed's weights, order of batches and clients are the same with and without the defense.
    lost = estimate([100 * (reference[seed] - mine[seed]) for seed in mine if seed in reference])
    lost_reason = f"undefended: {reference_reason}" if reference_reason else "" if lost.n else "no seed in common"
    lowest = accuracy.mean if np.isnan(accuracy.low) else accuracy.low
    return AccuracyPrice(accuracy, lost, bool(lowest <= chance), "", lost_reason)


def _without_equal_images(rows: list[Row], seen: float, reference_reason: str) -> str:
    """The reason for which there is no accuracy at equal images; "" where there is one.

    Local epochs see the images of a round again, and no others: they do not count.
    """
    if np.isnan(seen):
        return f"undefended: {reference_reason or 'its images a round are not known'}"
    if seen < 1:
        return f"its rounds see {seen:g} times the images of undefended ones: at its end fewer were seen"
    lacking = [int(row["seed"]) for row in rows if pd.isna(row.get(EQUAL_IMAGES, np.nan))]
    if seen == 1 or not lacking:
        return ""
    if any(float(row["rounds"]) < seen for row in rows):
        return (
            "a single round sees more images than undefended training does in all: raise utility.rounds to at least "
            f"{ceil(seen)}"
        )
    return (
        f"no accuracy at equal images was recorded of seed {', '.join(map(str, lacking))}: give the run's command "
        "again, with --retry stale"
    )


def _images(rows: list[Row]) -> float:
    """Images of an update, which all rows share; NaN without."""
    found = {float(row["images_per_update"]) for row in rows}
    return found.pop() if len(found) == 1 else np.nan


def _by_seed(rows: list[Row], name: str) -> dict[int, float]:
    return {int(row["seed"]): float(row[name]) for row in rows}


def _lacking(rows: list[Row]) -> str:
    """The reason for which these jobs have no accuracy; "" where every seed has one."""
    if not rows:
        return "not trained"
    why = []
    for row in rows:
        if row["status"] != "ok":
            because = "" if pd.isna(row["reason"]) or not row["reason"] else f" ({row['reason']})"
            why.append(f"seed {int(row['seed'])} is {row['status']}{because}")
        elif pd.isna(row["accuracy"]):
            why.append(f"seed {int(row['seed'])} has no accuracy")
    if len({row["seed"] for row in rows}) < len(rows):
        why.append("a seed was trained in two ways")
    return "; ".join(dict.fromkeys(why))


def _facts(rows: list[Row]) -> tuple[Row, str]:
    """The facts that all seeds share, and in words those that they should share and do not."""
    facts: Row = {}
    conflicts = []
    for name in (*TEXTS_OF_TRAINING, *NUMBERS_OF_TRAINING):
        values: list[Any] = list(dict.fromkeys(row[name] for row in rows if not pd.isna(row[name])))
        null = None if name in TEXTS_OF_TRAINING else np.nan
        facts[name] = values[0] if len(values) == 1 else null
        if len(values) > 1:
            conflicts.append(f"seeds disagree on {name}: {' and '.join(map(str, values))}")
    return facts, "; ".join(conflicts)
