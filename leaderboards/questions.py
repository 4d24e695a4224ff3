"""From a run's rows to its questions: which attempts and floors belong to which defense."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.cells import PRIOR_SETTINGS
from leaderboards.evidence import KNOWLEDGE, METRICS, QUESTION, Attempt, Evidence, Question
from leaderboards.summary import Row, records


def questions(frame: pd.DataFrame) -> list[Question]:
    """The store's rows, cut by question, in grid order; columns as in `bench.store`."""
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
