"""The folder of a run: what is planned, what is done, and the results as a table; torch-free to read."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

VERSION = 1
FAILURES = ("diverged", "error", "oom", "timeout", "crashed")
STATUSES = ("ok", *FAILURES, "skipped")


class Store:
    """`run.toml`, `plan.json`, `truth-*.npz` and `blocks/`, all written so that a kill leaves no half file."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.blocks = self.folder / "blocks"

    @classmethod
    def existing(cls, folder: Path | str) -> Store:
        """The store of a run that was started; raises ConfigurationError where there is none."""
        store = cls(folder)
        if not (store.folder / "plan.json").is_file():
            raise ConfigurationError(f"{folder} is no run: it has no plan.json; give the folder that `run` named")
        return store

    def create(self) -> None:
        """Make the folders; raises ConfigurationError when they cannot be written."""
        try:
            self.blocks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot write a run to {self.folder}: {error.strerror}; choose -o") from error

    def write_text(self, name: str, text: str) -> None:
        """Publish a text file of the run's folder."""
        publish(self.folder / name, text.encode())

    def plan(self) -> dict[str, Any]:
        return _read_json(self.folder / "plan.json")

    def write_arrays(self, path: Path, **arrays: np.ndarray) -> str:
        """Publish an .npz file of arrays; returns its SHA-256."""
        import numpy as np

        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        publish(path, buffer.getvalue())
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def arrays(self, block: str) -> dict[str, np.ndarray]:
        """The reconstructions of a finished block."""
        import numpy as np

        with np.load(self.blocks / f"{block}.npz", allow_pickle=False) as stored:
            return dict(stored)

    def record(self, block: str) -> dict[str, Any] | None:
        """What is stored of a block; None when it never finished or its file is damaged."""
        path = self.blocks / f"{block}.json"
        try:
            record = _read_json(path)
        except (FileNotFoundError, ConfigurationError):
            return None
        whole = record.get("status") != "ok" or (self.blocks / f"{block}.npz").is_file()
        return record if record.get("status") in STATUSES and whole else None

    def write_record(self, block: str, record: dict[str, Any]) -> None:
        """Publish a block's record, after its arrays; numbers that are not finite become null."""
        text = json.dumps(_finite(record), indent=1, allow_nan=False)
        publish(self.blocks / f"{block}.json", text.encode())

    def status_of(self, block: str, fingerprint: str) -> str:
        """A block's stored status; "stale" when another method made it, "pending" when there is nothing."""
        record = self.record(block)
        if record is None:
            return "pending"
        if record["status"] == "ok" and record["fingerprint"] != fingerprint:
            return "stale"
        return "pending" if record["fingerprint"] != fingerprint else record["status"]

    def start(self, block: str) -> None:
        """Mark a block as in flight in this process."""
        (self.blocks / f"{block}.running").write_text(str(os.getpid()))

    def finish(self, block: str) -> None:
        """The block is in flight no more; its deaths are forgotten."""
        for suffix in ("running", "deaths"):
            (self.blocks / f"{block}.{suffix}").unlink(missing_ok=True)

    def deaths(self, block: str) -> int:
        """How many processes died over this block while their supervisor lived."""
        try:
            return int((self.blocks / f"{block}.deaths").read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def count_death(self, pid: int) -> str | None:
        """Blame the death of a process on the block that it had in flight; returns that block."""
        for marker in self.blocks.glob("*.running"):
            if marker.read_text() == str(pid):
                block = marker.stem
                (self.blocks / f"{block}.deaths").write_text(str(self.deaths(block) + 1))
                marker.unlink()
                return block
        return None

    def counts(self) -> Counter[str]:
        """Blocks by status."""
        return Counter(status for _, _, status in self._states())

    def frame(self) -> DataFrame:
        """One row per attacked image, and one for every block without results; columns in README.md."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for cell, block, status in self._states():
            identity = {key: value for key, value in cell.items() if key not in ("blocks", "skip")}
            record = self.record(block["id"]) or {}
            if status == "ok":
                rows += [{**identity, "status": status, "reason": "", **image} for image in record["images"]]
            else:
                reason = record.get("reason") or (cell["skip"] if status == "skipped" else "")
                rows.append({**identity, "status": status, "reason": reason or ""})
        frame = pd.DataFrame(rows)
        for column in NUMBERS:
            frame[column] = pd.to_numeric(frame[column], errors="coerce") if column in frame else math.nan
        return frame

    def truth(self) -> np.ndarray:
        """The attacked images, uint8 (n h w c), by image number."""
        import numpy as np

        with np.load(self.folder / self.plan()["truth"], allow_pickle=False) as stored:
            return stored["images"].transpose(0, 2, 3, 1)

    def _states(self) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
        for cell in self.plan()["cells"]:
            for block in cell["blocks"]:
                skipped = cell["skip"] is not None
                yield cell, block, "skipped" if skipped else self.status_of(block["id"], block["fingerprint"])


NUMBERS = (
    "image", "trial", "true_label", "mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified",
    "identification_pool", "identification_chance", "recovered", "feature_error", "objective_start",
    "objective_found", "objective_truth", "update_norm", "seconds", "chunk",
)  # fmt: skip
"""Columns of numbers, null where not measured."""


def publish(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is whole or absent: temporary, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(f"{path} is damaged ({error}); delete it and run again") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} is damaged (no object); delete it and run again")
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
