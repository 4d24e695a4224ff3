"""Multi-epoch averaging: the client trains before it sends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defenses.defense import Defense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate
from defenses.task import Task


@dataclass(frozen=True)
class LocalEpochs(Defense):
    """Federated averaging: run `epochs` of SGD over the local images and send the difference of weights.

    `batch_size` is that of a local step (None: all images at once), `learning_rate` the local one
    (McMahan et al., AISTATS 2017; attacked in Geiping et al., NeurIPS 2020, section 6).
    """

    epochs: int
    batch_size: int | None = None
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}; 'none' sends a single gradient")
        self.schedule(Schedule())

    def schedule(self, schedule: Schedule) -> Schedule:
        return replace(schedule, epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate)

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()  # The published schedule is all there is to know.
