"""One block tried: attack what its clients released, score what came back, and say what went wrong."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch

from attacks.attack import UnsupportedPair
from attacks.engine.execution import Choice, Execution, executing, is_out_of_memory, listening
from attacks.observation import joined
from bench.devices import budget, compile_costs, trials_that_fit
from bench.grid.cells import Block
from bench.grid.sections import Engine
from bench.plan.groups import Group
from bench.registry.registry import Registry
from bench.trial.clients import Clients, Released, attack_seeds, observe
from bench.trial.contract import Diverged
from bench.trial.trial import Attacked, attack_in_chunks, rows_of, stored_arrays

Arrays = dict[str, np.ndarray]
"""What is stored of the reconstructions; empty without a result."""


class Watch(Protocol):
    """Hears of the block that runs."""

    def training(self, block: Block, done: int, total: int) -> None:
        """Steps of the training of its network, before anything else."""

    def iteration(self, block: Block, done: int, total: int, blocks: int = 1) -> None:
        """Iterations of its attack, which runs for so many blocks at once."""


class OutOfTime(Exception):
    """A block took longer than engine.timeout."""


@dataclass(frozen=True)
class Attempts:
    """Tries blocks on `device`."""

    registry: Registry
    clients: Clients
    settings: Engine
    device: torch.device

    def attempt(
        self, group: Group, watch: Watch, borrow: Callable[[Block], Attacked], began: Callable[[Choice], None]
    ) -> Iterator[tuple[Block, dict[str, Any], Arrays]]:
        """The cell's border: whatever goes wrong inside becomes a status with its reason.

        Yields every block with what goes into its record, and its arrays. An error in a shared program runs its blocks
        again one by one. `borrow` gives `wrong_image` its reconstructions; `began` hears how the attack is run.
        """
        if len(group.blocks) > 1:
            try:
                results = self._results(group, watch, borrow, began)
            except (Exception, SystemExit):  # Whose fault it is shows when each is alone.
                results = None
            if results is not None:
                yield from results
                return
        for block in group.blocks:
            yield block, *self._alone(Group([block], group.choices[:1]), watch, borrow, began)

    def _alone(
        self, group: Group, watch: Watch, borrow: Callable[[Block], Attacked], began: Callable[[Choice], None]
    ) -> tuple[dict[str, Any], Arrays]:
        try:
            [(_, result, arrays)] = self._results(group, watch, borrow, began)
            return result, arrays
        except Diverged as error:
            return {"status": "diverged", "reason": str(error)}, {}
        except OutOfTime as error:
            return {"status": "timeout", "reason": str(error)}, {}
        except UnsupportedPair as error:
            return {"status": "skipped", "reason": str(error)}, {}
        except (Exception, SystemExit) as error:  # A plugin may even try to leave.
            if is_out_of_memory(error):
                reason = f"out of memory with one trial at a time: {first_line(error)}"
                return {"status": "oom", "reason": reason}, {}
            reason = f"{type(error).__name__}: {first_line(error)}"
            return {"status": "error", "reason": reason, "traceback": traceback.format_exc()}, {}

    def scores(self, block: Block, released: Released, attacked: Attacked, seconds: float) -> dict[str, Any]:
        """The rows of the block's images, and what belongs to all of them."""
        cell = block.cell
        attack = None if cell.borrows else self.registry.build("attack", cell.attack)
        dataset = self.clients.dataset(cell.setting)
        rows, shared = rows_of(block, released, attacked, attack, dataset)
        return {"images": [{**row, "seconds": seconds / len(rows)} for row in rows], **shared}

    def _results(
        self, group: Group, watch: Watch, borrow: Callable[[Block], Attacked], began: Callable[[Choice], None]
    ) -> list[tuple[Block, dict[str, Any], Arrays]]:
        blocks, lead = group.blocks, group.blocks[0]
        # Neither training nor the clients' work counts as the attack's time.
        released = [
            self.clients.release(block, lambda done, total, block=block: watch.training(block, done, total))
            for block in blocks
        ]
        started = time.perf_counter()
        limit = None if self.settings.timeout is None else self.settings.timeout * len(blocks)

        def listen(done: int, total: int) -> None:
            watch.iteration(lead, done, total, len(blocks))
            if limit is not None and time.perf_counter() - started > limit:
                each = f"engine.timeout = {self.settings.timeout:g} s"
                raise OutOfTime(f"over {each} at iteration {done} of {total}")

        if lead.cell.borrows is not None:
            attacked, cost = [borrow(lead)], {"chunk": None}
        else:
            with listening(listen):
                attacked, cost = self._attacked(group, released, began)
        seconds = (time.perf_counter() - started) / len(blocks)
        results: list[tuple[Block, dict[str, Any], Arrays]] = []
        for block, sent, found in zip(blocks, released, attacked, strict=True):
            scoring = time.perf_counter()
            scored = self.scores(block, sent, found, seconds)
            costs = {**cost, "seconds": seconds, "scoring_seconds": time.perf_counter() - scoring}
            result = {
                "status": "ok",
                "reason": None,
                **scored,
                "update_sha256": sent.digest,
                "weights": {"accuracy": sent.weights.accuracy, "recipe": sent.weights.recipe_digest},
                "cost": costs,
            }
            results.append((block, result, stored_arrays(found)))
        return results

    def _attacked(
        self, group: Group, released: list[Released], began: Callable[[Choice], None]
    ) -> tuple[list[Attacked], dict[str, Any]]:
        """What the attack made of every block, and what it cost."""
        cell = group.blocks[0].cell
        attack = self.registry.build("attack", cell.attack)
        means = self.clients.class_means(cell.setting) if cell.control else None
        seen = joined([observe(sent, cell.threat, means) for sent in released]).to(self.device)
        truth = torch.cat([sent.truth for sent in released])
        labels = torch.cat([sent.labels for sent in released])
        seeds = [seed for block in group.blocks for seed in attack_seeds(block)]
        chunk = len(seeds)
        if not attack.joint:  # The engine cuts the lanes of the others, all with one program.
            fits = trials_that_fit(released[0].task, released[0].params, attack.restarts, self.device)
            chunk = min(chunk, fits, self.settings.chunk or fits)
        with executing(self._execution(group, attack.restarts), began) as choices:
            while True:
                try:
                    attacked = attack_in_chunks(attack, seen, seeds, truth, labels, chunk)
                    break
                except Exception as error:
                    if not is_out_of_memory(error) or chunk == 1:
                        raise
                # Outside the except block: the exception's frames keep the tensors of the failed chunk alive.
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                chunk = -(-chunk // 2)
        sizes = [len(sent.truth) for sent in released]
        parts = [attacked.at(slice(end - size, end)) for end, size in zip(accumulate(sizes), sizes, strict=True)]
        how = [asdict(choice) for choice in choices]
        shared = [block.id for block in group.blocks]
        return parts, {"chunk": chunk, "execution": how, "group": shared if len(shared) > 1 else []}

    def _execution(self, group: Group, restarts: int) -> Execution:
        wanted = self.settings.execution
        lanes = None if self.settings.chunk is None else self.settings.chunk * restarts
        execution = Execution(
            mode=wanted,
            gradient="auto" if wanted == "auto" else "double_backward",
            precision=self.settings.precision,
            lanes=lanes,
            memory=budget(self.device),
            costs=compile_costs(),
        )
        if not group.choices:
            return execution
        before = group.choices[0]
        return replace(execution, mode=before.execution, gradient=before.gradient, lanes=before.chunk)  # pyright: ignore[reportArgumentType]


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or "no message").splitlines()[0]
