"""The engine of one machine: one unit of work after the other, every result published before the next starts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from attacks.attack import UnsupportedPair
from bench.engines.blocks import GroupWork, SameClassWork, WrongImageWork, scores
from bench.engines.jobs import JobWork
from bench.engines.work import Item, Outcome, Tools, Watch, Work
from bench.errors import ConfigurationError
from bench.grid.cells import Block
from bench.grid.jobs import Job
from bench.grid.sections import Engine
from bench.plan.fingerprints import scoring_fingerprint
from bench.plan.groups import Group, Groups
from bench.plan.plan import Plan
from bench.provenance import provenance
from bench.registry.registry import Registry
from bench.store.block_marks import DEATHS
from bench.store.store import VERSION, Store
from bench.trial import wrong_image
from bench.trial.clients import Clients
from bench.trial.trial import BlockReconstruction, from_arrays


@dataclass(frozen=True)
class LocalEngine:
    """Runs the blocks and jobs of a plan in this process; attacks run on `device`."""

    plan: Plan
    """The cells and jobs to run."""
    registry: Registry
    """The methods by name."""
    clients: Clients
    """The clients' datasets, models and updates."""
    store: Store
    """The run's folder."""
    settings: Engine
    """The grid's section `[engine]`."""
    device: torch.device
    """The device on which attacks run."""

    @cached_property
    def _groups(self) -> Groups:
        how = {**self.settings.model_dump(include={"chunk", "execution", "precision"}), "device": str(self.device)}
        return Groups(self.store, self.registry, self.clients, self.plan.fingerprints, how)

    @cached_property
    def _scoring_of_pool(self) -> Callable[[str], str]:
        """`scoring_fingerprint`, which parses all code of the scoring: 35 ms, for every block of a run."""
        return cache(scoring_fingerprint)

    @cached_property
    def _tools(self) -> Tools:
        return Tools(self.registry, self.clients, self.settings, self.device)

    def pending(self, retry: Collection[str], since: str | None = None) -> list[Item]:
        """The blocks, and then the jobs, to run: those without a result, and those whose status is in `retry`.

        `since` is the id of the block or job in which this command's last process died: what stands before it has been
        tried again already.
        """
        items = [*(block for block in self.plan.blocks() if block.cell.skip is None), *self.plan.jobs]
        first = next((i for i, item in enumerate(items) if item.id == since), 0)
        chosen: list[Item] = []
        for i, item in enumerate(items):
            status = self._status(item)
            if status == "ok":
                # A worker that died between publishing and signing off was blamed for a block that is done.
                self.store.marks.forget(item.id)
                continue
            wanted = {"pending", *(retry if i >= first else ())}
            if status in wanted or (status == "skipped" and self._can_borrow_now(item, {"ok", *wanted})):
                chosen.append(item)
        return chosen

    def units(self, pending: Sequence[Item]) -> list[Group | Job]:
        """The pending blocks in groups that run as one, then the jobs.

        A block that has failed, or killed a process, is a group of its own.
        """
        fresh = ("pending", "stale")
        blocks = [item for item in pending if isinstance(item, Block)]
        alone = [b.id for b in blocks if self.store.marks.deaths(b.id) or self._status(b) not in fresh]
        return [
            *self._groups.of(blocks, self.plan.blocks(), alone),
            *(item for item in pending if isinstance(item, Job)),
        ]

    def run(self, unit: Group | Job, watch: Watch) -> Iterator[tuple[Item, str, str | None]]:
        """Run a unit of work and publish each result, whatever it is; yields its status, and why a bad one.

        Raises `Unwritable` when it cannot be published, and passes KeyboardInterrupt on.
        """
        marks, work = self.store.marks, self._work(unit)
        lead = work.lead
        if all(self._status(item) == "ok" for item in work.items):  # Another process was faster.
            yield from ((item, "ok", None) for item in work.items if work.wants(item))
            return
        if marks.deaths(lead.id) >= DEATHS:
            died = f"the process died {DEATHS} times in this {work.kind}, most likely for lack of memory"
            crashed = {"status": "crashed", "reason": f"{died}; {work.remedy}"}
            yield lead, *self._publish(Outcome(lead, crashed))
            return
        marks.start(lead.id)
        try:
            for outcome in work.outcomes(self._tools, self._groups.begin, watch):
                status = self._publish(outcome)
                if work.wants(outcome.item):
                    yield outcome.item, *status
        finally:
            marks.end(lead.id)

    def score_again(self) -> int:
        """Score stored reconstructions again where the scoring has changed since; returns how many blocks."""
        done = 0
        for block in self.plan.blocks():
            record, current = self.store.record(block.id), self._scoring(block)
            if self._status(block) != "ok" or record is None or record["scoring"] == current:
                continue
            found = from_arrays(self.store.arrays(block.id))
            scored = scores(block, self.clients.release(block), found, record["cost"]["seconds"], self._tools)
            self.store.write_record(block.id, {**record, **scored, "scoring": current})
            done += 1
        return done

    def _work(self, unit: Group | Job) -> Work:
        if isinstance(unit, Job):
            return JobWork(unit, self.store.folder / "training", self.plan.fingerprints[unit.id])
        if unit.lead.cell.borrows is not None:
            return WrongImageWork(unit.lead, self._source_of(unit.lead))
        return GroupWork(unit) if unit.lead.cell.repeats is None else SameClassWork(unit)

    def _source_of(self, block: Block) -> BlockReconstruction | Exception:
        """The reconstructions of another client than the block's, or the reason for which there are none."""
        source = wrong_image.source(block, self.plan.images)
        if source is None:
            return UnsupportedPair("wrong_image needs two clients; attack more images")
        if self._status(source) != "ok":
            return UnsupportedPair(f"{source.cell.attack.name} has no result to borrow")
        try:
            return wrong_image.reconstructions(block, from_arrays(self.store.arrays(source.id)))
        except ConfigurationError as error:
            return error

    def _can_borrow_now(self, item: Item, lends: Collection[str]) -> bool:
        """True if a control was skipped for want of a result that is there now, or will be."""
        if isinstance(item, Job) or item.cell.borrows is None:
            return False
        source = wrong_image.source(item, self.plan.images)
        return source is not None and self._status(source) in lends

    def _status(self, item: Item) -> str:
        return self.store.status_of(item.id, self.plan.fingerprints[item.id])

    def _scoring(self, block: Block) -> str:
        return self._scoring_of_pool(self.clients.data_digests(block.cell.setting).pool)

    def _publish(self, outcome: Outcome) -> tuple[str, str | None]:
        item, result, blocks = outcome.item, outcome.result, self.store.blocks
        record = {"version": VERSION, "block": item.id, **self._head(item), **result}
        record["provenance"] = provenance(torch.device("cpu") if isinstance(item, Job) else self.device)
        with self.store.turn():
            if self._status(item) == "ok":  # Another process was faster: arrays and record stay a pair.
                return "ok", None
            if outcome.arrays:
                record |= self.store.write_arrays(blocks / f"{item.id}.npz", **outcome.arrays)
            self.store.write_record(item.id, record)
        self.store.marks.forget(item.id)
        return result["status"], result["reason"]

    def _head(self, item: Item) -> dict[str, Any]:
        """The fields of a record that name the choices behind its result."""
        common = {"title": item.title, "fingerprint": self.plan.fingerprints[item.id]}
        if isinstance(item, Job):
            return {"kind": item.kind, **common}
        place = {"cell": item.cell.id, "start": item.start, "stop": item.stop}
        return {**place, **common, "scoring": self._scoring(item)}
