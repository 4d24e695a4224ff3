"""From a run's rows to its questions: which attempts and floors belong to which defense."""

from __future__ import annotations

import json

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


def _evidence(rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> Evidence:
    attacks = rows.loc[~rows["control"].astype(bool)].sort_values("attack_order", kind="stable")
    attempts = [_attempt(own, rows, images, seeds) for _, own in attacks.groupby(["attack", *KNOWLEDGE], sort=False)]
    return Evidence(records(rows.iloc[:1])[0], tuple(attempts), _groups(rows, images, seeds))


def _attempt(own: pd.DataFrame, rows: pd.DataFrame, images: np.ndarray, seeds: np.ndarray) -> Attempt:
    first = records(own.iloc[:1])[0]
    alike = (rows[KNOWLEDGE] == own[KNOWLEDGE].iloc[0]).all(axis=1) & rows["control"].astype(bool)
    controls = [cell for _, cell in rows.loc[alike].groupby("attack", sort=False) if _is_floor_of(first, cell)]
    wrong = [cell for cell in controls if cell["attack_name"].iloc[0] == "wrong_image"]
    others = [cell for cell in controls if cell["attack_name"].iloc[0] != "wrong_image"]
    unmeasured = "no SSIM" if np.isnan(own[METRICS[0]]).any() else ""
    return Attempt(
        variant=(first["attack"], bool(first["schedule_known"]), bool(first["defense_known"])),
        name=first["attack_name"],
        parameters=first["attack_parameters"],
        score={m: _by_image(own, m, images, seeds) for m in METRICS},
        floor={m: _strongest(controls, m, images, seeds) for m in METRICS},
        chance=_strongest(wrong, METRICS[0], images, seeds) - _strongest(others, METRICS[0], images, seeds),
        underpowered=_by_image(own, "underpowered", images, seeds),
        skipped=set(own["status"]) == {"skipped"},
        reason="; ".join(dict.fromkeys(str(reason) for reason in own["reason"] if reason)) or unmeasured,
        whole=_is_whole(own, images, seeds),
        controls={cell["attack"].iloc[0]: _is_whole(cell, images, seeds) for cell in controls},
        adapts=bool(first["adapts"]),
    )


def _is_floor_of(attack: Row, cell: pd.DataFrame) -> bool:
    """Whether a control belongs to this attack: `wrong_image` and `prior_only` if they were made from it, any other.

    So an attack that joins a grid brings its own floors and raises nobody else's: it can only add leakage.
    """
    control = records(cell.iloc[:1])[0]
    if control["attack_name"] == "wrong_image":
        return control["attack"] == f"wrong_image(of={attack['attack']!r})"
    if control["attack_name"] == "prior_only":
        mine, its = (json.loads(row["attack_parameters"]) for row in (attack, control))
        return all(key in mine and mine[key] == its[key] for key in PRIOR_SETTINGS)
    return True


def _by_image(rows: pd.DataFrame, metric: str, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mean of a metric over the seeds: (n,), NaN where one is missing or null."""
    done = rows.loc[rows["status"] == "ok"]
    table = done.pivot_table(index="image", columns="seed", values=metric, aggfunc="first", dropna=False)
    return table.reindex(index=images, columns=seeds).to_numpy(dtype=np.float64).mean(axis=1)


def _strongest(controls: list[pd.DataFrame], metric: str, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The largest of the controls (n,), NaN where one of them is missing: without it the floor might be too low."""
    values = [_by_image(cell, metric, images, seeds) for cell in controls]
    return np.maximum.reduce(values) if values else np.full(len(images), np.nan)


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
