"""The engine of one machine: one block after the other, every result published before the next starts."""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch

from attacks.attack import UnsupportedPair
from attacks.progress import listening
from bench.cells import Block
from bench.clients import Clients, attack_seeds, observe
from bench.errors import ConfigurationError
from bench.fingerprint import scoring_fingerprint
from bench.memory import trials_that_fit
from bench.plan import Plan
from bench.provenance import provenance
from bench.registry import Registry
from bench.settings import Engine
from bench.store import VERSION, Store
from bench.trial import (
    Attacked,
    Diverged,
    attack_in_chunks,
    from_arrays,
    rows_of,
    shown_to_the_wrong_client,
    stored_arrays,
)

Watch = Callable[[Block, int, int], None]
"""Hears of the block that runs, its iterations done and in all."""


class OutOfTime(Exception):
    """A block took longer than engine.timeout."""


class OutOfSpace(ConfigurationError):
    """The disk is full; everything published before is kept."""


@dataclass(frozen=True)
class LocalEngine:
    """Runs the blocks of a plan in this process, on `device`."""

    plan: Plan
    registry: Registry
    clients: Clients
    store: Store
    settings: Engine
    device: torch.device

    def pending(self, retry: Collection[str]) -> list[Block]:
        """The blocks to run: those without a result, and those whose status is in `retry`."""
        return [
            block
            for block in self.plan.blocks()
            if block.cell.skip is None and self._status(block) in ("pending", *retry)
        ]

    def run(self, block: Block, watch: Watch) -> str:
        """Run one block and publish its result, whatever it is; returns its status.

        Raises `OutOfSpace` when it cannot be published, and passes KeyboardInterrupt on.
        """
        try:
            if self.store.deaths(block.id) >= 2:
                reason = "the process died twice in this block, most likely out of memory; set engine.chunk lower"
                status = self._publish(block, {"status": "crashed", "reason": reason})
            else:
                self.store.start(block.id)
                status = self._publish(block, self._attempt(block, watch))
            self.store.finish(block.id)
            return status
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfSpace(
                f"no space left for {self.store.folder}: {error.strerror}; free some and run the same command again, "
                "everything finished is kept"
            ) from error

    def score_again(self) -> int:
        """Score stored reconstructions again where the scoring has changed since; returns how many blocks."""
        current, done = scoring_fingerprint(), 0
        for block in self.plan.blocks():
            record = self.store.record(block.id)
            if self._status(block) != "ok" or record is None or record["scoring"] == current:
                continue
            attacked = from_arrays(self.store.arrays(block.id))
            scored = self._scores(block, attacked, record["cost"]["seconds"])
            self.store.write_record(block.id, {**record, **scored, "scoring": current})
            done += 1
        return done

    def _status(self, block: Block) -> str:
        return self.store.status_of(block.id, self.plan.fingerprints[block.id])

    def _attempt(self, block: Block, watch: Watch) -> dict[str, Any]:
        """The cell's border: whatever goes wrong inside becomes a status with its reason."""
        try:
            return self._result(block, watch)
        except Diverged as error:
            return {"status": "diverged", "reason": str(error)}
        except OutOfTime as error:
            return {"status": "timeout", "reason": str(error)}
        except UnsupportedPair as error:
            return {"status": "skipped", "reason": str(error)}
        except Exception as error:
            if _is_out_of_memory(error):
                reason = f"out of memory with one trial at a time: {_first_line(error)}"
                return {"status": "oom", "reason": reason}
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            reason = f"{type(error).__name__}: {_first_line(error)}"
            return {"status": "error", "reason": reason, "traceback": traceback.format_exc()}

    def _result(self, block: Block, watch: Watch) -> dict[str, Any]:
        started = time.perf_counter()

        def listen(done: int, total: int) -> None:
            watch(block, done, total)
            spent = time.perf_counter() - started
            if self.settings.timeout is not None and spent > self.settings.timeout:
                raise OutOfTime(f"over engine.timeout = {self.settings.timeout:g} s at iteration {done} of {total}")

        if block.cell.borrows is not None:
            attacked, cost = self._borrowed(block), {"chunk": None}
        else:
            with listening(listen):
                attacked, cost = self._attacked(block)
        seconds = time.perf_counter() - started
        scored = self._scores(block, attacked, seconds)
        path = self.store.blocks / f"{block.id}.npz"
        digest = self.store.write_arrays(path, **stored_arrays(attacked))
        released = self.clients.release(block)
        return {
            "status": "ok",
            "reason": None,
            **scored,
            "reconstructions_sha256": digest,
            "update_sha256": released.digest,
            "weights": {"accuracy": released.weights.accuracy, "recipe": released.weights.recipe_digest},
            "cost": {**cost, "seconds": seconds, "scoring_seconds": time.perf_counter() - started - seconds},
        }

    def _attacked(self, block: Block) -> tuple[Attacked, dict[str, Any]]:
        cell = block.cell
        attack = self.registry.build("attack", cell.attack)
        released = self.clients.release(block)
        means = self.clients.class_means(cell.setting) if cell.control else None
        seen = observe(released, cell.threat, means).to(self.device)
        seeds = attack_seeds(released, cell.setting.dataset.name, cell.seed)
        fits = trials_that_fit(released.task, released.params, attack.restarts, self.device)
        chunk = min(self.settings.chunk or fits, len(seeds))
        while True:
            try:
                attacked = attack_in_chunks(attack, seen, seeds, released.truth, released.labels, chunk)
                return attacked, {"chunk": chunk}
            except Exception as error:
                if not _is_out_of_memory(error) or chunk == 1:
                    raise
            # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            chunk = -(-chunk // 2)

    def _borrowed(self, block: Block) -> Attacked:
        lender = block.cell.borrows
        assert lender is not None
        source = Block(lender, block.start, block.stop)
        if self._status(source) != "ok":
            raise UnsupportedPair(f"{lender.attack.name} has no result to borrow")
        attacked = from_arrays(self.store.arrays(source.id))
        if len(attacked.images) < 2:
            raise UnsupportedPair("wrong_image needs two clients in a block; attack more images")
        return shown_to_the_wrong_client(attacked)

    def _scores(self, block: Block, attacked: Attacked, seconds: float) -> dict[str, Any]:
        cell = block.cell
        attack = None if cell.borrows else self.registry.build("attack", cell.attack)
        dataset = self.clients.dataset(cell.setting)
        rows, shared = rows_of(block, self.clients.release(block), attacked, attack, dataset)
        return {"images": [{**row, "seconds": seconds / len(rows)} for row in rows], **shared}

    def _publish(self, block: Block, result: dict[str, Any]) -> str:
        cell = block.cell
        record = {
            "version": VERSION,
            "block": block.id,
            "cell": cell.id,
            "start": block.start,
            "stop": block.stop,
            "title": cell.title,
            "fingerprint": self.plan.fingerprints[block.id],
            "scoring": scoring_fingerprint(),
            **result,
            "provenance": provenance(self.device),
        }
        self.store.write_record(block.id, record)
        return result["status"]


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one; raises ConfigurationError for cuda without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device cuda: torch sees no GPU here; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def default_threads() -> int:
    """As many threads as cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
