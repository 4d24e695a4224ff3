"""The folder of a run: its plan, its finished blocks, and its results as tables; torch-free to read."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bench.columns import EARLIER, HELD_OUT_FIGURES
from bench.errors import ConfigurationError, Unwritable
from bench.store.block_marks import BlockMarks
from bench.store.whole_files import damaged, finite, publish, read_arrays, read_json, sweep

if TYPE_CHECKING:
    from pandas import DataFrame


CHOSEN = ("execution", "gradient", "precision", "lanes", "milliseconds", "compile_seconds", "peak_bytes", "why")


def record_columns(record: dict[str, Any]) -> dict[str, Any]:
    """The columns of all rows of a record; those of the engine are None where no engine ran, as for grey images.

    `chunk` counts trials where the attack ran by itself, else the lanes of one program. `choices` is there only where
    an attack chose anything on held-out public images: a JSON object.
    """
    cost = record["cost"]
    choice = next(iter(cost.get("execution", ())), {})
    columns = {f"engine_{name}": choice.get(name) for name in CHOSEN}
    columns["weights_accuracy"] = record.get("weights", {}).get("accuracy")
    if "choices" in record:
        columns["choices"] = json.dumps(record["choices"])
    return {"device": record["provenance"]["device"], "chunk": choice.get("chunk", cost["chunk"]), **columns}


RESULT_FIGURES = (
    "update_norm", "identification_chance", "mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified",
    "identified_by_likelihood", "recovered", "feature_error", "objective_start", "objective_found", "objective_truth",
    "seconds",
)  # fmt: skip
"""Columns of numbers, null where not measured."""
RESULT_COUNTS = ("image", "trial", "true_label", "identification_pool", "chunk")
"""Columns of whole numbers, null in rows without results."""
JOB_FIGURES = (
    "accuracy", "chance", "learning_rate", "least_accuracy", "epsilon", "delta", "epsilon_rdp", "epsilon_prv",
    "epsilon_central", "noise_multiplier", "bytes_sent", "update_ms", "bound", "seconds",
)  # fmt: skip
LATER_JOB_FIGURES = ("accuracy_at_equal_images",)
"""Figures that joined after boards were published: entries leave them out where nothing was measured."""
JOB_COUNTS = (
    "test_images", "rounds", "clients", "population", "participations", "guarantee_steps", "candidates", "trials",
    "successes", "steps",
)  # fmt: skip
JOB_TEXTS = ("weights", "optimizer", "accountant", "guarantee_unit", "guarantee_relation", "no_epsilon")


def image_frame(store: Store) -> DataFrame:
    """One row per attacked image, and one for every block without results."""

    rows: list[dict[str, Any]] = []
    for cell, block, status in store.states():
        identity = {key: v for key, v in cell.items() if key not in ("blocks", "skip")}
        if status == "ok":
            record = store.record(block["id"]) or {}
            columns = record_columns(record)
            for image in record["images"]:
                figures = {key: value for key, value in image.items() if key != "position"}
                rows.append({**identity, "status": status, "reason": "", **figures, **columns})
            continue
        rows.append({**identity, "status": status, "reason": store.reason(cell, block["id"], status)})
    found = pd.DataFrame(rows)
    if "choices" in found:
        found["choices"] = found["choices"].astype(object).where(found["choices"].notna(), None)
    frame = typed(found, (*RESULT_FIGURES, *(name for name in HELD_OUT_FIGURES if name in found)), RESULT_COUNTS)
    return frame.assign(underpowered=underpowered(frame["objective_found"], frame["objective_truth"]))


def jobs_frame(store: Store) -> DataFrame:
    """One row per training and certificate of the plan, its figures null where it has no result."""

    rows = []
    for job, status in store.job_states():
        found = (store.record(job["job"]) or {}).get("figures", {}) if status == "ok" else {}
        # Old certificates hold the number that their trials were drawn from; the seed is the plan's.
        figures = {key: value for key, value in found.items() if key != "seed"}
        told = {key: value for key, value in job.items() if key != "fingerprint"}
        rows.append({**told, "status": status, "reason": store.job_reason(job, status), **figures})
    frame = typed(pd.DataFrame(rows), (*JOB_FIGURES, *LATER_JOB_FIGURES), JOB_COUNTS)
    for column in JOB_TEXTS:
        frame[column] = frame[column].astype(object).where(frame[column].notna(), None) if column in frame else None
    return frame


def typed(frame: DataFrame, figures: tuple[str, ...], counts: tuple[str, ...]) -> DataFrame:
    """The frame with all of these columns as numbers, null where nothing was measured."""

    for column in (*figures, *counts):
        frame[column] = pd.to_numeric(frame[column], errors="coerce") if column in frame else math.nan
    return frame.astype(dict.fromkeys(figures, "float64") | dict.fromkeys(counts, "Int64"))


SHORTFALL = 1e-3
"""An attack has failed its own purpose where it ends above its objective at the truth by more than this part of it.

docs/reference.md states it as .1%, in the column `underpowered`."""


def underpowered(found: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """1 where the objective that an attack found is worse than at the private images, 0 where not; NaN without one.

    Such a reconstruction is a lower bound of what a better optimiser would get: no claim of protection rests on it.
    """
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    worse = (found > truth + SHORTFALL * np.abs(truth)).astype(np.float64)
    return np.where(np.isnan(found) | np.isnan(truth), np.nan, worse)


VERSION = 1
"""The version of plans and records; a plan of another one is refused."""
FAILURES = ("diverged", "error", "oom", "timeout", "crashed")
STATUSES = ("ok", *FAILURES, "skipped")


LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
"""Errors of file systems without locks, some network ones: there nobody waits for anybody."""


class Store:
    """`run.toml`, `plan.json`, `truth-*.npz` and `blocks/`, all written so that a kill leaves no half file."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.blocks = self.folder / "blocks"
        self.marks = BlockMarks(self.blocks)

    @classmethod
    def existing(cls, folder: Path | str) -> Store:
        """The store of a run that was started; raises ConfigurationError where there is none."""
        store = cls(folder)
        if not (store.folder / "plan.json").is_file():
            meant = Path("runs") / folder
            near = f"did you mean {meant}? " if (meant / "plan.json").is_file() else ""
            raise ConfigurationError(
                f"{folder} is no run: it has no plan.json; {near}give the folder that `leakboard run` wrote"
            )
        return store

    def create(self) -> None:
        """Make the folders, and clear away what dead processes left; raises ConfigurationError if that cannot be."""
        try:
            self.blocks.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            sweep(self.blocks)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write a run to {self.folder}: {error.strerror}; give another folder with -o"
            ) from error

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one process of this machine after the other publish, so that arrays and record belong together.

        A process that dies ends its turn. Raises `Unwritable` where the folder takes no lock.
        """
        from filelock import FileLock  # Takes 0.1 s to import: who only reads has no need of it.

        path = self.folder / "run.lock"
        with ExitStack() as held:
            try:
                # Else a file that a killed process leaves behind would be the lock where there are no real ones.
                held.enter_context(FileLock(path, poll_interval=0.01, fallback_to_soft=False))
            except OSError as error:
                if error.errno not in LOCKLESS:
                    raise Unwritable(path, error) from error
            yield

    def write_text(self, name: str, text: str) -> None:
        """Publish a text file of the run's folder."""
        publish(self.folder / name, text.encode())

    def plan(self) -> dict[str, Any]:
        """The plan that `bench.plan.description.begin` wrote, each cell with all columns.

        Raises ConfigurationError when it is damaged or of another version.
        """
        path = self.folder / "plan.json"
        plan = read_json(path)
        if plan.get("version") != VERSION:
            raise ConfigurationError(
                f"{path} is of version {plan.get('version')!r}, this Leakboard reads {VERSION}; run into another folder"
            )
        absent = {"cells", "truth", "expect"} - plan.keys()
        if absent:
            raise damaged(path, f"it has no {', '.join(sorted(absent))}")
        return plan | {"cells": [EARLIER | cell for cell in plan["cells"]]}

    def write_arrays(self, path: Path, **arrays: np.ndarray) -> dict[str, Any]:
        """Publish an .npz file of arrays; returns its SHA-256 and size as a record keeps them."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        content = buffer.getvalue()
        publish(path, content)
        return {"reconstructions_sha256": hashlib.sha256(content).hexdigest(), "reconstructions_bytes": len(content)}

    def arrays(self, block: str) -> dict[str, np.ndarray]:
        """The reconstructions of a finished block; raises ConfigurationError when they are not what was published."""
        path = self.blocks / f"{block}.npz"
        digest = (self.record(block) or {}).get("reconstructions_sha256")
        return read_arrays(path, digest)

    def record(self, block: str) -> dict[str, Any] | None:
        """The stored record of a block; None when it never finished or its files are damaged."""
        try:
            record = read_json(self.blocks / f"{block}.json")
        except (FileNotFoundError, ConfigurationError):
            return None
        return record if self._is_whole(block, record) else None

    def write_record(self, block: str, record: dict[str, Any]) -> None:
        """Publish a block's record, after its arrays; numbers that are not finite become null."""
        publish(self.blocks / f"{block}.json", json.dumps(finite(record), indent=1, allow_nan=False).encode())

    def status_of(self, block: str, fingerprint: str) -> str:
        """A block's stored status; "stale" when another method made it, "pending" when there is nothing."""
        record = self.record(block)
        if record is None:
            return "pending"
        if record["fingerprint"] == fingerprint:
            return record["status"]
        return "stale" if record["status"] == "ok" else "pending"

    def counts(self) -> Counter[str]:
        """Blocks and jobs by status."""
        return Counter(status for *_, status in (*self.states(), *self.job_states()))

    def reason(self, cell: dict[str, Any], block: str, status: str) -> str:
        """The reason for which a block of this status has no result; empty where there is nothing to say."""
        if cell["skip"] is not None:
            return cell["skip"]
        if status in ("pending", "stale"):
            return "" if status == "pending" else "made by another version of the method or of its data"
        return (self.record(block) or {}).get("reason") or ""

    def job_reason(self, job: dict[str, Any], status: str) -> str:
        """The reason for which a training or certificate has no result; empty where there is nothing to say."""
        return self.reason({"skip": None}, job["job"], status)

    def unplanned(self) -> int:
        """The number of stored blocks that the plan does not have: results of another grid in the same folder."""
        plan = self.plan()
        planned = {block["id"] for cell in plan["cells"] for block in cell["blocks"]}
        planned |= {job["job"] for job in plan.get("jobs", ())}
        return sum(path.stem not in planned for path in self.blocks.glob("*.json"))

    def frame(self) -> DataFrame:
        """One row per attacked image, and one for every block without results; columns in docs/reference.md."""

        return image_frame(self)

    def jobs_frame(self) -> DataFrame:
        """One row per training and certificate of the plan; columns in docs/reference.md."""

        return jobs_frame(self)

    def truth(self) -> np.ndarray:
        """The attacked images, uint8 (n h w c), by image number; raises ConfigurationError when they are damaged."""
        return read_arrays(self.folder / self.plan()["truth"])["images"].transpose(0, 2, 3, 1)

    def _is_whole(self, block: str, record: dict[str, Any]) -> bool:
        if record.get("status") not in STATUSES or "fingerprint" not in record:
            return False
        if record["status"] != "ok" or "figures" in record:
            return True
        path = self.blocks / f"{block}.npz"
        size = record.get("reconstructions_bytes")
        return (
            {"images", "scoring", "cost", "provenance"} <= record.keys()
            and path.is_file()
            and size in (None, path.stat().st_size)
        )

    def states(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
        """Every block of the plan: its cell, itself, and its status."""
        for cell in self.plan()["cells"]:
            for block in cell["blocks"]:
                skipped = cell["skip"] is not None
                yield cell, block, "skipped" if skipped else self.status_of(block["id"], block["fingerprint"])

    def job_states(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Every training and certificate of the plan, and its status; plans of older runs have none."""
        for job in self.plan().get("jobs", ()):
            yield job, self.status_of(job["job"], job["fingerprint"])
