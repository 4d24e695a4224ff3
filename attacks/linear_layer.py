"""Analytic recovery of the input of a fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.descent import Adam, Lanes, descend
from attacks.labels import believed_labels, classification_layer, recovered_labels
from attacks.observation import Observation, gradient_scale
from attacks.priors import total_variation
from attacks.rows import inputs_behind
from attacks.starts import normal_starts
from defenses.client import Params, Task


@dataclass(frozen=True)
class LinearLayer(Attack):
    """Divide the weight gradient of the first `Linear` with a bias by its bias gradient: that is the layer's input.

    Phong et al., "Privacy-Preserving Deep Learning: Revisited and Enhanced", 2017; Geiping et al., NeurIPS 2020,
    proposition 3.1. Where that layer is the first, the input is the image itself, exactly. Elsewhere the input is
    recovered as features, and an image with these features is sought by signed Adam with `iterations` steps and total
    variation weighted by `tv_weight`. Under several local steps the ratio mixes the steps.
    Labels that are not known are recovered by rules, also where others optimise them jointly.
    """

    iterations: int = 1000
    tv_weight: float = 1e-2
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        _ = self._adam
        if not 0 <= self.tv_weight < float("inf"):
            raise ValueError(f"tv_weight must be at least 0 and finite, got {self.tv_weight}")

    def check(self, task: Task, labels: str) -> None:
        first_linear(task)
        if labels != "known":
            classification_layer(task)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        task = observation.task
        labels = _labels(observation)
        features = self._observed_features(observation, labels)
        if _sees_the_image(task, observation.params):
            inputs = features.view(observation.trials, observation.images, *task.input_shape)
            return Reconstruction(task.denormalise(inputs).clamp(0, 1), labels)
        like = next(iter(observation.params.values()))
        start = normal_starts({"images": (observation.images, *task.input_shape)}, seeds, 1, like)
        pixel = like.new_zeros(task.input_shape[0], 1, 1)
        box = (task.normalise(pixel), task.normalise(pixel + 1))
        objective = self._feature_objective(observation)
        found = descend(objective, start, {"features": features}, self._adam, signed=True, box=box)
        images = task.denormalise(found.variables["images"]).clamp(0, 1)
        return Reconstruction(
            images, labels, found.objective, found.start, found.trace, features=features, recovered="features"
        )

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        if _sees_the_image(observation.task, observation.params):
            return None
        variables = {"images": observation.task.normalise(images)}
        evidence = {"features": self._observed_features(observation, _labels(observation))}
        return torch.func.vmap(self._feature_objective(observation))(variables, evidence)

    def features(self, task: Task, params: Params, images: Tensor) -> Tensor:
        return layer_input(task, params, images)

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, milestones=(3 / 8, 5 / 8, 7 / 8))

    def _feature_objective(self, observation: Observation):
        task, params = observation.task, observation.params

        def objective(variables: Lanes, evidence: Lanes) -> Tensor:
            wanted = evidence["features"]
            got = layer_input(task, params, task.denormalise(variables["images"]))
            error = (got - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30)
            return error + self.tv_weight * total_variation(variables["images"])

        return objective

    def _observed_features(self, observation: Observation, labels: Tensor) -> Tensor:
        """The layer's input (t b d) as the gradient gives it away."""
        task = observation.task
        name, layer = first_linear(task)
        scale = gradient_scale(observation)
        weights = observation.updates[f"{name}.weight"] / scale[:, None, None]
        biases = observation.updates[f"{name}.bias"] / scale[:, None]
        is_last = layer is [m for m in task.model.modules() if isinstance(m, nn.Linear)][-1]
        rows_are_classes = is_last and layer.out_features == task.classes
        return torch.stack(
            [
                inputs_behind(w, b, observation.images, rows=y if rows_are_classes else None)
                for w, b, y in zip(weights, biases, labels, strict=True)
            ]
        )


def first_linear(task: Task) -> tuple[str, nn.Linear]:
    """Name and module of the first `Linear` with a bias; raises `UnsupportedPair` without one."""
    for name, module in task.model.named_modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            return name, module
    raise UnsupportedPair("linear_layer needs a fully connected layer with a bias, and this model has none")


def layer_input(task: Task, params: Params, images: Tensor) -> Tensor:
    """The input (n d) of the first `Linear` with a bias for images (n c h w)."""
    caught: list[Tensor] = []
    handle = first_linear(task)[1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        functional_call(task.model, params, (images,))
    finally:
        handle.remove()
    return caught[0].flatten(1)


def _sees_the_image(task: Task, params: Params) -> bool:
    """Whether the layer's input is the normalised image itself, tried on a noise image."""
    like = next(iter(params.values()))
    noise = torch.rand((2, *task.input_shape), generator=Generator().manual_seed(0)).to(like)
    with torch.no_grad():
        inputs = layer_input(task, params, noise)
    return torch.equal(inputs, task.normalise(noise).flatten(1))


def _labels(observation: Observation) -> Tensor:
    if observation.threat.labels == "known":
        return believed_labels(observation)
    return recovered_labels(observation)
