"""The folder of a run: what is planned, what is done, and the results as a table; torch-free to read."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigurationError, Unwritable
from bench.flights import Flights
from bench.whole_files import damaged, finite, publish, read_arrays, read_json, sweep

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
        self.flights = Flights(self.blocks)

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
        """Let one process of this machine after the other publish, so that arrays and record belong together."""
        try:
            handle = os.open(self.blocks, os.O_RDONLY)
        except OSError as error:
            raise Unwritable(self.blocks, error) from error
        try:
            with suppress(OSError):  # Some network file systems have no locks.
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def write_text(self, name: str, text: str) -> None:
        """Publish a text file of the run's folder."""
        publish(self.folder / name, text.encode())

    def plan(self) -> dict[str, Any]:
        """What `bench.plan_file.begin` wrote; raises ConfigurationError when it is damaged or of another version."""
        path = self.folder / "plan.json"
        plan = read_json(path)
        if plan.get("version") != VERSION:
            raise ConfigurationError(
                f"{path} is of version {plan.get('version')!r}, this Leakboard reads {VERSION}; run into another folder"
            )
        absent = {"cells", "truth", "expect"} - plan.keys()
        if absent:
            raise damaged(path, f"it has no {', '.join(sorted(absent))}")
        return plan

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
        """What is stored of a block; None when it never finished or its files are damaged."""
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
        """Why a block of this status has no result; empty where there is nothing to say."""
        if cell["skip"] is not None:
            return cell["skip"]
        if status in ("pending", "stale"):
            return "" if status == "pending" else "made by another version of the method or of its data"
        return (self.record(block) or {}).get("reason") or ""

    def job_reason(self, job: dict[str, Any], status: str) -> str:
        """Why a training or certificate of this status has no result; empty where there is nothing to say."""
        return self.reason({"skip": None}, job["job"], status)

    def unplanned(self) -> int:
        """How many stored blocks the plan does not have: results of another grid in the same folder."""
        plan = self.plan()
        planned = {block["id"] for cell in plan["cells"] for block in cell["blocks"]}
        planned |= {job["job"] for job in plan.get("jobs", ())}
        return sum(path.stem not in planned for path in self.blocks.glob("*.json"))

    def frame(self) -> DataFrame:
        """One row per attacked image, and one for every block without results; columns in docs/reference.md."""
        from bench.frames import image_frame

        return image_frame(self)

    def jobs_frame(self) -> DataFrame:
        """One row per training and certificate of the plan; columns in docs/reference.md."""
        from bench.frames import jobs_frame

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
