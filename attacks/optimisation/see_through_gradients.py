"""Yin et al.'s attack: squared distance, priors on images and batch norm, and seeds that pull each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.func import grad, vmap

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.engine.descent import Adam, LaneGradient, descend
from attacks.engine.lanes import Lanes
from attacks.engine.solve import Descended
from attacks.labels import check_labels, distinct_labels
from attacks.matching.distances import relative_squared_distance
from attacks.matching.priors import ImagePrior, batch_norm_prior
from attacks.matching.problem import MatchingProblem
from attacks.observation import Observation
from defenses.task import Params, Task


@dataclass(frozen=True)
class SeeThroughGradients(Attack):
    """Match the gradient's entries under priors on images, batch-norm statistics and a group of seeds (GradInversion).

    Yin et al., "See through Gradients: Image Batch Recovery via GradInversion", CVPR 2021. The objective of one seed is
    the squared distance as a fraction of the observed squared norm, plus `tv_weight` x total variation, `norm_weight` x
    mean square of the images in normalised space, and `batch_norm_weight` x `batch_norm_prior`, of which the threat
    model's `batch_norm` says what is known. The `group_size` seeds of a trial descend together: `group_weight` x their
    mean squared deviation from the pixel-wise mean of the group is added. The answer is the seed with the lowest
    objective of its own, without the group's term.

    Iterations, learning rate, warm-up, cosine, box, `norm_weight` and `batch_norm_weight` are those of the public
    re-implementation `breaching`, config/attack/seethroughgradients.yaml, as digits: there they stand beside the plain
    squared distance times 1e-4, half the mean square, and a sum over layers of which the first counts tenfold. The
    others were chosen on `cifar100-samples`, never on images that are scored, with an untrained lenet-zhu
    and 400 iterations: `tv_weight` of .01, .03, .1, .3 and 1 (8 images one by one: 14.1, 16.9, 18.5, 17.9 and 16.4 dB;
    clients of 4: 12.2, 14.1, 16.0, 15.9 and 15.2) and `group_weight` of 0, .01, .1, 1 and 10 (16.0, 16.2, 16.3, 16.0
    and 15.3). On a resnet20 such short runs do not tell batch-norm weights apart (10.67 dB at 0, 10.64 at .1). The
    size of the group is a matter of cost.

    Left out: the registration of the group by RANSAC-flow (the pixel-wise mean is kept, which is blurred where members
    put images of one class into different slots) and Langevin noise. Labels that the threat model wants recovered
    follow the paper's rule for batches without repetition.
    """

    joint = True
    takes_own_weights = True
    simulates = True

    iterations: int = 20_000
    group_size: int = 4
    tv_weight: float = 0.1
    norm_weight: float = 1e-6
    batch_norm_weight: float = 0.1
    group_weight: float = 0.1
    learning_rate: float = 0.1
    warmup: int = 50

    def __post_init__(self) -> None:
        _ = self._adam
        if self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}; 1 is a seed by itself")
        for name in ("tv_weight", "norm_weight", "batch_norm_weight", "group_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)
        if labels == "recovered" and task.schedule.images > task.classes:
            raise UnsupportedPair(
                f"{task.schedule.images} images cannot have different labels of {task.classes} classes, as the rule "
                'that recovers them wants; set threat.labels = "known"'
            )

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        problem, size = self._problem(observation), self.group_size
        start = {name: v.unflatten(0, (-1, size)) for name, v in problem.start(seeds, size).items()}
        forms = {name: self._of_group(form) for name, form in problem.gradients.items()}
        found = descend(
            problem.objective, start, problem.evidence(1), self._adam, signed=False, box=problem.box(), gradients=forms
        )
        return problem.best(_by_member(found), problem.evidence(size), size)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        return self._problem(observation).at(images, labels)

    def _of_group(self, member: LaneGradient) -> LaneGradient:
        """The same form for a group, variables (g ...): the slopes of its objective, and each member's own value (g,).

        The group's objective is the mean over members plus the group's term. The values are what members are judged by.
        """

        def gradient(variables: Lanes, evidence: Lanes) -> tuple[Lanes, Tensor]:
            slopes, values = vmap(member, in_dims=(0, None))(variables, evidence)
            slopes = {name: s / self.group_size for name, s in slopes.items()}
            pull = grad(lambda images: self.group_weight * deviation(images))(variables["images"])
            return {**slopes, "images": slopes["images"] + pull}, values

        return gradient

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, warmup=self.warmup, annealed=True)

    def _problem(self, observation: Observation) -> MatchingProblem:
        if observation.threat.labels == "recovered":
            observation = replace(observation, labels=distinct_labels(observation))
        prior = self._prior(batch_norm_prior(observation) if self.batch_norm_weight else None)
        return MatchingProblem(observation, relative_squared_distance, self.tv_weight, prior)

    def _prior(self, statistics: ImagePrior | None) -> ImagePrior:
        def prior(params: Params, images: Tensor, evidence: Lanes) -> Tensor:
            value = self.norm_weight * images.square().mean()
            if statistics is None:
                return value
            return value + self.batch_norm_weight * statistics(params, images, evidence)

        return prior


def deviation(images: Tensor) -> Tensor:
    """The mean square of what separates each member's pixels, (g ...), from the mean of the group; a scalar."""
    return (images - images.mean(0)).square().mean()


def _by_member(found: Descended) -> Descended:
    """The same with members instead of groups as lanes."""
    return Descended(
        {name: v.flatten(0, 1) for name, v in found.variables.items()},
        found.objective.flatten(),
        found.start.flatten(),
        {i: values.flatten() for i, values in found.trace.items()},
    )
