"""Work on a job: a defense is trained with, or its proof is put to a test, on the CPU, where clients work."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from bench.engines.work import OnStart, Outcome, Tools, Watch, Work
from bench.grid.jobs import Job
from bench.price.federated import TrainingDiverged
from bench.price.jobs import figures_of

A_DAY = 24 * 3600
"""Seconds after which a half-written training belongs to a dead process: no write takes that long."""


@dataclass(frozen=True)
class JobWork(Work):
    """The work on a training or a certificate."""

    kind = "job"
    remedy = "--retry crashed"
    statuses: ClassVar = {TrainingDiverged: "diverged"}

    job: Job
    """The job itself."""
    folder: Path
    """The folder in which an unfinished training is kept."""
    fingerprint: str
    """The fingerprint of the method that makes the result; unfinished trainings of others are removed."""

    @property
    def items(self) -> Sequence[Job]:
        return (self.job,)

    def outcomes(self, tools: Tools, on_start: OnStart, watch: Watch) -> Iterator[Outcome]:
        yield self.guarded(self.job, lambda: self._priced(tools, watch))
        with suppress(OSError):  # Only where no other training is unfinished.
            self.folder.rmdir()

    def _priced(self, tools: Tools, watch: Watch) -> Outcome:
        figures = figures_of(self.job, tools.clients, self._kept(), partial(watch.progress, self))
        return Outcome(self.job, {"status": "ok", "reason": None, "figures": figures})

    def _kept(self) -> Path:
        """The file of an unfinished training; files that another version of the method has left are removed."""
        kept = self.folder / f"{self.job.id}-{self.fingerprint}.safetensors"
        for old in self.folder.glob(f"{self.job.id}-*"):
            if old != kept:
                old.unlink(missing_ok=True)
        for half in self.folder.glob(".*.partial"):  # of a process that died while it wrote
            if time.time() - half.stat().st_mtime > A_DAY:
                half.unlink(missing_ok=True)
        return kept
