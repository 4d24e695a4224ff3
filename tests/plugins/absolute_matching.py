"""A plugin that attacks: gradient matching under another distance."""

from dataclasses import dataclass

import torch

from leakboard import (
    Adam,
    Attack,
    MatchingProblem,
    Observation,
    Reconstruction,
    Task,
    Tensor,
    Update,
    check_labels,
    descend,
)


def absolute_distance(predicted: Update, observed: Update) -> Tensor:
    """Sum of absolute differences over all parameters, a scalar."""
    return torch.stack([(p - observed[name]).abs().sum() for name, p in predicted.items()]).sum()


@dataclass(frozen=True)
class AbsoluteMatching(Attack):
    """Match the gradient's entries by absolute differences with signed Adam; a heuristic."""

    iterations: int = 4800
    tv_weight: float = 1e-4

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = MatchingProblem(observation, absolute_distance, self.tv_weight)
        start, evidence = problem.start(seeds, restarts=1), problem.evidence(restarts=1)
        adam = Adam(self.iterations)
        found = descend(problem.objective, start, evidence, adam, signed=True, box=problem.box())
        return problem.best(found, evidence, restarts=1)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return MatchingProblem(observation, absolute_distance, self.tv_weight).at(images, labels)
