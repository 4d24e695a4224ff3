"""The undefended client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator

from defenses.defense import Defense
from defenses.surrogate import Surrogate
from defenses.task import Batch, Params, Task, Update, local_training, local_training_of_many


@dataclass(frozen=True)
class NoDefense(Defense):
    """Send exactly what the schedule asks for: the mean gradient, or the difference of weights.

    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        return local_training(task, params, batch, rng, task.gradient)

    def share_many(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        return local_training_of_many(task, params, batches, rngs)

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()
