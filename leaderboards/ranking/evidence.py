"""Evidence about a defense, question by question and image by image: the strongest attack above its own floors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.grid.cells import PRIOR_SETTINGS
from leaderboards.ranking.comparison import independent
from leaderboards.ranking.statistics import Summary, summary_of
from leaderboards.ranking.summary import SETTING, Row, records

METRICS = ("ssim", "identified")
"""What leakage is computed for; the first is the headline, by which defenses are ranked."""
KNOWLEDGE = ["schedule_known", "defense_known"]
"""Published facts: attacks with and without them are evidence of the same question."""
QUESTION = [name for name in SETTING if name not in KNOWLEDGE]
"""What the defenses of one ranking share: the client's secrets that the server is granted are part of the question."""
Variant = tuple[str, bool, bool]
"""An attack's label, and whether it was granted the local schedule and the defense."""


@dataclass(frozen=True)
class Attempt:
    """One attack, with one knowledge, on one defense: figures per image (n,) in the question's order of images.

    `score` and `floor` by metric: means over the seeds, NaN unless all of them are there; `floor` is the strongest of
    the controls that belong to the attack. `chance` is the SSIM of the attack's reconstructions of other images above
    its other controls. `underpowered` is above 0 where a seed's objective ended worse than at the truth, NaN without an
    objective. `whole` says whether every image of every seed has an SSIM, `controls` which floors belong to it and
    whether they are whole. `adapts` says whether it simulates all of the defense, `recovers_labels` that it is about
    labels alone; `labels` (n,) is how many of them it found, NaN where they were granted.
    """

    variant: Variant
    name: str
    parameters: str
    score: dict[str, np.ndarray]
    floor: dict[str, np.ndarray]
    chance: np.ndarray
    underpowered: np.ndarray
    skipped: bool
    reason: str
    whole: bool
    controls: dict[str, bool]
    adapts: bool
    recovers_labels: bool
    labels: np.ndarray

    def gain(self, metric: str) -> np.ndarray:
        return self.score[metric] - self.floor[metric]

    @property
    def label(self) -> str:
        label, *granted = self.variant
        return label + granted_text(*granted)


@dataclass(frozen=True)
class Evidence:
    """All attempts on one defense. `row` identifies it; `groups` (s n) names each image's batch in each seed."""

    row: Row
    attempts: tuple[Attempt, ...]
    groups: np.ndarray

    @cached_property
    def of_images(self) -> list[Attempt]:
        """The attempts on images: what labels alone give away is no leakage of pixels."""
        return [a for a in self.attempts if not a.recovers_labels]

    @property
    def labels_found(self) -> float:
        """Share of the labels that the best attempt on them found; NaN where nobody looked for them."""
        found = [float(a.labels.mean()) for a in self.attempts if a.recovers_labels or not np.isnan(a.labels).all()]
        return max((share for share in found if not np.isnan(share)), default=np.nan)

    def attempt(self, variant: Variant) -> Attempt | None:
        return next((a for a in self.attempts if a.variant == variant), None)

    def excess(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the largest gain `among` the attempts, below 0 where all of them stay under their floors."""
        return _largest([a.gain(metric) for a in self.among(adaptive)], self.groups.shape[1])

    def gain(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the `excess`, of the headline metric at least 0; NaN without.

        Whoever gets less from an update than from no update at all submits that: a reconstruction below its floor is
        no gain, and one further below is no better protected. Rates are left as they are: some tries succeed by luck.
        """
        excess = self.excess(metric, adaptive)
        return np.maximum(excess, 0) if metric == METRICS[0] else excess

    def score(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the score of the attempt with the largest gain."""
        return self._of_strongest(metric, [a.score[metric] for a in self.among(adaptive)], adaptive)

    def summarised(self, values: np.ndarray, rate: bool = False) -> Summary | None:
        """Mean and interval of one value per image (n,), over what is independent; None unless every image has one."""
        if not len(values) or np.isnan(values).any():
            return None
        return summary_of(values, independent(values, self.groups), rate)

    @property
    def floor(self) -> float:
        """The mean headline score of the controls that the strongest attempts stand above; NaN without."""
        return float(self._of_strongest(METRICS[0], [a.floor[METRICS[0]] for a in self.of_images]).mean())

    def among(self, adaptive: bool | None) -> list[Attempt]:
        """All attempts (None); each attack as published, with the least that it was granted; or with the most.

        With the most there are none unless one of them simulates all of the defense.
        """
        if adaptive is None:
            return self.of_images
        if adaptive and not any(a.adapts for a in self.of_images):
            return []
        granted = lambda a: (a.adapts, sum(a.variant[1:]))  # noqa: E731
        by_attack: dict[str, list[Attempt]] = {}
        for attempt in self.of_images:
            by_attack.setdefault(attempt.variant[0], []).append(attempt)
        return [(max if adaptive else min)(own, key=granted) for own in by_attack.values()]

    @property
    def chance(self) -> np.ndarray:
        """Per image (n,) what as many attacks gain without having looked at it: the largest `chance`, at least 0."""
        return np.maximum(_largest([a.chance for a in self.of_images], self.groups.shape[1]), 0)

    @property
    def underpowered(self) -> np.ndarray:
        """Per image (n,) whether an attempt ended worse than at the truth, and none that did not gains as much.

        An attempt without an objective says nothing of this.
        """
        n = self.groups.shape[1]
        gains = [np.where(np.isnan(a.gain(METRICS[0])), -np.inf, a.gain(METRICS[0])) for a in self.of_images]
        weak, strong = np.full(n, -np.inf), np.full(n, -np.inf)
        for attempt, gain in zip(self.of_images, gains, strict=True):
            weak = np.where(attempt.underpowered > 0, np.maximum(weak, gain), weak)
            strong = np.where(attempt.underpowered == 0, np.maximum(strong, gain), strong)
        return weak > strong

    @property
    def strongest(self) -> str | None:
        """The attempt that is strongest on most images."""
        there = ~np.isnan(self.gain(METRICS[0]))
        return (
            self.of_images[int(np.bincount(self._winners(METRICS[0])[there]).argmax())].label if there.any() else None
        )

    def _winners(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        gains = np.stack([a.gain(metric) for a in self.among(adaptive)])
        return np.where(np.isnan(gains), -np.inf, gains).argmax(axis=0)

    def _of_strongest(self, metric: str, values: list[np.ndarray], adaptive: bool | None = None) -> np.ndarray:
        if not values:
            return np.full(self.groups.shape[1], np.nan)
        chosen = np.take_along_axis(np.stack(values), self._winners(metric, adaptive)[None], axis=0)[0]
        return np.where(np.isnan(self.gain(metric, adaptive)), np.nan, chosen)


@dataclass(frozen=True)
class Question:
    """One question of a run (its `QUESTION` columns), the image numbers asked about, and what is known per defense."""

    row: Row
    images: np.ndarray
    defenses: tuple[Evidence, ...]

    @cached_property
    def attempts(self) -> dict[Variant, list[Attempt]]:
        """Every attack that any defense faced, in the order of the grid."""
        found: dict[Variant, list[Attempt]] = {}
        for evidence in self.defenses:
            for attempt in evidence.attempts:
                found.setdefault(attempt.variant, []).append(attempt)
        return found

    @cached_property
    def undefended(self) -> Evidence | None:
        return next((e for e in self.defenses if e.row["defense_name"] == "none"), None)


def granted_text(schedule_known: bool, defense_known: bool) -> str:
    """What to write behind an attack's name."""
    return ("" if schedule_known else ", schedule not known") + (", defense known" if defense_known else "")


def _largest(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.fmax.reduce(values) if values else np.full(n, np.nan)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The store's rows, cut by question, in grid order; columns as in `bench.store.store`."""
    found = []
    for _, rows in frame.groupby(QUESTION, sort=False, dropna=False):
        done = rows.loc[rows["status"] == "ok"]
        images, seeds = np.unique(done["image"].astype(int)), np.unique(rows["seed"])
        evidence = [_evidence(own, images, seeds) for _, own in rows.groupby(["defense_order", "defense"], sort=True)]
        found.append(Question(records(rows.iloc[:1])[0], images, tuple(evidence)))
    return found


@dataclass(frozen=True)
class _Cells:
    """One attack or control, with one knowledge, on one defense, over all seeds: its first row, and means per image."""

    row: Row
    means: dict[str, np.ndarray]
    statuses: set[str]
    reason: str
    whole: bool

    @property
    def knowledge(self) -> tuple[bool, bool]:
        return bool(self.row["schedule_known"]), bool(self.row["defense_known"])


def _evidence(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> Evidence:
    cells = [_cells(own, images, seeds) for _, own in rows.groupby(["attack", *KNOWLEDGE], sort=False)]
    attacks = sorted((c for c in cells if not c.row["control"]), key=lambda c: c.row["attack_order"])
    controls = [c for c in cells if c.row["control"]]
    attempts = [_attempt(attack, controls, len(images)) for attack in attacks]
    return Evidence(records(rows.iloc[:1])[0], tuple(attempts), _groups(rows, images, seeds))


def _cells(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> _Cells:
    unmeasured = "no SSIM, which needs images of 11 pixels a side" if np.isnan(rows[METRICS[0]]).any() else ""
    return _Cells(
        row=records(rows.iloc[:1])[0],
        means={
            metric: _by_image(rows, metric, images, seeds) for metric in (*METRICS, "underpowered", "label_accuracy")
        },
        statuses=set(rows["status"]),
        reason="; ".join(dict.fromkeys(str(reason) for reason in rows["reason"] if reason)) or unmeasured,
        whole=_is_whole(rows, images, seeds),
    )


def _attempt(attack: _Cells, controls: list[_Cells], n: int) -> Attempt:
    own = [c for c in controls if c.knowledge == attack.knowledge and _is_floor_of(attack.row, c.row)]
    wrong = [c for c in own if c.row["attack_name"] == "wrong_image"]
    others = [c for c in own if c.row["attack_name"] != "wrong_image"]
    return Attempt(
        variant=(attack.row["attack"], *attack.knowledge),
        name=attack.row["attack_name"],
        parameters=attack.row["attack_parameters"],
        score={metric: attack.means[metric] for metric in METRICS},
        floor={metric: _strongest(own, metric, n) for metric in METRICS},
        chance=_strongest(wrong, METRICS[0], n) - _strongest(others, METRICS[0], n),
        underpowered=attack.means["underpowered"],
        skipped=attack.statuses == {"skipped"},
        reason=attack.reason,
        whole=attack.whole,
        controls={c.row["attack"]: c.whole for c in own},
        adapts=bool(attack.row["adapts"]),
        recovers_labels=bool(attack.row["recovers_labels"]),
        labels=attack.means["label_accuracy"],
    )


def _is_floor_of(attack: Row, control: Row) -> bool:
    """Whether a control belongs to this attack: `wrong_image` and `prior_only` if they were made from it, any other.

    So an attack that joins a grid brings its own floors and raises nobody else's: it can only add leakage.
    """
    if control["attack_name"] == "wrong_image":
        return control["attack"] == f"wrong_image(of={attack['attack']!r})"
    if control["attack_name"] == "prior_only":
        mine, its = (json.loads(row["attack_parameters"]) for row in (attack, control))
        return all(key in mine and mine[key] == its[key] for key in PRIOR_SETTINGS)
    return True


def _by_image(rows: pd.DataFrame, metric: str, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mean of a metric over the seeds: (n,), NaN where one is missing or null."""
    values = rows[metric].to_numpy(dtype=np.float64, na_value=np.nan)
    there = (rows["status"] == "ok").to_numpy() & ~np.isnan(values)
    image, seed = rows["image"].to_numpy(dtype=np.float64, na_value=np.nan)[there], rows["seed"].to_numpy()[there]
    table = np.full((len(images), len(seeds)), np.nan)
    # Backwards: of two values of one image and seed the first is left.
    places = np.searchsorted(images, image)[::-1], np.searchsorted(seeds, seed)[::-1]
    table[places] = values[there][::-1]
    return table.mean(axis=1)


def _strongest(controls: list[_Cells], metric: str, n: int) -> np.ndarray:
    """The largest of the controls (n,), NaN where one of them is missing: without it the floor might be too low."""
    values = [control.means[metric] for control in controls]
    return np.maximum.reduce(values) if values else np.full(n, np.nan)


def _is_whole(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> bool:
    if set(rows["status"]) != {"ok"} or np.isnan(rows[METRICS[0]]).any():
        return False
    return set(zip(rows["seed"], rows["image"], strict=True)) == {(seed, image) for seed in seeds for image in images}


def _groups(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The batch of each image in each seed; images of which nothing is known stand alone."""
    done = rows.loc[rows["status"] == "ok"]
    groups = np.tile(-1 - np.arange(len(images)), (len(seeds), 1))
    for seed, image, trial in done[["seed", "image", "trial"]].itertuples(index=False):
        groups[np.searchsorted(seeds, seed), np.searchsorted(images, image)] = trial
    return groups
