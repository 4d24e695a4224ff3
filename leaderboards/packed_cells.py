"""The cells and jobs of a run as an entry has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.errors import ConfigurationError
from bench.store import Store
from leaderboards.entry_schema import LENT
from leaderboards.sheets import sheet_of
from leaderboards.untrusted_png import write_png

OWN = ("cell", "skip", "blocks", "defense_order")
PER_IMAGE = (
    "mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered", "feature_error",
    "objective_start", "objective_found", "objective_truth", "update_norm",
)  # fmt: skip
JOB_IDENTITY = (
    "kind", "job", "dataset", "model", "weights", "defense", "defense_name", "images_per_update", "local_steps", "seed",
    "status", "reason",
)  # fmt: skip


@dataclass
class Files:
    """The files of an entry so far, by name."""

    files: dict[str, bytes] = field(default_factory=dict)

    def add_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, indent=None, separators=(", ", ": "), allow_nan=False, ensure_ascii=False)
        self.files[name] = text.encode() + b"\n"

    def add_sheet(self, images: np.ndarray) -> str:
        """The name of the sheet of images (n h w c); equal sheets are one file."""
        content = write_png(sheet_of(images))
        name = f"sheets/{hashlib.sha256(content).hexdigest()[:16]}.png"
        self.files[name] = content
        return name

    @property
    def digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}


def cell_file(
    store: Store, cell: dict[str, Any], cells: list[dict[str, Any]], folder: Files, made: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of a cell's file; adds its sheet to the folder and its provenance to `made`."""
    parameters = {key: json.loads(cell[key]) for key in ("attack_parameters", "defense_parameters")}
    identity = {key: value for key, value in cell.items() if key not in OWN} | parameters
    status, reason = _status(store, cell)
    found: dict[str, Any] = {"identity": {"cell": cell["cell"], **identity}, "status": status, "reason": reason}
    found |= {"sheet": None, "of": _lender(cell, cells), "nulls": {}, "columns": None, "identification_pool": None}
    found |= {"weights_accuracy": None, "updates": [], "seconds": None, "device": None}
    if status != "ok":
        return found
    records = [record for block in cell["blocks"] if (record := store.record(block["id"])) is not None]
    rows = [row for record in records for row in record["images"]]
    images, labels = [], []
    for block, record in zip(cell["blocks"], records, strict=True):
        stored = store.arrays(block["id"])
        for row in record["images"]:
            trial, position = row["position"]
            images.append(stored["images"][trial, position].transpose(1, 2, 0))
            labels.append(int(stored["labels"][trial, position]))
    made += [record["provenance"] for record in records]
    columns = {key: [row[key] for row in rows] for key in ("image", "trial", "true_label")} | {"found_label": labels}
    columns |= {key: _numbers([row[key] for row in rows]) for key in PER_IMAGE}
    return found | {
        "sheet": None if found["of"] else folder.add_sheet(np.stack(images)),
        "nulls": records[0]["nulls"],
        "columns": columns,
        "identification_pool": rows[0]["identification_pool"],
        "weights_accuracy": records[0].get("weights", {}).get("accuracy"),
        "updates": [record["update_sha256"] for record in records],
        "seconds": _number(sum(record["cost"]["seconds"] for record in records)),
        "device": records[0]["provenance"]["device"],
    }


def _status(store: Store, cell: dict[str, Any]) -> tuple[str, str]:
    """The worst status of the cell's blocks, and why; raises ConfigurationError where the run has not finished."""
    if cell["skip"] is not None:
        return "skipped", cell["skip"]
    for block in cell["blocks"]:
        status = store.status_of(block["id"], block["fingerprint"])
        if status in ("pending", "stale"):
            title = f"{cell['attack']} / {cell['defense']}"
            raise ConfigurationError(f"{title} is {status}: finish the run with the command that began it, then pack")
        if status != "ok":
            return status, store.reason(cell, block["id"], status)
    return "ok", ""


def _lender(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str | None:
    """The cell whose reconstructions the control `wrong_image` shows to another client."""
    if cell["attack_name"] != "wrong_image":
        return None
    lender = json.loads(cell["attack_parameters"])["of"]
    return next(
        other["cell"] for other in cells if other["attack"] == lender and all(other[key] == cell[key] for key in LENT)
    )


def packed_jobs(store: Store, defenses: Collection[str]) -> Iterator[dict[str, Any]]:
    """Trainings and certificates of these defenses (their labels) as `jobs.json` has them.

    Raises ConfigurationError where one is not finished.
    """
    from bench.frames import JOB_COUNTS, JOB_FIGURES, JOB_TEXTS

    for row in store.jobs_frame().astype(object).to_dict("records"):
        if row["defense"] not in defenses:
            continue
        if row["status"] in ("pending", "stale"):
            raise ConfigurationError(f"{row['job']} is {row['status']}: finish the run with the command that began it")
        texts = {key: row.get(key) for key in JOB_TEXTS if key != "weights"}
        figures = {key: _number(row.get(key)) for key in (*JOB_FIGURES, *JOB_COUNTS)}
        identity = {key: row[key] for key in JOB_IDENTITY}
        identity["defense_parameters"] = json.loads(row["defense_parameters"])
        yield identity | {"reason": row["reason"] or "", "texts": texts, "figures": figures}


def _numbers(values: list[Any]) -> list[float | None] | None:
    return None if all(value is None for value in values) else [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """Seven digits: what a float32 holds."""
    if value is None or value is np.nan or value != value:
        return None
    return float(f"{float(value):.7g}")
