"""Work on blocks: attack the releases of their clients, or take another client's reconstructions, and score them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, ClassVar

import torch

from attacks.attack import Attack, UnsupportedPair
from attacks.engine.execution import Choice, Execution, executing, is_out_of_memory, listening
from bench.devices import budget, compile_costs, trials_that_fit
from bench.engines.work import Item, OnStart, Outcome, Tools, Watch, Work, first_line
from bench.grid.cells import HELD_OUT_CLIENTS, Block, Cell
from bench.plan.groups import Group
from bench.seeds import stream
from bench.trial.clients import BlockRelease, attack_seeds
from bench.trial.contract import Diverged
from bench.trial.trial import (
    BlockReconstruction,
    answers_to_held_out,
    attack_in_chunks,
    identified_by_likelihood,
    rows_of,
    rows_of_same_class,
    stored_arrays,
)


class OutOfTime(Exception):
    """A block took longer than engine.timeout."""


class OutOfMemory(Exception):
    """An attack on a single trial took more memory than there is."""


class BlockWork(Work):
    """Work on blocks."""

    kind = "block"
    remedy = "set engine.chunk lower, then --retry crashed"
    statuses: ClassVar = {Diverged: "diverged", OutOfTime: "timeout", UnsupportedPair: "skipped", OutOfMemory: "oom"}

    def answered(
        self, run: AttackRun, tools: Tools, on_start: Callable[[Choice], None], watch: Watch
    ) -> tuple[list[BlockReconstruction], dict[str, Any]]:
        """The attack's reconstruction of every release, and what it cost; raises `OutOfTime` and `OutOfMemory`."""
        started, settings = time.perf_counter(), tools.settings
        limit = None if settings.timeout is None else settings.timeout * run.times

        def on_iteration(done: int, total: int) -> None:
            watch.progress(self, done, total)
            if limit is not None and time.perf_counter() - started > limit:
                raise OutOfTime(f"over engine.timeout = {settings.timeout:g} s at iteration {done} of {total}")

        attack = tools.registry.build("attack", run.cell.attack)
        execution = _execution(run.group, attack.restarts, tools)
        with listening(on_iteration), executing(execution, on_start) as choices:
            found, chunk = _in_fitting_chunks(run, attack, tools)
        chosen = [asdict(choice) for choice in choices]
        return found, {"chunk": chunk, "execution": chosen, "seconds": time.perf_counter() - started}


@dataclass(frozen=True)
class AttackRun:
    """One call of an attack."""

    cell: Cell
    """A cell that says what the attack is, and what it is granted."""
    group: Group
    """The blocks that it is for, and how they were run before."""
    releases: list[BlockRelease]
    """The releases that are attacked."""
    seeds: list[int]
    """One number for each trial of them."""
    times: int
    """The time limit as a multiple of that of a block."""


@dataclass(frozen=True)
class GroupWork(BlockWork):
    """An attack on the blocks of a group, whose trials are lanes of one program.

    An error in a shared program runs its blocks again one by one.
    """

    group: Group
    """The blocks, and how they were run before, if they were begun."""

    @property
    def items(self) -> Sequence[Block]:
        return self.group.blocks

    @property
    def lead(self) -> Block:
        return self.group.lead

    @property
    def title(self) -> str:
        return self.group.title

    def wants(self, item: Item) -> bool:
        return item.id not in self.group.done

    def outcomes(self, tools: Tools, on_start: OnStart, watch: Watch) -> Iterator[Outcome]:
        start = partial(on_start, self.group)
        if len(self.items) > 1:
            try:
                outcomes = self._attacked(tools, start, watch)
            except (Exception, SystemExit):  # Whose fault it is shows when each is alone.
                outcomes = None
            if outcomes is not None:
                yield from outcomes
                return
        for block in self.items:
            alone = GroupWork(Group([block], self.group.choices[:1]))
            yield self.guarded(block, lambda alone=alone: alone._attacked(tools, start, watch)[0])

    def _attacked(self, tools: Tools, on_start: Callable[[Choice], None], watch: Watch) -> list[Outcome]:
        blocks = self.items
        # Neither training nor the clients' work counts as the attack's time.
        releases = [tools.clients.release(block, partial(watch.training, block)) for block in blocks]
        seeds = [seed for block in blocks for seed in attack_seeds(block)]
        run = AttackRun(blocks[0].cell, self.group, releases, seeds, len(blocks))
        attacked, spent = self.answered(run, tools, on_start, watch)
        group = [block.id for block in blocks] if len(blocks) > 1 else []
        cost = {**spent, "group": group, "seconds": spent["seconds"] / len(blocks)}
        return [
            _scored(block, sent, found, cost, tools)
            for block, sent, found in zip(blocks, releases, attacked, strict=True)
        ]


@dataclass(frozen=True)
class WrongImageWork(BlockWork):
    """The work on a block of the control `wrong_image`."""

    block: Block
    """The control's block."""
    source: BlockReconstruction | Exception
    """The reconstruction of another client, or the reason for which there is none."""

    @property
    def items(self) -> Sequence[Block]:
        return (self.block,)

    def outcomes(self, tools: Tools, on_start: OnStart, watch: Watch) -> Iterator[Outcome]:
        yield self.guarded(self.block, lambda: self._compared(tools, watch))

    def _compared(self, tools: Tools, watch: Watch) -> Outcome:
        release = tools.clients.release(self.block, partial(watch.training, self.block))
        if isinstance(self.source, Exception):
            raise self.source
        return _scored(self.block, release, self.source, {"chunk": None, "seconds": 0.0}, tools)


@dataclass(frozen=True)
class SameClassWork(BlockWork):
    """The work on a block of the control `same_class`: all held-out clients of its ones are attacked at once."""

    group: Group
    """The control's block alone."""

    @property
    def items(self) -> Sequence[Block]:
        return self.group.blocks

    def outcomes(self, tools: Tools, on_start: OnStart, watch: Watch) -> Iterator[Outcome]:
        block = self.group.lead
        yield self.guarded(block, lambda: self._repeated(block, tools, partial(on_start, self.group), watch))

    def _repeated(self, block: Block, tools: Tools, on_start: Callable[[Choice], None], watch: Watch) -> Outcome:
        cell = block.cell.repeats
        assert cell is not None, "only this control repeats an attack"
        training = partial(watch.training, block)
        release, held_out = tools.clients.release(block, training), tools.clients.release_of_held_out(block, training)
        seeds = [stream("attack", own, client) for own in attack_seeds(block) for client in range(HELD_OUT_CLIENTS)]
        run = AttackRun(cell, self.group, [held_out], seeds, HELD_OUT_CLIENTS)
        [found], cost = self.answered(run, tools, on_start, watch)
        return _scored(block, release, answers_to_held_out(found), {**cost, "group": []}, tools)


def scores(
    block: Block, release: BlockRelease, reconstruction: BlockReconstruction, seconds: float, tools: Tools
) -> dict[str, Any]:
    """The rows of the block's images, and what belongs to all of them."""
    cell = block.cell
    dataset = tools.clients.dataset(cell.setting)
    if cell.repeats is None:
        attack = None if cell.borrows else tools.registry.build("attack", cell.attack)
        # A fact of client and server; runs without public images have rows as they were before it was measured.
        measured = cell.threat.public and not cell.control
        likely = identified_by_likelihood(tools.clients, block, release) if measured else None
        rows, shared = rows_of(block, release, reconstruction, attack, dataset, likely)
    else:
        held_out = tools.clients.release_of_held_out(block)
        rows, shared = rows_of_same_class(block, release, held_out, reconstruction, dataset)
    return {"images": [{**row, "seconds": seconds / len(rows)} for row in rows], **shared}


def _scored(
    block: Block, release: BlockRelease, reconstruction: BlockReconstruction, cost: dict[str, Any], tools: Tools
) -> Outcome:
    started = time.perf_counter()
    result = {
        "status": "ok",
        "reason": None,
        **scores(block, release, reconstruction, cost["seconds"], tools),
        # Scored again, a block keeps them; other attacks' records stay as they always were.
        **({"choices": reconstruction.choices} if reconstruction.choices else {}),
        "update_sha256": release.digest,
        "weights": {"accuracy": release.weights.accuracy, "recipe": release.weights.recipe_digest},
        "cost": {**cost, "scoring_seconds": time.perf_counter() - started},
    }
    return Outcome(block, result, stored_arrays(reconstruction))


def _in_fitting_chunks(run: AttackRun, attack: Attack, tools: Tools) -> tuple[list[BlockReconstruction], int]:
    """The attack's reconstruction of every release, and the number of trials at a time: as many as memory holds."""
    releases, seeds = run.releases, run.seeds
    seen = tools.clients.observed(run.cell, attack, releases).to(tools.device)
    truth = torch.cat([sent.truth for sent in releases])
    labels = torch.cat([sent.labels for sent in releases])
    chunk = len(seeds)
    if not attack.joint:  # The engine cuts the lanes of the others, all with one program.
        fits = trials_that_fit(releases[0].task, releases[0].params, attack.restarts, tools.device)
        chunk = min(chunk, fits, tools.settings.chunk or fits)
    while True:
        try:
            attacked = attack_in_chunks(attack, seen, seeds, truth, labels, chunk)
            break
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1:
                raise OutOfMemory(f"out of memory with one trial at a time: {first_line(error)}") from error
        # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
        if tools.device.type == "cuda":
            torch.cuda.empty_cache()
        chunk = -(-chunk // 2)
    sizes = [len(sent.truth) for sent in releases]
    return [attacked.at(slice(end - size, end)) for end, size in zip(accumulate(sizes), sizes, strict=True)], chunk


def _execution(group: Group, restarts: int, tools: Tools) -> Execution:
    settings = tools.settings
    execution = Execution(
        mode=settings.execution,
        gradient="auto" if settings.execution == "auto" else "double_backward",
        precision=settings.precision,
        lanes=None if settings.chunk is None else settings.chunk * restarts,
        memory=budget(tools.device),
        costs=compile_costs(),
    )
    if not group.choices:
        return execution
    before = group.choices[0]
    return replace(execution, mode=before.execution, gradient=before.gradient, lanes=before.chunk)  # pyright: ignore[reportArgumentType]
