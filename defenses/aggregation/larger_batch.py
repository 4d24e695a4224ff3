"""Averaging over more images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defenses.defense import Defense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate
from defenses.task import Task


@dataclass(frozen=True)
class LargerBatch(Defense):
    """Compute one update from `examples` images.

    Geiping et al., "Inverting Gradients", NeurIPS 2020, section 6: averaging over a batch hides less than is hoped.
    """

    examples: int

    def __post_init__(self) -> None:
        if self.examples < 1:
            raise ValueError(f"examples must be at least 1, got {self.examples}")

    def schedule(self, schedule: Schedule) -> Schedule:
        return replace(schedule, images=self.examples)

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()  # The published schedule is all there is to know.
