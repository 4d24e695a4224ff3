"""One row per attack, defense and setting: every metric's mean, deviation and interval, or why there is none."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from bench.columns import METHOD, SETTING
from leaderboards.statistics.intervals import summarise_metric

SUMMARY_METRICS = (
    "psnr_db",
    "ssim",
    "mse",
    "lpips",
    "identified",
    "identified_by_likelihood",
    "recovered",
    "label_accuracy",
    "feature_error",
    "underpowered",
)
Row = dict[str, Any]
"""A row of the summary, from column to value."""
SEVERITY = ["ok", "skipped", "pending", "stale", "diverged", "timeout", "oom", "error", "crashed"]
"""Statuses from the best to the worst: a cell has the worst of its seeds."""


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `bench.store.store`, one per image and seed, to one per cell of the table, in grid order.

    Each metric m becomes m_mean, m_sd (over images), m_low, m_high (95% bootstrap over images, or over client
    batches) and m_n (images), all NaN where one seed has no result: `failed` of `seeds` then says how many,
    `status` is the worst one and `reason` joins theirs. A failed cell is never averaged away and never zero.
    """
    if frame.empty:
        return pd.DataFrame(columns=_columns())
    order = {setting: i for i, setting in enumerate(dict.fromkeys(_keys(frame, SETTING)))}
    keys = [
        (order[setting], *method)
        for setting, method in zip(
            _keys(frame, SETTING),
            _keys(frame, ["defense_order", "defense", "control", "attack_order", "attack"]),
            strict=True,
        )
    ]
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    groups = [list(positions) for _, positions in groupby(ranked, key=keys.__getitem__)]
    return pd.DataFrame([_row(frame.iloc[positions]) for positions in groups], columns=_columns())


def scored(row: Row) -> bool:
    """True if the cell finished with a score."""
    return row["status"] == "ok" and not np.isnan(row["psnr_db_mean"])


def settings(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """A summary, or the store's rows, cut into its settings, in order."""
    keys = _keys(frame, SETTING)
    return [frame.loc[[key == setting for key in keys]] for setting in dict.fromkeys(keys)]


def records(rows: pd.DataFrame) -> list[Row]:
    """The rows as dictionaries from column to value."""
    columns = {str(name): values.tolist() for name, values in rows.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def expectation(frame: pd.DataFrame, attack: str, gain_db: float) -> str | None:
    """A message if the undefended attack does not beat the strongest control by `gain_db`; None if it does.

    `attack` is a name or a label. In every setting the mean PSNR of the attack on "none" is compared with the
    highest of all controls on "none". A missing or failed cell fails too, as does a grid without controls.
    """
    if frame.empty:
        return f"expected {attack} to beat the controls, but there are no results; run the grid first"
    problems = []
    for setting in settings(frame):
        undefended = records(summarise(setting.loc[setting["defense_name"] == "none"]))
        attacks = [row for row in undefended if attack in (row["attack_name"], row["attack"])]
        controls = [row for row in undefended if row["control"]]
        where = f"on {setting['dataset'].iloc[0]}, {setting['model'].iloc[0]}, {setting['weights'].iloc[0]}"
        if not attacks or all(row["status"] == "skipped" for row in controls):
            absent = f"{attack} against none" if not attacks else "a control"
            problems.append(f"{where}: {absent} is not in the grid")
            continue
        controls = [row for row in controls if row["status"] != "skipped"]
        failed = [row for row in attacks + controls if not scored(row)]
        if failed:
            problems += [f"{where}: {row['attack']} is {status_text(row)}: {row['reason']}" for row in failed]
            continue
        floor = max(controls, key=lambda row: row["psnr_db_mean"])
        for row in attacks:
            gain = row["psnr_db_mean"] - floor["psnr_db_mean"]
            if gain < gain_db:
                problems.append(
                    f"{where}: {row['attack']} reaches {row['psnr_db_mean']:.2f} dB undefended, {gain:+.2f} dB "
                    f"from the strongest floor ({floor['attack']}, {floor['psnr_db_mean']:.2f} dB)"
                )
    if not problems:
        return None
    missed = "; ".join(dict.fromkeys(problems))
    asked = f"expected a gain of at least {gain_db:g} dB over the strongest floor (expect.gain_db of the grid)"
    return f"{asked}, but {missed}"


def status_text(row: Row) -> str:
    """The status of a summary's row in a word or three: "ok", "skipped", "2 of 5 oom"."""
    partly = row["status"] != "ok" and row["failed"] < row["seeds"]
    return f"{row['failed']} of {row['seeds']} {row['status']}" if partly else row["status"]


def _columns() -> list[str]:
    figures = [f"{metric}_{part}" for metric in SUMMARY_METRICS for part in ("mean", "sd", "low", "high", "n")]
    outcome = ["status", "failed", "seeds", "reason", "n", "units"]
    rest = ["identification_pool", "identification_chance", "update_norm", "seconds"]
    return [*SETTING, *METHOD, *outcome, *figures, *rest]


def _keys(frame: pd.DataFrame, names: list[str]) -> list[tuple[Any, ...]]:
    return list(frame[names].itertuples(index=False, name=None))


def _row(rows: pd.DataFrame) -> Row:
    worst: dict[int, str] = {}
    for seed, status in _keys(rows, ["seed", "status"]):
        worst[seed] = max(worst.get(seed, "ok"), status, key=_severity)
    failed = [status for status in worst.values() if status != "ok"]
    reasons = dict.fromkeys(reason for status, reason in _keys(rows, ["status", "reason"]) if status != "ok")
    row: Row = rows.iloc[0][[*SETTING, *METHOD]].to_dict()
    row |= {
        "status": max(worst.values(), key=_severity),
        "failed": len(failed),
        "seeds": len(worst),
        "reason": "; ".join(str(reason) for reason in reasons if reason),
        "n": 0,
        "units": 0,
    }
    if failed:
        return row
    for metric in SUMMARY_METRICS:
        found = summarise_metric(rows, metric)
        row |= {f"{metric}_{part}": getattr(found, part) for part in ("mean", "sd", "low", "high", "n")}
        if metric == "psnr_db":
            row |= {"n": found.n, "units": found.units}
    for name in ("identification_pool", "identification_chance", "update_norm", "seconds"):
        values = np.asarray(rows[name], dtype=np.float64)
        row[name] = float(values.mean()) if len(values) else np.nan
    return row


def _severity(status: str) -> int:
    return SEVERITY.index(status) if status in SEVERITY else len(SEVERITY)
