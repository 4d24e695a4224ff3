"""The engine of one machine: one block after the other, every result published before the next starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from attacks.attack import UnsupportedPair
from bench.engines.attempts import Arrays, Attempts, Watch
from bench.grid.cells import Block
from bench.grid.sections import Engine
from bench.plan.fingerprints import scoring_fingerprint
from bench.plan.groups import Group, Groups
from bench.plan.plan import Plan
from bench.provenance import provenance
from bench.registry.registry import Registry
from bench.store.in_flight import DEATHS
from bench.store.store import VERSION, Store
from bench.trial.clients import Clients
from bench.trial.trial import Attacked, from_arrays, shown_to_the_wrong_client


@dataclass(frozen=True)
class LocalEngine:
    """Runs the blocks of a plan in this process, on `device`."""

    plan: Plan
    registry: Registry
    clients: Clients
    store: Store
    settings: Engine
    device: torch.device

    @cached_property
    def _groups(self) -> Groups:
        how = {**self.settings.model_dump(include={"chunk", "execution", "precision"}), "device": str(self.device)}
        return Groups(self.store, self.registry, self.clients, self.plan.fingerprints, how)

    @cached_property
    def _scoring_of_pool(self) -> Callable[[str], str]:
        """`scoring_fingerprint`, which parses all code of the scoring: 35 ms, for every block of a run."""
        return cache(scoring_fingerprint)

    @cached_property
    def _attempts(self) -> Attempts:
        return Attempts(self.registry, self.clients, self.settings, self.device)

    def pending(self, retry: Collection[str], since: str | None = None) -> list[Block]:
        """The blocks to run: those without a result, and those whose status is in `retry`.

        `since` is the id of the block in which this command's last process died: what stands before it has been
        tried again already.
        """
        blocks = [block for block in self.plan.blocks() if block.cell.skip is None]
        first = next((i for i, block in enumerate(blocks) if block.id == since), 0)
        chosen: list[Block] = []
        for i, block in enumerate(blocks):
            if self._status(block) == "ok":
                # A worker that died between publishing and signing off was blamed for a block that is done.
                self.store.flights.forget(block.id)
                continue
            wanted = {"pending", *(retry if i >= first else ())}
            if self._status(block) in wanted or self._can_borrow_now(block, {"ok", *wanted}):
                chosen.append(block)
        return chosen

    def groups(self, pending: list[Block]) -> list[Group]:
        """The pending blocks in groups that run as one; what has failed, or killed a process, runs alone."""
        fresh = ("pending", "stale")
        alone = [b.id for b in pending if self.store.flights.deaths(b.id) or self._status(b) not in fresh]
        return self._groups.of(pending, self.plan.blocks(), alone)

    def run(self, group: Group, watch: Watch) -> Iterator[tuple[Block, str, str | None]]:
        """Run the blocks of a group and publish each result, whatever it is; yields its status, and why a bad one.

        Raises `Unwritable` when it cannot be published, and passes KeyboardInterrupt on.
        """
        flights = self.store.flights
        lead = group.lead
        if all(self._status(block) == "ok" for block in group.blocks):  # Another process was faster.
            yield from ((block, "ok", None) for block in group.blocks if group.wants(block))
            return
        if flights.deaths(lead.id) >= DEATHS:
            reason = f"the process died {DEATHS} times in this block, most likely for lack of memory; set engine.chunk"
            crashed = {"status": "crashed", "reason": f"{reason} lower, then --retry crashed"}
            yield lead, *self._publish(lead, crashed, {})
            return
        flights.start(lead.id)
        try:
            began = lambda choice: self._groups.begin(group, choice)  # noqa: E731
            for block, result, arrays in self._attempts.attempt(group, watch, self._borrowed, began):
                status = self._publish(block, result, arrays)
                if group.wants(block):
                    yield block, *status
        finally:
            flights.end(lead.id)

    def score_again(self) -> int:
        """Score stored reconstructions again where the scoring has changed since; returns how many blocks."""
        done = 0
        for block in self.plan.blocks():
            record, current = self.store.record(block.id), self._scoring(block)
            if self._status(block) != "ok" or record is None or record["scoring"] == current:
                continue
            attacked = from_arrays(self.store.arrays(block.id))
            scored = self._attempts.scores(block, self.clients.release(block), attacked, record["cost"]["seconds"])
            self.store.write_record(block.id, {**record, **scored, "scoring": current})
            done += 1
        return done

    def _status(self, block: Block) -> str:
        return self.store.status_of(block.id, self.plan.fingerprints[block.id])

    def _can_borrow_now(self, block: Block, lends: Collection[str]) -> bool:
        """Whether a control was skipped for want of a result that is there now, or will be."""
        if block.cell.borrows is None or self._status(block) != "skipped":
            return False
        source = self._source(block)
        return source is not None and self._status(source) in lends

    def _source(self, block: Block) -> Block | None:
        """The block whose reconstructions `wrong_image` scores again; None without two clients."""
        lender = block.cell.borrows
        assert lender is not None
        if (block.stop - block.start) // lender.schedule.images > 1:
            return Block(lender, block.start, block.stop)
        # A client that is alone in its block is shown what was found for the clients before it.
        before = [other for other in lender.blocks(self.plan.images) if other.stop == block.start]
        return before[0] if before else None

    def _borrowed(self, block: Block) -> Attacked:
        source = self._source(block)
        if source is None:
            raise UnsupportedPair("wrong_image needs two clients; attack more images")
        if self._status(source) != "ok":
            raise UnsupportedPair(f"{source.cell.attack.name} has no result to borrow")
        found = shown_to_the_wrong_client(from_arrays(self.store.arrays(source.id)))
        return found.first((block.stop - block.start) // source.cell.schedule.images)

    def _scoring(self, block: Block) -> str:
        return self._scoring_of_pool(self.clients.facts(block.cell.setting).pool)

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
