"""The paper's attack: cosine distance, total variation, signed Adam."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from attacks.attack import Attack, Reconstruction
from attacks.engine.descent import Adam
from attacks.labels import check_labels
from attacks.matching.distances import cosine_distance
from attacks.matching.problem import MatchingProblem, descended
from attacks.matching.simulation import check_orders
from attacks.observation import Observation
from defenses.task import Task


@dataclass(frozen=True)
class InvertingGradients(Attack):
    """Match the direction of the gradient under a total-variation prior with signed Adam.

    Geiping et al., "Inverting Gradients - How easy is it to break privacy in federated learning?", NeurIPS 2020,
    section 4 and appendix. Every constant is the paper's or its public code's: `tv_weight` is 1e-4 in the scripts,
    1e-2 in the table of the untrained LeNet, 1e-1 on ImageNet. The last iterate is kept, of the restart with the
    lowest objective. `orders` of the client's local batches are averaged over (`attacks.matching.simulation`).
    """

    joint = True
    takes_own_weights = True
    simulates = True

    iterations: int = 4800
    restarts: int = 1
    tv_weight: float = 1e-4
    learning_rate: float = 0.1
    milestones: tuple[float, ...] = (3 / 8, 5 / 8, 7 / 8)
    decay: float = 0.1
    signed: bool = True
    boxed: bool = True
    orders: int = 1

    def __post_init__(self) -> None:
        _ = self._adam
        check_orders(self.orders)
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")
        if not 0 <= self.tv_weight < float("inf"):
            raise ValueError(f"tv_weight must be at least 0 and finite, got {self.tv_weight}")

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = self._problem(observation)
        return descended(problem, seeds, self.restarts, self._adam, signed=self.signed, boxed=self.boxed)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return self._problem(observation).at(images, labels)

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, milestones=self.milestones, decay=self.decay)

    def _problem(self, observation: Observation) -> MatchingProblem:
        return MatchingProblem(observation, cosine_distance, self.tv_weight, orders=self.orders)
