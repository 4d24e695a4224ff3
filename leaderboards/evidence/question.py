"""Questions: results cut by setting and by the secrets that are granted, with the evidence about every defense."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.columns import FACTS, HELD_OUT_FIGURES, QUESTION
from leaderboards.evidence.attempt import Attempt, Measured, attempts_of
from leaderboards.evidence.evidence import Evidence
from leaderboards.evidence.record import EVIDENCE_FIGURES, Record, Variant
from leaderboards.statistics.summary import Row, records


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


def questions(frame: pd.DataFrame) -> list[Question]:
    """The store's rows, cut by question, in grid order; columns as in `bench.store.store`."""
    if frame.empty:
        return []
    # Results of a board from before attacks held public images have no figures of held-out clients.
    frame = frame.assign(**{name: np.nan for name in HELD_OUT_FIGURES if name not in frame})
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


def _evidence(row: Row, own: tuple[Record, ...], images: np.ndarray, seeds: np.ndarray) -> Evidence:
    attempts = attempts_of([Measured.of(record, images, seeds) for record in own])
    return Evidence(row, attempts, _groups(own, images, seeds), own)


def _groups(own: tuple[Record, ...], images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The batch of each image in each seed; images of which nothing is known stand alone."""
    groups = np.tile(-1 - np.arange(len(images)), (len(seeds), 1))
    for record in own:
        done = record.done
        places = np.searchsorted(seeds, record.seeds[done]), np.searchsorted(images, record.images[done])
        groups[places] = record.trials[done]
    return groups
