"""The baseline of Deep Leakage from Gradients: Euclidean objective, L-BFGS."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attacks.attack import Attack, Reconstruction
from attacks.engine.lbfgs import LBFGS, minimise
from attacks.engine.line_search import LineSearch
from attacks.labels import check_labels
from attacks.matching.distances import squared_distance
from attacks.matching.problem import MatchingProblem
from attacks.observation import Observation
from defenses.task import Task


@dataclass(frozen=True)
class Euclidean(Attack):
    """Match the gradient's entries with L-BFGS at torch's defaults; no prior, no box.

    Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019; with labels = "joint" soft labels are optimised too.
    `iterations` are outer steps of up to 20 inner iterations, and of up to 25 evaluations where there is a
    `line_search`. Without one the objective can rise, so each restart keeps its best iterate. Images are clamped to
    [0, 1] at the end.
    """

    joint = True
    takes_own_weights = True
    simulates = True

    iterations: int = 300
    restarts: int = 1
    learning_rate: float = 1.0
    history: int = 100
    line_search: LineSearch = "none"

    def __post_init__(self) -> None:
        _ = self._optimiser
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = MatchingProblem(observation, squared_distance)
        start, evidence = problem.start(seeds, self.restarts), problem.evidence(self.restarts)
        found = minimise(problem.objective, start, evidence, self._optimiser, problem.gradients)
        return problem.best(found, evidence, self.restarts)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return MatchingProblem(observation, squared_distance).at(images, labels)

    @property
    def _optimiser(self) -> LBFGS:
        return LBFGS(
            outer_steps=self.iterations,
            learning_rate=self.learning_rate,
            history=self.history,
            line_search=self.line_search,
        )
