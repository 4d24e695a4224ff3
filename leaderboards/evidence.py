"""What the attacks of a run show of each defense, image by image: the strongest attack above its own floors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.cells import PRIOR_SETTINGS
from leaderboards.summary import SETTING, Row, records

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

    `score` and `floor` by metric: means over the seeds that finished, NaN where none did; `floor` is the strongest of
    the controls that belong to the attack. `underpowered` is 1 where a seed's objective ended worse than at the truth.
    `whole` says whether every image of every seed is there, `controls` which floors belong to it and whether they are
    whole. `adapts` says whether it simulates all of the defense.
    """

    variant: Variant
    name: str
    parameters: str
    score: dict[str, np.ndarray]
    floor: dict[str, np.ndarray]
    underpowered: np.ndarray
    skipped: bool
    reason: str
    whole: bool
    controls: dict[str, bool]
    adapts: bool

    def gain(self, metric: str) -> np.ndarray:
        return self.score[metric] - self.floor[metric]

    @property
    def label(self) -> str:
        label, schedule, known = self.variant
        return label + ("" if schedule else ", schedule not known") + (", defense known" if known else "")


@dataclass(frozen=True)
class Evidence:
    """All attempts on one defense. `row` identifies it; `groups` (s n) names each image's batch in each seed."""

    row: Row
    attempts: tuple[Attempt, ...]
    groups: np.ndarray

    def attempt(self, variant: Variant) -> Attempt | None:
        return next((a for a in self.attempts if a.variant == variant), None)

    def gain(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the largest gain of all attempts, or of those that adapt or do not; NaN without."""
        return _largest([a.gain(metric) for a in self.among(adaptive)], self.groups.shape[1])

    def score(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the score of the attempt with the largest gain."""
        return self._of_strongest(metric, [a.score[metric] for a in self.among(adaptive)], adaptive)

    def among(self, adaptive: bool | None) -> list[Attempt]:
        return [a for a in self.attempts if adaptive is None or a.adapts == adaptive]

    @property
    def underpowered(self) -> np.ndarray:
        """Per image (n,) whether the attempt with the largest headline gain is underpowered."""
        return self._of_strongest(METRICS[0], [a.underpowered for a in self.attempts]) > 0

    @property
    def strongest(self) -> str | None:
        """The attempt that is strongest on most images."""
        there = ~np.isnan(self.gain(METRICS[0]))
        return self.attempts[int(np.bincount(self._winners(METRICS[0])[there]).argmax())].label if there.any() else None

    @property
    def audited(self) -> bool:
        """Whether an attack that leaves nothing of the defense out finished on some images."""
        return any(a.adapts and not np.isnan(a.gain(METRICS[0])).all() for a in self.attempts)

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


def questions(frame: pd.DataFrame) -> list[Question]:
    """The store's rows, cut by question, in grid order; columns as in `bench.store`."""
    found = []
    for _, rows in frame.groupby(QUESTION, sort=False, dropna=False):
        done = rows.loc[rows["status"] == "ok"]
        images, seeds = np.unique(done["image"].astype(int)), np.unique(rows["seed"])
        evidence = [_evidence(own, images, seeds) for _, own in rows.groupby(["defense_order", "defense"], sort=True)]
        found.append(Question(records(rows.iloc[:1])[0], images, tuple(evidence)))
    return found


def _evidence(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> Evidence:
    attacks = rows.loc[~rows["control"].astype(bool)].sort_values("attack_order", kind="stable")
    attempts = [_attempt(own, rows, images, seeds) for _, own in attacks.groupby(["attack", *KNOWLEDGE], sort=False)]
    return Evidence(records(rows.iloc[:1])[0], tuple(attempts), _groups(rows, images, seeds))


def _attempt(own: pd.DataFrame, rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> Attempt:
    first = records(own.iloc[:1])[0]
    alike = (rows[KNOWLEDGE] == own[KNOWLEDGE].iloc[0]).all(axis=1) & rows["control"].astype(bool)
    controls = [cell for _, cell in rows.loc[alike].groupby("attack", sort=False) if _is_floor_of(first, cell)]
    return Attempt(
        variant=(first["attack"], bool(first["schedule_known"]), bool(first["defense_known"])),
        name=first["attack_name"],
        parameters=first["attack_parameters"],
        score={m: _by_image(own, m, images) for m in METRICS},
        floor={m: _largest([_by_image(cell, m, images) for cell in controls], len(images)) for m in METRICS},
        underpowered=np.nan_to_num(_by_image(own, "underpowered", images)),
        skipped=set(own["status"]) == {"skipped"},
        reason="; ".join(dict.fromkeys(str(reason) for reason in own["reason"] if reason)),
        whole=_is_whole(own, images, seeds),
        controls={cell["attack"].iloc[0]: _is_whole(cell, images, seeds) for cell in controls},
        adapts=bool(first["adapts"]),
    )


def _is_floor_of(attack: Row, cell: pd.DataFrame) -> bool:
    """Whether a control belongs to this attack: any without parameters, and those that copy its own.

    So an attack that joins a grid brings its own floors and raises nobody else's: it can only add leakage.
    """
    control = records(cell.iloc[:1])[0]
    if control["attack_name"] == "wrong_image":
        return control["attack"] == f"wrong_image(of={attack['attack']!r})"
    if control["attack_name"] == "prior_only":
        mine, its = (json.loads(row["attack_parameters"]) for row in (attack, control))
        return all(key in mine and mine[key] == its[key] for key in PRIOR_SETTINGS)
    return True


def _by_image(rows: pd.DataFrame, metric: str, images: np.ndarray) -> np.ndarray:
    """The mean of a metric over the seeds that finished: (n,), NaN where none did."""
    done = rows.loc[rows["status"] == "ok"]
    means = done.groupby(done["image"].astype(int))[metric].mean()
    return means.reindex(images).to_numpy(dtype=np.float64)


def _largest(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.fmax.reduce(values) if values else np.full(n, np.nan)


def _is_whole(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> bool:
    if set(rows["status"]) != {"ok"}:
        return False
    return set(zip(rows["seed"], rows["image"], strict=True)) == {(seed, image) for seed in seeds for image in images}


def _groups(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The batch of each image in each seed; images of which nothing is known stand alone."""
    done = rows.loc[rows["status"] == "ok"]
    groups = np.tile(-1 - np.arange(len(images)), (len(seeds), 1))
    for seed, image, trial in done[["seed", "image", "trial"]].itertuples(index=False):
        groups[np.searchsorted(seeds, seed), np.searchsorted(images, image)] = trial
    return groups
