"""What a run's folder holds as tables: a row for every attacked image, a row for every training and certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.costs import made

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.store import Store

FIGURES = (
    "update_norm", "identification_chance", "mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified",
    "recovered", "feature_error", "objective_start", "objective_found", "objective_truth", "seconds",
)  # fmt: skip
"""Columns of numbers, null where not measured."""
COUNTS = ("image", "trial", "true_label", "identification_pool", "chunk")
"""Columns of whole numbers, null in rows without results."""
EARLIER = {
    "audited": True, "adapts": False, "attack_parameters": "{}", "batch_norm": "running", "recovers_labels": False,
}  # fmt: skip
"""What old plans do not say."""
JOB_FIGURES = (
    "accuracy", "chance", "learning_rate", "least_accuracy", "epsilon", "delta", "epsilon_rdp", "epsilon_prv",
    "epsilon_central", "noise_multiplier", "bytes_sent", "update_ms", "bound", "seconds",
)  # fmt: skip
JOB_COUNTS = (
    "test_images", "rounds", "clients", "population", "participations", "guarantee_steps", "candidates", "trials",
    "successes", "steps",
)  # fmt: skip
JOB_TEXTS = ("weights", "optimizer", "accountant", "guarantee_unit", "guarantee_relation", "no_epsilon")


def image_frame(store: Store) -> DataFrame:
    """One row per attacked image, and one for every block without results."""
    import pandas as pd

    from bench.statistics import underpowered

    rows: list[dict[str, Any]] = []
    for cell, block, status in store.states():
        identity = EARLIER | {key: v for key, v in cell.items() if key not in ("blocks", "skip")}
        if status == "ok":
            record = store.record(block["id"]) or {}
            columns = made(record)
            for image in record["images"]:
                figures = {key: value for key, value in image.items() if key != "position"}
                rows.append({**identity, "status": status, "reason": "", **figures, **columns})
            continue
        rows.append({**identity, "status": status, "reason": store.reason(cell, block["id"], status)})
    frame = typed(pd.DataFrame(rows), FIGURES, COUNTS)
    return frame.assign(underpowered=underpowered(frame["objective_found"], frame["objective_truth"]))


def jobs_frame(store: Store) -> DataFrame:
    """One row per training and certificate of the plan, its figures null where it has no result."""
    import pandas as pd

    rows = []
    for job, status in store.job_states():
        found = (store.record(job["job"]) or {}).get("figures", {}) if status == "ok" else {}
        # Old certificates hold the number that their trials were drawn from; the seed is the plan's.
        figures = {key: value for key, value in found.items() if key != "seed"}
        told = {key: value for key, value in job.items() if key != "fingerprint"}
        rows.append({**told, "status": status, "reason": store.job_reason(job, status), **figures})
    frame = typed(pd.DataFrame(rows), JOB_FIGURES, JOB_COUNTS)
    for column in JOB_TEXTS:
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None) if column in frame else None
    return frame


def typed(frame: DataFrame, figures: tuple[str, ...], counts: tuple[str, ...]) -> DataFrame:
    """The frame with all of these columns as numbers, null where nothing was measured."""
    import pandas as pd

    for column in (*figures, *counts):
        frame[column] = pd.to_numeric(frame[column], errors="coerce") if column in frame else math.nan
    return frame.astype(dict.fromkeys(figures, "float64") | dict.fromkeys(counts, "Int64"))
