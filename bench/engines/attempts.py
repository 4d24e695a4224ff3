"""One block tried: attack what its clients released, score what came back, and say what went wrong."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
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
from bench.memory import trials_that_fit
from bench.registry import Registry
from bench.settings import Engine
from bench.trial import Attacked, attack_in_chunks, rows_of, stored_arrays

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
class Attempts:
    """Tries blocks on `device`."""

    registry: Registry
    clients: Clients
    settings: Engine
    device: torch.device

    def attempt(self, block: Block, watch: Watch, borrow: Callable[[], Attacked]) -> tuple[dict[str, Any], Arrays]:
        """The cell's border: whatever goes wrong inside becomes a status with its reason.

        Returns what goes into the block's record, and the arrays; `borrow` gives `wrong_image` its reconstructions.
        """
        try:
            return self._result(block, watch, borrow)
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

    def scores(self, block: Block, attacked: Attacked, seconds: float) -> dict[str, Any]:
        """The rows of the block's images, and what belongs to all of them."""
        cell = block.cell
        attack = None if cell.borrows else self.registry.build("attack", cell.attack)
        dataset = self.clients.dataset(cell.setting)
        rows, shared = rows_of(block, self.clients.release(block), attacked, attack, dataset)
        return {"images": [{**row, "seconds": seconds / len(rows)} for row in rows], **shared}

    def _result(self, block: Block, watch: Watch, borrow: Callable[[], Attacked]) -> tuple[dict[str, Any], Arrays]:
        # Neither training nor the clients' work counts as the attack's time.
        released = self.clients.release(block, lambda done, total: watch.training(block, done, total))
        started = time.perf_counter()

        def listen(done: int, total: int) -> None:
            watch.iteration(block, done, total)
            spent = time.perf_counter() - started
            if self.settings.timeout is not None and spent > self.settings.timeout:
                raise OutOfTime(f"over engine.timeout = {self.settings.timeout:g} s at iteration {done} of {total}")

        if block.cell.borrows is not None:
            attacked, cost = borrow(), {"chunk": None}
        else:
            with listening(listen):
                attacked, cost = self._attacked(block)
        seconds = time.perf_counter() - started
        scored = self.scores(block, attacked, seconds)
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]
