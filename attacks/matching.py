"""Gradient matching: what is minimised, over which variables, and which restart is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.func import vmap
from torch.nn import functional as F

from attacks.attack import Reconstruction
from attacks.descent import Descended, Lanes
from attacks.labels import classification_layer, recovered_labels
from attacks.observation import Observation, gradient_scale
from attacks.priors import total_variation
from attacks.simulation import simulated_update
from attacks.starts import normal_starts
from defenses.client import Task, Update

Distance = Callable[[Update, Update], Tensor]


def cosine_distance(predicted: Update, observed: Update) -> Tensor:
    """1 - cosine over all parameters at once, in [0, 2] (Geiping et al., NeurIPS 2020, eq. 4); 1 if either is zero."""
    inner = _sum(p * o for p, o in _pairs(predicted, observed))
    predicted_square = _sum(p.square() for p in predicted.values()).clamp_min(_TINY)
    observed_square = _sum(o.square() for o in observed.values()).clamp_min(_TINY)
    return 1 - inner * (predicted_square.rsqrt() * observed_square.rsqrt())


def squared_distance(predicted: Update, observed: Update) -> Tensor:
    """Sum of squared differences over all parameters (Zhu et al., "Deep Leakage from Gradients", NeurIPS 2019)."""
    return _sum((p - o).square() for p, o in _pairs(predicted, observed))


_TINY = 1e-30  # below the square of any float32 gradient that matters; its root is still representable


def _pairs(predicted: Update, observed: Update) -> list[tuple[Tensor, Tensor]]:
    return [(p, observed[name]) for name, p in predicted.items()]


def _sum(terms) -> Tensor:
    return torch.stack([term.sum() for term in terms]).sum()


@dataclass(frozen=True)
class MatchingProblem:
    """Find images whose simulated update is close to the observed one.

    `distance` compares updates; None leaves the gradient out (the prior alone). `tv_weight` weighs the total
    variation of the images in normalised space.
    """

    observation: Observation
    distance: Distance | None
    tv_weight: float = 0.0

    def objective(self, variables: Lanes, evidence: Lanes) -> Tensor:
        """Of one lane: "images" (b c h w) in normalised space and, when joint, "logits" (b classes)."""
        value = self.tv_weight * total_variation(variables["images"])
        if self.distance is None:
            return value
        task = self.observation.task
        labels = variables["logits"].softmax(-1) if "logits" in variables else evidence["labels"]
        predicted = simulated_update(task, self.observation.params, task.denormalise(variables["images"]), labels)
        if not task.schedule.sends_gradient:
            predicted = {name: p / task.schedule.update_scale for name, p in predicted.items()}
        return self.distance(predicted, {name: evidence[f"update.{name}"] for name in predicted}) + value

    def evidence(self, restarts: int) -> Lanes:
        """What the objective of each lane is judged by, updates in the scale of a mean gradient.

        Lanes are trials x restarts, trial by trial.
        """
        seen = self.observation
        scale = gradient_scale(seen)
        lanes = {f"update.{name}": u / scale.view(-1, *[1] * (u.dim() - 1)) for name, u in seen.updates.items()}
        if seen.threat.labels != "joint":
            labels = recovered_labels(seen) if seen.labels is None else seen.labels
            lanes["labels"] = labels[:, _slots(seen.task)]
        return {name: v.repeat_interleave(restarts, dim=0) for name, v in lanes.items()}

    def start(self, seeds: list[int], restarts: int) -> Lanes:
        """Standard normal images in normalised space and, when joint, standard normal label logits."""
        seen = self.observation
        shapes: dict[str, tuple[int, ...]] = {"images": (seen.images, *seen.task.input_shape)}
        if seen.threat.labels == "joint":
            shapes["logits"] = (seen.images, seen.task.classes)
        like = next(iter(seen.params.values()))
        return normal_starts(shapes, seeds, restarts, like)

    def box(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest valid pixel in normalised space, each (c 1 1)."""
        normalise = self.observation.task.normalise
        pixel = next(iter(self.observation.params.values())).new_zeros(self.observation.task.input_shape[0], 1, 1)
        return normalise(pixel), normalise(pixel + 1)

    def best(self, found: Descended, evidence: Lanes, restarts: int) -> Reconstruction:
        """Each trial's restart with the lowest objective of the attack; the truth has no say.

        `evidence` is that of the descent.
        """
        trials = self.observation.trials
        # A restart that left the real numbers must never win by comparing as smallest.
        ranked = found.objective.nan_to_num(nan=float("inf")).view(trials, restarts)
        lane = ranked.argmin(dim=1) + torch.arange(trials, device=ranked.device) * restarts
        images = self.observation.task.denormalise(found.variables["images"][lane]).clamp(0, 1)
        logits = found.variables.get("logits")
        labels = evidence["labels"][lane] if logits is None else logits[lane].argmax(-1)
        trace = {i: value[lane] for i, value in found.trace.items()}
        return Reconstruction(images, labels, found.objective[lane], found.start[lane], trace)

    def at(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """The objective (t,) at images (t b c h w) in [0, 1] and labels (t b).

        None where several local batches were drawn in an order that nobody knows: then no order is the truth's.
        """
        if len(self.observation.task.schedule.local_batches) > 1:
            return None
        variables = {"images": self.observation.task.normalise(images)}
        evidence = self.evidence(1)
        if self.observation.threat.labels == "joint":
            certain = F.one_hot(labels, self.observation.task.classes).to(images.dtype)
            variables["logits"] = certain.clamp_min(1e-12).log()
        else:
            evidence["labels"] = labels
        return vmap(self.objective)(variables, evidence)


def _slots(task: Task) -> Tensor:
    """Which label each slot of the dummy gets: sorted labels would make every local batch of one class."""
    images = task.schedule.images
    if len(task.schedule.local_batches) == 1:
        return torch.arange(images)
    return torch.randperm(images, generator=Generator().manual_seed(0))


def check_labels(task: Task, labels: str) -> None:
    """Raise `UnsupportedPair` where the labels have to be recovered and the network does not allow it."""
    if labels == "recovered":
        classification_layer(task)
