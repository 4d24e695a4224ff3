"""The Euclidean objective with Adam."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attacks.attack import Attack, Reconstruction
from attacks.engine.descent import Adam
from attacks.labels import check_labels
from attacks.matching.distances import squared_distance
from attacks.matching.problem import MatchingProblem, descended
from attacks.observation import Observation
from defenses.task import Task


@dataclass(frozen=True)
class EuclideanAdam(Attack):
    """Match the gradient's entries with plain Adam, without prior or box; images are clamped at the end.

    The objective of Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019, with the optimiser that Geiping et al.,
    NeurIPS 2020, compare it by.
    """

    joint = True
    takes_own_weights = True
    simulates = True

    iterations: int = 4800
    restarts: int = 1
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        Adam(self.iterations, self.learning_rate)
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = MatchingProblem(observation, squared_distance)
        return descended(
            problem, seeds, self.restarts, Adam(self.iterations, self.learning_rate), signed=False, boxed=False
        )

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return MatchingProblem(observation, squared_distance).at(images, labels)
