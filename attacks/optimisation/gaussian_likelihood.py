"""The most probable images: Gaussian noise in the update, a Laplace prior on the images, signed Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from attacks.attack import Attack, Reconstruction
from attacks.engine.descent import Adam
from attacks.labels import check_labels
from attacks.matching.distances import gaussian_likelihood
from attacks.matching.priors import colour_variation
from attacks.matching.problem import MatchingProblem, descended
from attacks.matching.simulation import check_orders
from attacks.observation import Observation
from defenses.task import Task


@dataclass(frozen=True)
class GaussianLikelihood(Attack):
    """Minimise the negative log posterior of the images given the update, per coordinate of the update.

    With o the update in the scale of a mean gradient, p its prediction from b images x of n entries, N coordinates and
    noise of deviation s, known with the defense, the posterior's negative logarithm is |p - o|^2 / 2s^2 + k b n V(x)
    + constant: a Laplace prior on differences of neighbouring pixels in normalised space, of inverse scale k =
    `inverse_scale` in brightness and more in colour; V, a mean over entries, is
    `attacks.matching.priors.colour_variation`. Where no noise is known its variance is profiled out
    (`attacks.matching.distances.gaussian_likelihood`), which weighs the prior less the closer the update is matched.
    What the defense says of the update otherwise is a squared residual of the same variance.
    `orders` of the client's local batches are averaged over (`attacks.matching.simulation`).

    The maximum a posteriori view of gradient inversion is that of Balunovic et al., "Bayesian Framework for Gradient
    Leakage", ICLR 2022. Divided by N the objective has the same size in every network, about 1/2 at the truth under
    known noise; a sum of 10^4 or 10^7 nats would lose the last steps to rounding. Optimiser and box are those of
    `inverting_gradients`: signed steps do not depend on the scale, which noise changes by orders of magnitude.
    """

    joint = True
    takes_own_weights = True
    simulates = True

    iterations: int = 4800
    restarts: int = 1
    inverse_scale: float = 1.0
    learning_rate: float = 0.1
    milestones: tuple[float, ...] = (3 / 8, 5 / 8, 7 / 8)
    decay: float = 0.1
    orders: int = 1

    def __post_init__(self) -> None:
        _ = self._adam
        check_orders(self.orders)
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, got {self.restarts}")
        if not 0 <= self.inverse_scale < float("inf"):
            raise ValueError(
                f"inverse_scale must be at least 0 and finite, got {self.inverse_scale}; 0 leaves the prior out"
            )

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem = self._problem(observation)
        return descended(problem, seeds, self.restarts, self._adam, signed=True, boxed=True)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return self._problem(observation).at(images, labels)

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, milestones=self.milestones, decay=self.decay)

    def _problem(self, observation: Observation) -> MatchingProblem:
        task, known = observation.task, observation.defense
        std = 0.0 if known is None else known.noise_std / task.schedule.update_scale
        pixels = observation.images * math.prod(task.input_shape)
        coordinates = sum(p.numel() for p in task.model.parameters())
        return MatchingProblem(
            observation,
            gaussian_likelihood(std**2),
            self.inverse_scale * pixels / coordinates,
            variation=colour_variation,
            orders=self.orders,
        )
