"""Trainings and certificates, one after the other, every result published before the next starts."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from attacks.engine.execution import is_out_of_memory
from bench.engines.attempts import first_line
from bench.grid.jobs import Job
from bench.plan.plan import Plan
from bench.price.federated import TrainingDiverged
from bench.price.jobs import figures_of
from bench.provenance import provenance
from bench.store.in_flight import DEATHS
from bench.store.store import VERSION, Store
from bench.trial.clients import Clients

Progress = Callable[[int, int], None]
A_DAY = 24 * 3600


@dataclass(frozen=True)
class JobEngine:
    """Runs the jobs of a plan in this process, on the CPU, where clients work."""

    plan: Plan
    clients: Clients
    store: Store

    def pending(self, retry: Collection[str], since: str | None = None) -> list[Job]:
        """The jobs to run: those without a result, and those whose status is in `retry`, from the job `since` on."""
        jobs = self.plan.jobs
        first = next((i for i, job in enumerate(jobs) if job.id == since), 0)
        return [job for i, job in enumerate(jobs) if self._status(job) in {"pending", *(retry if i >= first else ())}]

    def run(self, job: Job, progress: Progress) -> tuple[Job, str, str | None]:
        """Run a job and publish its result, whatever it is; returns its status, and why a bad one.

        Raises `Unwritable` when it cannot be published, and passes KeyboardInterrupt on.
        """
        flights = self.store.flights
        if self._status(job) == "ok":  # Another process was faster.
            return job, "ok", None
        if flights.deaths(job.id) >= DEATHS:
            reason = f"the process died {DEATHS} times in this job, most likely for lack of memory; --retry crashed"
            return self._publish(job, {"status": "crashed", "reason": reason})
        flights.start(job.id)
        try:
            return self._publish(job, self._attempt(job, progress))
        finally:
            flights.end(job.id)

    def _attempt(self, job: Job, progress: Progress) -> dict[str, Any]:
        """The cell's border: whatever goes wrong inside becomes a status with its reason."""
        try:
            figures = figures_of(job, self.clients, self._kept(job), progress)
            return {"status": "ok", "reason": None, "figures": figures}
        except TrainingDiverged as error:
            return {"status": "diverged", "reason": str(error)}
        except (Exception, SystemExit) as error:  # A plugin may even try to leave.
            reason = f"{type(error).__name__}: {first_line(error)}"
            status = "oom" if is_out_of_memory(error) else "error"
            return {"status": status, "reason": reason, "traceback": traceback.format_exc()}

    def _kept(self, job: Job) -> Path:
        """Where an unfinished training is kept; what another version of the method has left there is removed."""
        folder = self.store.folder / "training"
        kept = folder / f"{job.id}-{self.plan.fingerprints[job.id]}.safetensors"
        for old in folder.glob(f"{job.id}-*"):
            if old != kept:
                old.unlink(missing_ok=True)
        for half in folder.glob(".*.partial"):  # of a process that died while it wrote
            if time.time() - half.stat().st_mtime > A_DAY:
                half.unlink(missing_ok=True)
        return kept

    def _status(self, job: Job) -> str:
        return self.store.status_of(job.id, self.plan.fingerprints[job.id])

    def _publish(self, job: Job, result: dict[str, Any]) -> tuple[Job, str, str | None]:
        record = {
            "version": VERSION,
            "block": job.id,
            "kind": job.kind,
            "title": job.title,
            "fingerprint": self.plan.fingerprints[job.id],
            **result,
            "provenance": provenance(torch.device("cpu")),
        }
        with self.store.turn():
            if self._status(job) != "ok":  # Else another process was faster.
                self.store.write_record(job.id, record)
        self.store.flights.forget(job.id)
        with suppress(OSError):  # Only where no other training is unfinished.
            (self.store.folder / "training").rmdir()
        return job, result["status"], result["reason"]
