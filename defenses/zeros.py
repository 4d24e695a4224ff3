"""Nothing at all: the defense that wins every ranking by leakage alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from defenses.defense import Defense
from defenses.surrogate import Surrogate
from defenses.task import Task, Update


@dataclass(frozen=True)
class Zeros(Defense):
    """Send zeros. A control of rankings: it leaks nothing, teaches nothing, and must be ranked at no accuracy budget.

    That a defense has to be judged by privacy and utility together: Carlini et al., "Is Private Learning Possible with
    Instance Encoding?", IEEE S&P 2021.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: torch.zeros_like(u) for name, u in update.items()}

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        return {name: torch.zeros_like(u) for name, u in updates.items()}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()  # There is nothing to adapt to.
