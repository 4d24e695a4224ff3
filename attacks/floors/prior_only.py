"""A floor: the paper's optimisation without the gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from attacks.attack import Attack, Reconstruction
from attacks.engine.descent import Adam, descend
from attacks.labels import believed_labels
from attacks.matching.problem import MatchingProblem
from attacks.observation import Observation


@dataclass(frozen=True)
class PriorOnly(Attack):
    """A control: minimise the total variation alone, with the settings of `inverting_gradients`."""

    control = True

    iterations: int = 4800
    tv_weight: float = 1e-4
    learning_rate: float = 0.1
    milestones: tuple[float, ...] = (3 / 8, 5 / 8, 7 / 8)
    decay: float = 0.1

    def __post_init__(self) -> None:
        _ = self._adam

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = self._problem(observation)
        start = {"images": problem.start(seeds, 1)["images"]}
        # The evidence holds labels alone: not even the update's shape enters.
        evidence = {"labels": believed_labels(observation)}
        found = descend(problem.objective, start, evidence, self._adam, signed=True, box=problem.box())
        images = observation.task.denormalise(found.variables["images"]).clamp(0, 1)
        return Reconstruction(images, evidence["labels"], found.objective, found.start, found.trace)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor:
        variables = {"images": observation.task.normalise(images)}
        return vmap(self._problem(observation).objective)(variables, {"labels": labels})

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, milestones=self.milestones, decay=self.decay)

    def _problem(self, observation: Observation) -> MatchingProblem:
        return MatchingProblem(observation, None, self.tv_weight)
