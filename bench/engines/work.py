"""A unit of work: blocks or a job that one process computes at one go, and the border at which faults become a status.

Work knows no run's folder: it holds what it needs beside the process's tools, and whoever gave it out publishes what
comes back.
"""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from attacks.engine.execution import Choice, is_out_of_memory
from bench.grid.cells import Block
from bench.grid.jobs import Job
from bench.grid.sections import Engine
from bench.plan.groups import Group
from bench.registry.registry import Registry
from bench.trial.clients import Clients

Item = Block | Job
"""Has one result, stored under its id."""
OnStart = Callable[[Group, Choice], None]
"""Hears how the attack on a group is run, before its first iteration."""


@dataclass(frozen=True)
class Tools:
    """All that a process has at hand for any work."""

    registry: Registry
    """The methods by name."""
    clients: Clients
    """The clients' datasets, models and updates, on the CPU."""
    settings: Engine
    """The grid's section `[engine]`."""
    device: torch.device
    """The device on which attacks run."""


@dataclass(frozen=True)
class Outcome:
    """The end of a block or job."""

    item: Item
    """The block or job."""
    result: dict[str, Any]
    """Fields of its record, among them its status and the reason."""
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """The reconstructions stored beside the record; empty without a result."""


class Watch(Protocol):
    """Hears how far the work is."""

    def training(self, item: Item, done: int, total: int) -> None:
        """Steps of the training of a block's network, before anything else."""

    def progress(self, work: Work, done: int, total: int) -> None:
        """Iterations of an attack, or rounds of a job."""


class Work(ABC):
    """Something to compute, with a result for each of its `items`."""

    kind: ClassVar[str]
    """The word for an item in messages."""
    remedy: ClassVar[str]
    """The advice in the message about work that kills its process."""
    statuses: ClassVar[Mapping[type[Exception], str]]
    """Exceptions whose message is the reason of a status; of others an error's record keeps the traceback."""

    @property
    @abstractmethod
    def items(self) -> Sequence[Item]:
        """The blocks or the job."""

    @property
    def lead(self) -> Item:
        """The item on which a death of the process is blamed."""
        return self.items[0]

    @property
    def title(self) -> str:
        return self.lead.title

    def wants(self, item: Item) -> bool:
        """True if this item's result is waited for."""
        return True

    @abstractmethod
    def outcomes(self, tools: Tools, on_start: OnStart, watch: Watch) -> Iterator[Outcome]:
        """Every item's outcome; whatever goes wrong inside becomes a status with its reason."""

    def guarded(self, item: Item, compute: Callable[[], Outcome]) -> Outcome:
        """The cell's border: what is computed, or the status and the reason of what went wrong."""
        try:
            return compute()
        except (Exception, SystemExit) as error:  # A plugin may even try to leave.
            for kind, status in self.statuses.items():
                if isinstance(error, kind):
                    return Outcome(item, {"status": status, "reason": str(error)})
            status = "oom" if is_out_of_memory(error) else "error"
            reason = f"{type(error).__name__}: {first_line(error)}"
            return Outcome(item, {"status": status, "reason": reason, "traceback": traceback.format_exc()})


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or "no message").splitlines()[0]
