"""The engine of one machine: one block after the other, every result published before the next starts."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from attacks.attack import UnsupportedPair
from attacks.progress import listening
from bench.cells import Block
from bench.clients import Clients, attack_seeds, observe
from bench.contract import Diverged
from bench.devices import is_out_of_memory
from bench.fingerprint import scoring_fingerprint
from bench.flights import DEATHS
from bench.memory import trials_that_fit
from bench.plan import Plan
from bench.provenance import provenance
from bench.registry import Registry
from bench.settings import Engine
from bench.store import VERSION, Store
from bench.trial import (
    Attacked,
    attack_in_chunks,
    from_arrays,
    rows_of,
    shown_to_the_wrong_client,
    stored_arrays,
)

Arrays = dict[str, np.ndarray]
"""What is stored of the reconstructions; empty without a result."""


class Watch(Protocol):
    """Hears of the block that runs."""

    def training(self, block: Block, done: int, total: int) -> None:
        """Steps of the training of its network, before anything else."""

    def iteration(self, block: Block, done: int, total: int) -> None:
        """Iterations of its attack."""


class OutOfTime(Exception):
    """A block took longer than engine.timeout."""


@dataclass(frozen=True)
class LocalEngine:
    """Runs the blocks of a plan in this process, on `device`."""

    plan: Plan
    registry: Registry
    clients: Clients
    store: Store
    settings: Engine
    device: torch.device

    def pending(self, retry: Collection[str], since: str | None = None) -> list[Block]:
        """The blocks to run: those without a result, and those whose status is in `retry`.

        `since` is the id of the block in which this command's last process died: what stands before it has been
        tried again already.
        """
        blocks = [block for block in self.plan.blocks() if block.cell.skip is None]
        first = next((i for i, block in enumerate(blocks) if block.id == since), 0)
        chosen: list[Block] = []
        for i, block in enumerate(blocks):
            wanted = {"pending", *(retry if i >= first else ())}
            if self._status(block) in wanted or self._can_borrow_now(block, {"ok", *wanted}):
                chosen.append(block)
        return chosen

    def run(self, block: Block, watch: Watch) -> tuple[str, str | None]:
        """Run one block and publish its result, whatever it is; returns its status and the reason of a bad one.

        Raises `Unwritable` when it cannot be published, and passes KeyboardInterrupt on.
        """
        flights = self.store.flights
        if self._status(block) == "ok":  # Another process has finished it since this one looked.
            return "ok", None
        if flights.deaths(block.id) >= DEATHS:
            reason = f"the process died {DEATHS} times in this block, most likely for lack of memory; set engine.chunk"
            return self._publish(block, {"status": "crashed", "reason": f"{reason} lower, then --retry crashed"}, {})
        flights.start(block.id)
        try:
            return self._publish(block, *self._attempt(block, watch))
        finally:
            flights.end(block.id)

    def score_again(self) -> int:
        """Score stored reconstructions again where the scoring has changed since; returns how many blocks."""
        done = 0
        for block in self.plan.blocks():
            record, current = self.store.record(block.id), self._scoring(block)
            if self._status(block) != "ok" or record is None or record["scoring"] == current:
                continue
            attacked = from_arrays(self.store.arrays(block.id))
            scored = self._scores(block, attacked, record["cost"]["seconds"])
            self.store.write_record(block.id, {**record, **scored, "scoring": current})
            done += 1
        return done

    def _status(self, block: Block) -> str:
        return self.store.status_of(block.id, self.plan.fingerprints[block.id])

    def _can_borrow_now(self, block: Block, lends: Collection[str]) -> bool:
        """Whether a control was skipped for want of a result that is there now, or will be."""
        lender, clients = block.cell.borrows, (block.stop - block.start) // block.cell.schedule.images
        if lender is None or clients < 2 or self._status(block) != "skipped":
            return False
        return self._status(Block(lender, block.start, block.stop)) in lends

    def _attempt(self, block: Block, watch: Watch) -> tuple[dict[str, Any], Arrays]:
        """The cell's border: whatever goes wrong inside becomes a status with its reason."""
        try:
            return self._result(block, watch)
        except Diverged as error:
            return {"status": "diverged", "reason": str(error)}, {}
        except OutOfTime as error:
            return {"status": "timeout", "reason": str(error)}, {}
        except UnsupportedPair as error:
            return {"status": "skipped", "reason": str(error)}, {}
        except (Exception, SystemExit) as error:  # A plugin may even try to leave.
            if is_out_of_memory(error):
                reason = f"out of memory with one trial at a time: {_first_line(error)}"
                return {"status": "oom", "reason": reason}, {}
            reason = f"{type(error).__name__}: {_first_line(error)}"
            return {"status": "error", "reason": reason, "traceback": traceback.format_exc()}, {}

    def _result(self, block: Block, watch: Watch) -> tuple[dict[str, Any], Arrays]:
        # Neither training nor the clients' work counts as the attack's time.
        released = self.clients.release(block, lambda done, total: watch.training(block, done, total))
        started = time.perf_counter()

        def listen(done: int, total: int) -> None:
            watch.iteration(block, done, total)
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
        result = {
            "status": "ok",
            "reason": None,
            **scored,
            "update_sha256": released.digest,
            "weights": {"accuracy": released.weights.accuracy, "recipe": released.weights.recipe_digest},
            "cost": {**cost, "seconds": seconds, "scoring_seconds": time.perf_counter() - started - seconds},
        }
        return result, stored_arrays(attacked)

    def _attacked(self, block: Block) -> tuple[Attacked, dict[str, Any]]:
        cell = block.cell
        attack = self.registry.build("attack", cell.attack)
        released = self.clients.release(block)
        means = self.clients.class_means(cell.setting) if cell.control else None
        seen = observe(released, cell.threat, means).to(self.device)
        seeds = attack_seeds(block)
        fits = trials_that_fit(released.task, released.params, attack.restarts, self.device)
        chunk = min(self.settings.chunk or fits, len(seeds))
        while True:
            try:
                attacked = attack_in_chunks(attack, seen, seeds, released.truth, released.labels, chunk)
                return attacked, {"chunk": chunk}
            except Exception as error:
                if not is_out_of_memory(error) or chunk == 1:
                    raise
            # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            chunk = -(-chunk // 2)

    def _borrowed(self, block: Block) -> Attacked:
        lender = block.cell.borrows
        assert lender is not None
        blocks = lender.blocks(self.plan.images)
        source = Block(lender, block.start, block.stop)
        if (block.stop - block.start) // lender.schedule.images < 2:
            # A client that is alone in its block is shown what was found for the clients before it.
            source = blocks[blocks.index(source) - 1]
            if source.start >= block.start:
                raise UnsupportedPair("wrong_image needs two clients; attack more images")
        if self._status(source) != "ok":
            raise UnsupportedPair(f"{lender.attack.name} has no result to borrow")
        found = shown_to_the_wrong_client(from_arrays(self.store.arrays(source.id)))
        return found.first((block.stop - block.start) // lender.schedule.images)

    def _scores(self, block: Block, attacked: Attacked, seconds: float) -> dict[str, Any]:
        cell = block.cell
        attack = None if cell.borrows else self.registry.build("attack", cell.attack)
        dataset = self.clients.dataset(cell.setting)
        rows, shared = rows_of(block, self.clients.release(block), attacked, attack, dataset)
        return {"images": [{**row, "seconds": seconds / len(rows)} for row in rows], **shared}

    def _scoring(self, block: Block) -> str:
        return scoring_fingerprint(self.clients.facts(block.cell.setting).pool)

    def _publish(self, block: Block, result: dict[str, Any], arrays: Arrays) -> tuple[str, str | None]:
        cell = block.cell
        record = {
            "version": VERSION,
            "block": block.id,
            "cell": cell.id,
            "start": block.start,
            "stop": block.stop,
            "title": cell.title,
            "fingerprint": self.plan.fingerprints[block.id],
            "scoring": self._scoring(block),
            **result,
            "provenance": provenance(self.device),
        }
        with self.store.turn():
            if self._status(block) == "ok":  # Another process was faster: arrays and record stay a pair.
                return "ok", None
            if arrays:
                record |= self.store.write_arrays(self.store.blocks / f"{block.id}.npz", **arrays)
            self.store.write_record(block.id, record)
        self.store.flights.forget(block.id)
        return result["status"], result["reason"]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
