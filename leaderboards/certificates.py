"""Certificates of identification: what noise proves an attacker cannot reach, and whether one did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.certificates import broken as is_broken
from leaderboards.summary import Row, records

Certified = tuple[str, str, str, str]
"""Dataset, model, weights and defense: what was attacked to test a certificate."""


@dataclass(frozen=True)
class Certificate:
    """The share of `trials` that the best possible attack can win (`bound`), and what one did win (`measured`).

    `broken` where it won more than the bound and luck explain: then noise or clipping are not what they claim. `reason`
    says why it was not measured.
    """

    bound: float = np.nan
    measured: float = np.nan
    trials: float = np.nan
    candidates: float = np.nan
    broken: bool = False
    reason: str = ""
    defense_name: str = ""


def certificates(jobs: pd.DataFrame) -> dict[Certified, Certificate]:
    """The certificate jobs of a run, by what was attacked; columns as in `bench.store`.

    All of a run are tested together: a run of honest ones calls none broken, but once in a thousand.
    """
    rows = pd.DataFrame(jobs.loc[jobs["kind"] == "certificate"])
    named = rows.groupby(["dataset", "model", "weights", "defense"], sort=False)
    return {tuple(map(str, key)): _certificate(records(own), len(rows)) for key, own in named}  # type: ignore[misc]


def _certificate(rows: list[Row], levels: int) -> Certificate:
    """One certificate of several jobs: each is tested, their trials are added up."""
    done = [row for row in rows if row["status"] == "ok"]
    broken = any(is_broken(int(r["successes"]), int(r["trials"]), float(r["bound"]), levels) for r in done)
    failed = [row for row in rows if row["status"] != "ok"]
    why = [f"seed {int(row['seed'])} is {row['status']}" for row in failed]
    why += [str(row["reason"]) for row in failed if not pd.isna(row["reason"]) and row["reason"]]
    stated = {name: {float(row[name]) for row in done} for name in ("bound", "candidates")}
    why += [f"seeds disagree on the {name}" for name, values in stated.items() if len(values) > 1]
    if why:
        return Certificate(broken=broken, reason="; ".join(dict.fromkeys(why)), defense_name=rows[0]["defense_name"])
    trials = sum(int(row["trials"]) for row in rows)
    measured = sum(int(row["successes"]) for row in rows) / trials
    (bound,), (candidates,) = stated.values()
    return Certificate(bound, measured, trials, candidates, broken, defense_name=rows[0]["defense_name"])
