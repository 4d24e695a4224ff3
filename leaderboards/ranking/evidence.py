"""Evidence about a defense, question by question and image by image: the strongest attack above its own floors."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.columns import FACTS, QUESTION, facts_of, granted_text
from bench.grid.cells import PRIOR_SETTINGS
from bench.trial import same_class, wrong_image
from leaderboards.ranking.comparison import independent
from leaderboards.ranking.statistics import Summary, summarise_units
from leaderboards.ranking.summary import Row, records

HEADLINE = "ssim"
"""The metric by which defenses are ranked."""
LEAKAGE_METRICS = (HEADLINE, "identified")
"""Metrics in which leakage is computed."""
EVIDENCE_FIGURES = (*LEAKAGE_METRICS, "underpowered", "label_accuracy")
"""Columns of figures that evidence is made of, image by image."""
PUBLIC_FLOORS = ("class_mean",)
"""Floors made of public images: where an attack of a question holds any, all its attacks are judged by them."""
Variant = tuple[str, *tuple[bool, ...]]
"""An attack's label, and whether it was granted each of the published facts (`bench.columns.FACTS`)."""


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

    def gain(self, metric: str) -> np.ndarray:
        return self.score[metric] - self.floor[metric]

    @property
    def label(self) -> str:
        return variant_text(self.variant)


@dataclass(frozen=True)
class Record:
    """Everything stored of one attack or control, granted one set of facts, on one defense.

    Arrays hold one value per stored row (k,): of an image under a seed, or of a failure.
    """

    row: Row
    seeds: np.ndarray
    images: np.ndarray
    """Number of the image; NaN of a failure."""
    trials: np.ndarray
    statuses: np.ndarray
    reasons: np.ndarray
    figures: Mapping[str, np.ndarray]

    @property
    def knowledge(self) -> tuple[bool, ...]:
        return facts_of(self.row)

    @property
    def done(self) -> np.ndarray:
        return self.statuses == "ok"

    def part(self, kept: np.ndarray) -> Record:
        """The rows where `kept` (k,) is true."""
        figures = {name: values[kept] for name, values in self.figures.items()}
        seeds, images, trials = self.seeds[kept], self.images[kept], self.trials[kept]
        return Record(self.row, seeds, images, trials, self.statuses[kept], self.reasons[kept], figures)


@dataclass(frozen=True)
class Evidence:
    """All attempts on one defense in one question."""

    row: Row
    attempts: tuple[Attempt, ...]
    groups: np.ndarray
    """The client's batch of each image in each seed (s n)."""
    records: tuple[Record, ...]

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

        A real attacker would fall back to the control, so negative gains are clipped to 0: a reconstruction far below
        its floor is no better protected than one at the floor. Rates are left as they are: some tries succeed by luck.
        """
        excess = self.excess(metric, adaptive)
        return np.maximum(excess, 0) if metric == HEADLINE else excess

    def score(self, metric: str, adaptive: bool | None = None) -> np.ndarray:
        """Per image (n,) the score of the attempt with the largest gain."""
        return self._of_strongest(metric, [a.score[metric] for a in self.among(adaptive)], adaptive)

    def summarised(self, values: np.ndarray, rate: bool = False) -> Summary | None:
        """Mean and interval of one value per image (n,), over what is independent; None unless every image has one."""
        if not len(values) or np.isnan(values).any():
            return None
        return summarise_units(values, independent(values, self.groups), rate)

    @property
    def floor(self) -> float:
        """The mean headline score of the controls that the strongest attempts stand above; NaN without."""
        return float(self._of_strongest(HEADLINE, [a.floor[HEADLINE] for a in self.of_images]).mean())

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
        gains = [np.where(np.isnan(a.gain(HEADLINE)), -np.inf, a.gain(HEADLINE)) for a in self.of_images]
        weak, strong = np.full(n, -np.inf), np.full(n, -np.inf)
        for attempt, gain in zip(self.of_images, gains, strict=True):
            weak = np.where(attempt.underpowered > 0, np.maximum(weak, gain), weak)
            strong = np.where(attempt.underpowered == 0, np.maximum(strong, gain), strong)
        return weak > strong

    @property
    def strongest(self) -> Variant | None:
        """The attempt that is strongest on most images."""
        there = ~np.isnan(self.gain(HEADLINE))
        if not there.any():
            return None
        return self.of_images[int(np.bincount(self._winners(HEADLINE)[there]).argmax())].variant

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
    """One setting with the secrets that are granted, and the evidence about every defense in it."""

    row: Row
    """The columns `QUESTION`, which all its results share."""
    images: np.ndarray
    """Numbers of the attacked images (n,), rising."""
    seeds: np.ndarray
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

    def among(self, labels: Collection[str]) -> Question:
        """The same question asked of these defenses alone, as if there were no others."""
        kept = [evidence for evidence in self.defenses if evidence.row["defense"] in labels]
        images, seeds = _asked([evidence.records for evidence in kept])
        if np.array_equal(images, self.images) and np.array_equal(seeds, self.seeds):
            return Question(self.row, images, seeds, tuple(kept))
        return _question(self.row, [(evidence.row, evidence.records) for evidence in kept])

    def part(self, kept: Callable[[Record], np.ndarray]) -> Question:
        """The same question asked of the stored rows for which `kept` is true."""
        parts = [(e.row, [record.part(kept(record)) for record in e.records]) for e in self.defenses]
        there = [(row, tuple(record for record in own if len(record.seeds))) for row, own in parts]
        return _question(self.row, [(row, own) for row, own in there if own])


def variant_text(variant: Variant) -> str:
    """An attack's label, and behind it what was granted."""
    label, *granted = variant
    return label + granted_text(*granted)


def _largest(values: list[np.ndarray], n: int) -> np.ndarray:
    return np.fmax.reduce(values) if values else np.full(n, np.nan)


def questions(frame: pd.DataFrame) -> list[Question]:
    """The store's rows, cut by question, in grid order; columns as in `bench.store.store`."""
    if frame.empty:
        return []
    number = lambda name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan)  # noqa: E731
    seeds, images, trials = frame["seed"].to_numpy(dtype=np.int64), number("image"), number("trial")
    statuses, reasons = (frame[name].to_numpy(dtype=object) for name in ("status", "reason"))
    figures = {name: number(name) for name in EVIDENCE_FIGURES}
    keys = [*QUESTION, "defense_order", "defense", "attack", *FACTS]
    groups = frame.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    _, firsts = np.unique(groups, return_index=True)
    ends = np.cumsum(np.bincount(groups))[:-1]
    places = np.split(np.argsort(groups, kind="stable"), ends)
    found: dict[tuple[object, ...], dict[tuple[int, str], list[Record]]] = {}
    for row, own in zip(records(frame.iloc[firsts]), places, strict=True):
        values = {name: every[own] for name, every in figures.items()}
        record = Record(row, seeds[own], images[own], trials[own], statuses[own], reasons[own], values)
        by_defense = found.setdefault(tuple(row[name] for name in QUESTION), {})
        by_defense.setdefault((row["defense_order"], row["defense"]), []).append(record)
    made = []
    for by_defense in found.values():
        first = next(iter(by_defense.values()))[0].row
        defenses = [(own[0].row, tuple(own)) for _, own in sorted(by_defense.items())]
        made.append(_question(first, defenses))
    return made


def _question(row: Row, defenses: Sequence[tuple[Row, tuple[Record, ...]]]) -> Question:
    images, seeds = _asked([own for _, own in defenses])
    evidence = [_evidence(about, own, images, seeds) for about, own in defenses]
    return Question(row, images, seeds, tuple(evidence))


def _asked(defenses: Sequence[tuple[Record, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the images of which there is a result, and those of all seeds."""
    every = [record for own in defenses for record in own]
    if not every:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    images = np.unique(np.concatenate([record.images[record.done] for record in every]).astype(np.int64))
    return images, np.unique(np.concatenate([record.seeds for record in every]))


@dataclass(frozen=True)
class _Cells:
    """A record with the mean over the seeds of each figure, per image (n,)."""

    record: Record
    means: dict[str, np.ndarray]
    whole: bool


def _evidence(row: Row, own: tuple[Record, ...], images: np.ndarray, seeds: np.ndarray) -> Evidence:
    cells = [_cells(record, images, seeds) for record in own]
    attacks = sorted((c for c in cells if not c.record.row["control"]), key=lambda c: c.record.row["attack_order"])
    controls = [c for c in cells if c.record.row["control"]]
    # Whatever one attack of a question knows, a floor may know, for all of them.
    granted = any(attack.record.row["public"] for attack in attacks)
    shared = [
        c for c in controls if granted and c.record.row["public"] and c.record.row["attack_name"] in PUBLIC_FLOORS
    ]
    attempts = [_attempt(attack, controls, shared, len(images)) for attack in attacks]
    return Evidence(row, tuple(attempts), _groups(own, images, seeds), own)


def _cells(record: Record, images: np.ndarray, seeds: np.ndarray) -> _Cells:
    means = {name: _by_image(record, name, images, seeds) for name in EVIDENCE_FIGURES}
    return _Cells(record, means, _is_whole(record, images, seeds))


def _attempt(attack: _Cells, controls: list[_Cells], shared: list[_Cells], n: int) -> Attempt:
    record, row = attack.record, attack.record.row
    own = [c for c in controls if c.record.knowledge == record.knowledge and _is_floor_of(row, c.record.row)]
    own += [c for c in shared if all(c is not other for other in own)]
    wrong = [c for c in own if c.record.row["attack_name"] == wrong_image.NAME]
    others = [c for c in own if c.record.row["attack_name"] != wrong_image.NAME]
    return Attempt(
        variant=(row["attack"], *record.knowledge),
        name=row["attack_name"],
        parameters=row["attack_parameters"],
        score={metric: attack.means[metric] for metric in LEAKAGE_METRICS},
        floor={metric: _strongest(own, metric, n) for metric in LEAKAGE_METRICS},
        chance=_strongest(wrong, HEADLINE, n) - _strongest(others, HEADLINE, n),
        underpowered=attack.means["underpowered"],
        skipped=bool((record.statuses == "skipped").all()),
        reason=_reason(record),
        whole=attack.whole,
        controls={c.record.row["attack"]: c.whole for c in sorted(own, key=lambda c: not c.whole)},
        adapts=bool(row["adapts"]),
        recovers_labels=bool(row["recovers_labels"]),
        labels=attack.means["label_accuracy"],
    )


def _reason(record: Record) -> str:
    """The reasons of what failed, or of what was not measured; "" without one."""
    unmeasured = "no SSIM, which needs images of 11 pixels a side" if _has_nulls(record) else ""
    return "; ".join(dict.fromkeys(str(reason) for reason in record.reasons if reason)) or unmeasured


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


def _by_image(record: Record, metric: str, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mean of a metric over the seeds: (n,), NaN where one is missing or null."""
    values = record.figures[metric]
    there = record.done & ~np.isnan(values)
    table = np.full((len(images), len(seeds)), np.nan)
    # Backwards: of two values of one image and seed the first is left.
    places = np.searchsorted(images, record.images[there])[::-1], np.searchsorted(seeds, record.seeds[there])[::-1]
    table[places] = values[there][::-1]
    return table.mean(axis=1)


def _strongest(controls: list[_Cells], metric: str, n: int) -> np.ndarray:
    """The largest of the controls (n,), NaN where one of them is missing: without it the floor might be too low."""
    return np.maximum.reduce([c.means[metric] for c in controls]) if controls else np.full(n, np.nan)


def _is_whole(record: Record, images: np.ndarray, seeds: np.ndarray) -> bool:
    if not record.done.all() or _has_nulls(record):
        return False
    return set(zip(record.seeds, record.images, strict=True)) == {(seed, image) for seed in seeds for image in images}


def _has_nulls(record: Record) -> bool:
    return bool(np.isnan(record.figures[HEADLINE]).any())


def _groups(own: tuple[Record, ...], images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The batch of each image in each seed; images of which nothing is known stand alone."""
    groups = np.tile(-1 - np.arange(len(images)), (len(seeds), 1))
    for record in own:
        done = record.done
        places = np.searchsorted(seeds, record.seeds[done]), np.searchsorted(images, record.images[done])
        groups[places] = record.trials[done]
    return groups
