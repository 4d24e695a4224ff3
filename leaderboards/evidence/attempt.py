"""One attack on one defense: its scores, and the floors that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.columns import FACTS
from bench.grid.cells import PRIOR_SETTINGS
from bench.trial import same_class, wrong_image
from leaderboards.evidence.record import (
    EVIDENCE_FIGURES,
    HEADLINE,
    LEAKAGE_METRICS,
    POSITIVE_CONTROL,
    Record,
    Variant,
    variant_text,
)
from leaderboards.statistics.summary import Row

PUBLIC_FLOORS = ("class_mean",)
"""Floors made of public images: where an attack of a question holds any, all its attacks are judged by them."""


@dataclass(frozen=True)
class Attempt:
    """One attack, granted one set of facts, on one defense.

    Arrays hold a mean over the seeds per image (n,), in the question's order; NaN unless all seeds have it.
    """

    variant: Variant
    name: str
    parameters: str
    score: dict[str, np.ndarray]
    floor: dict[str, np.ndarray]
    """Metric -> the score of the strongest control that belongs to the attack."""
    chance: np.ndarray
    """SSIM of the attack's reconstructions of other images, minus that of its other controls."""
    underpowered: np.ndarray
    """Above 0 where a seed's objective ended worse than at the truth; NaN without an objective."""
    by_seed: np.ndarray
    """The headline score of each image under each seed (s n)."""
    floors: np.ndarray
    """The headline score of each control that belongs to the attack, of each image under each seed (f s n)."""
    held_out: np.ndarray
    """The headline score of its answers to held-out clients, against their own images (s n); NaN without."""
    skipped: bool
    reason: str
    whole: bool
    """True if every image of every seed has an SSIM."""
    controls: dict[str, bool]
    """Label of a control that belongs to the attack -> True if it is whole."""
    adapts: bool
    """True if the attack simulates all of the defense."""
    recovers_labels: bool
    """True if the attack is about labels alone."""
    labels: np.ndarray
    """Share of the labels that the attack found; NaN where they were granted."""

    @property
    def knows_public(self) -> bool:
        """True if the server held public images."""
        return self._knows("public")

    @property
    def knows_all(self) -> bool:
        """True if the server held public images and knew the defense: it could be run as a black box."""
        return self._knows("public", "defense_known")

    @property
    def floors_are_whole(self) -> bool:
        """True if there is a floor, and every floor has a score for every image and seed."""
        return self.floors.size > 0 and bool(np.isfinite(self.floors).all())

    def _knows(self, *facts: str) -> bool:
        return all(self.variant[1 + FACTS.index(fact)] for fact in facts)

    def gain(self, metric: str) -> np.ndarray:
        return self.score[metric] - self.floor[metric]

    @property
    def label(self) -> str:
        return variant_text(self.variant)


@dataclass(frozen=True)
class Measured:
    """A record with each figure by seed and image (s n)."""

    record: Record
    figures: Mapping[str, np.ndarray]
    whole: bool

    @classmethod
    def of(cls, record: Record, images: np.ndarray, seeds: np.ndarray) -> Measured:
        figures = {name: record.by_seed(name, images, seeds) for name in EVIDENCE_FIGURES}
        return cls(record, figures, record.is_whole(images, seeds))

    def mean(self, metric: str) -> np.ndarray:
        """The mean of a metric over the seeds: (n,), NaN where one is missing or null."""
        return self.figures[metric].mean(axis=0)

    @property
    def name(self) -> str:
        return self.record.row["attack_name"]


def attempts_of(measured: Sequence[Measured]) -> tuple[Attempt, ...]:
    """The attempts among the records on one defense, in the order of the grid, each with its floors."""
    attacks = sorted((m for m in measured if not m.record.row["control"]), key=lambda m: m.record.row["attack_order"])
    controls = [m for m in measured if m.record.row["control"]]
    # Whatever one attack of a question knows, a floor may know, for all of them.
    granted = any(attack.record.row["public"] for attack in attacks)
    shared = [m for m in controls if granted and m.record.row["public"] and m.name in PUBLIC_FLOORS]
    return tuple(_attempt(attack, controls, shared) for attack in attacks)


def _attempt(attack: Measured, controls: list[Measured], shared: list[Measured]) -> Attempt:
    record, row = attack.record, attack.record.row
    own = [c for c in controls if c.record.knowledge == record.knowledge and _is_floor_of(row, c.record.row)]
    own += [c for c in shared if all(c is not other for other in own)]
    wrong = [c for c in own if c.name == wrong_image.NAME]
    others = [c for c in own if c.name != wrong_image.NAME]
    held_out = [c.figures[POSITIVE_CONTROL] for c in own if c.name == same_class.SAME_CLASS]
    n = attack.figures[HEADLINE].shape[1]
    return Attempt(
        variant=(row["attack"], *record.knowledge),
        name=row["attack_name"],
        parameters=row["attack_parameters"],
        score={metric: attack.mean(metric) for metric in LEAKAGE_METRICS},
        floor={metric: _strongest(own, metric, n) for metric in LEAKAGE_METRICS},
        by_seed=attack.figures[HEADLINE],
        floors=np.stack([c.figures[HEADLINE] for c in own]) if own else np.zeros((0, *attack.figures[HEADLINE].shape)),
        held_out=held_out[0] if held_out else np.full_like(attack.figures[HEADLINE], np.nan),
        chance=_strongest(wrong, HEADLINE, n) - _strongest(others, HEADLINE, n),
        underpowered=attack.mean("underpowered"),
        skipped=bool((record.statuses == "skipped").all()),
        reason=record.reason,
        whole=attack.whole,
        controls={c.record.row["attack"]: c.whole for c in sorted(own, key=lambda c: not c.whole)},
        adapts=bool(row["adapts"]),
        recovers_labels=bool(row["recovers_labels"]),
        labels=attack.mean("label_accuracy"),
    )


def _is_floor_of(attack: Row, control: Row) -> bool:
    """True if a control belongs to this attack: those made from an attack, and `prior_only`, to that one, any other.

    So an attack that joins a grid brings its own floors and raises nobody else's: it can only add leakage.
    """
    if label := same_class.LABELS_OF_CONTROLS.get(control["attack_name"]):
        return control["attack"] == label(attack["attack"])
    if control["attack_name"] == "prior_only":
        mine, its = (json.loads(row["attack_parameters"]) for row in (attack, control))
        return all(key in mine and mine[key] == its[key] for key in PRIOR_SETTINGS)
    return True


def _strongest(controls: list[Measured], metric: str, n: int) -> np.ndarray:
    """The largest of the controls (n,), NaN where one of them is missing: without it the floor might be too low."""
    return np.maximum.reduce([c.mean(metric) for c in controls]) if controls else np.full(n, np.nan)
