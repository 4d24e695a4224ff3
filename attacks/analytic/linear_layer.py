"""Analytic recovery of the inputs of a fully connected layer from the rows of its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor, nn
from torch.func import functional_call

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.engine.descent import Adam, LaneObjective, descend
from attacks.engine.lanes import Lanes, normal_starts
from attacks.labels import believed_labels, classification_layer, recovered_labels
from attacks.matching.priors import total_variation
from attacks.observation import Observation, gradient_scale
from defenses.task import Params, Task

MOST_ROWS = 1024
"""Rows compared with each other, those with the largest bias gradients; memory and time grow with the square."""
SAME = 1e-3
"""Relative distance under which two rows' ratios are taken for the same image."""


def inputs_behind(weight: Tensor, bias: Tensor, images: int, rows: Tensor | None = None) -> Tensor:
    """Estimate the inputs (b d) from one layer's gradients: weight (out d), bias (out,).

    dW_i / db_i is the input itself in every row where one image is alone. For one image all rows agree and are
    weighted by db_i, the least-squares estimate under noise: sum_i db_i dW_i / sum_i db_i^2. For several, rows
    whose ratios agree belong to one image, since mixtures differ from row to row; the rest is filled with single
    rows, largest bias first, and then with the mean over all rows. `rows` (b,), when every row is a class, names
    the row that each image dominates: its label's. Rows with zero bias gradient are skipped.
    """
    if images == 1:
        return _weighted(weight, bias)[None]
    if rows is not None:
        usable = bias[rows] != 0
        ratios = weight[rows] / torch.where(usable, bias[rows], 1)[:, None]
        return torch.where(usable[:, None], ratios, _weighted(weight, bias))
    order = bias.abs().argsort(descending=True)[:MOST_ROWS]
    order = order[bias[order] != 0]
    if len(order) == 0:
        return weight.new_zeros(images, weight.shape[1])
    ratios = (weight[order] / bias[order, None]).double()  # differences of nearly equal rows need the digits
    squares = ratios.square().sum(1)
    distances = squares[:, None] + squares[None] - 2 * ratios @ ratios.T
    same = distances <= SAME**2 * torch.minimum(squares[:, None], squares[None])
    groups: list[Tensor] = []
    taken = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    for row in range(len(order)):
        if not taken[row]:
            members = same[row] & ~taken
            taken |= members
            groups.append(members.nonzero()[:, 0])
    # Python's sort is stable: groups of one size keep the order of their largest bias gradient.
    groups.sort(key=len, reverse=True)
    found = [_weighted(weight[order[g]], bias[order[g]]) for g in groups[:images]]
    found += [_weighted(weight, bias)] * (images - len(found))
    return torch.stack(found)


def _weighted(weight: Tensor, bias: Tensor) -> Tensor:
    # The largest entry is divided out first, so that squares of tiny gradients do not underflow.
    bias_share = bias / bias.abs().max().clamp_min(torch.finfo(bias.dtype).tiny)
    power = (bias * bias_share).sum()
    return (bias_share @ weight) / torch.where(power > 0, power, 1)


@dataclass(frozen=True)
class LinearLayer(Attack):
    """Divide the weight gradient of the first `Linear` with a bias by its bias gradient: that is the layer's input.

    Phong et al., "Privacy-Preserving Deep Learning: Revisited and Enhanced", 2017; Geiping et al., NeurIPS 2020,
    proposition 3.1. Where that layer is the first, the input is the image itself, exactly. Elsewhere the input is
    recovered as features, and an image with these features is sought by signed Adam with `iterations` steps and total
    variation weighted by `tv_weight`. Under several local steps the ratio mixes the steps.
    Labels that are not known are recovered by rules, also where others optimise them jointly.
    """

    joint = True

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
        name, layer = first_linear(task)
        labels = _labels(observation)
        features = _observed_features(observation, name, layer, labels)
        if _sees_the_image(task, observation.params, name):
            inputs = features.view(observation.trials, observation.images, *task.input_shape)
            return Reconstruction(task.denormalise(inputs).clamp(0, 1), labels)
        like = next(iter(observation.params.values()))
        start = normal_starts({"images": (observation.images, *task.input_shape)}, seeds, 1, like)
        pixel = like.new_zeros(task.input_shape[0], 1, 1)
        box = (task.normalise(pixel), task.normalise(pixel + 1))
        objective = self._feature_objective(observation, name)
        found = descend(objective, start, {"features": features}, self._adam, signed=True, box=box)
        images = task.denormalise(found.variables["images"]).clamp(0, 1)
        return Reconstruction(
            images, labels, found.objective, found.start, found.trace, features=features, recovered="features"
        )

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        task = observation.task
        name, layer = first_linear(task)
        if _sees_the_image(task, observation.params, name):
            return None
        features = _observed_features(observation, name, layer, _labels(observation))
        own = torch.stack([layer_input(task, observation.params, x, name) for x in images])
        # Each image is asked for the features that are most like its own: which are whose is not part of the update.
        wanted = torch.stack([f[matching(f, o)] for f, o in zip(features, own, strict=True)])
        objective = self._feature_objective(observation, name)
        return torch.func.vmap(objective)({"images": task.normalise(images)}, {"features": wanted})

    def features(self, task: Task, params: Params, images: Tensor) -> Tensor:
        return layer_input(task, params, images, first_linear(task)[0])

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, milestones=(3 / 8, 5 / 8, 7 / 8))

    def _feature_objective(self, observation: Observation, name: str) -> LaneObjective:
        task, params = observation.task, observation.params

        def objective(variables: Lanes, evidence: Lanes) -> Tensor:
            wanted = evidence["features"]
            got = layer_input(task, params, task.denormalise(variables["images"]), name)
            error = (got - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30)
            return error + self.tv_weight * total_variation(variables["images"])

        return objective


def first_linear(task: Task) -> tuple[str, nn.Linear]:
    """Name and module of the first `Linear` with a bias that sees each image once, as one vector.

    Raises `UnsupportedPair` without one: layers that run per position or patch, or never as modules, do not count.
    """
    linears = {n: m for n, m in task.model.named_modules() if isinstance(m, nn.Linear) and m.bias is not None}
    like = next(task.model.parameters())
    caught = _inputs(task, dict(task.model.named_parameters()), like.new_zeros(2, *task.input_shape), linears)
    for name, layer in linears.items():
        if [tuple(seen.shape) for seen in caught[name]] == [(2, layer.in_features)]:
            return name, layer
    raise UnsupportedPair(
        "linear_layer needs a fully connected layer with a bias that sees the whole image, and this model has none"
    )


def layer_input(task: Task, params: Params, images: Tensor, name: str) -> Tensor:
    """The input (n d) of the layer of this name for images (n c h w)."""
    return _inputs(task, params, images, {name: task.model.get_submodule(name)})[name][0]


def matching(features: Tensor, own: Tensor) -> Tensor:
    """The assignment of features (b d) to the rows of `own` (b d) with the least sum of squared distances."""
    distances = torch.cdist(own.double(), features.double()).square()
    return torch.from_numpy(linear_sum_assignment(distances.detach().cpu().numpy())[1]).to(features.device)


def _inputs(task: Task, params: Params, images: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, list[Tensor]]:
    """The inputs of each layer for images (n c h w), one tensor per time that it runs."""
    caught: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [layer.register_forward_pre_hook(_keep_in(caught[name])) for name, layer in layers.items()]
    try:
        functional_call(task.model, params, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return caught


def _keep_in(kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _, inputs: kept.append(inputs[0])


def _observed_features(observation: Observation, name: str, layer: nn.Linear, labels: Tensor) -> Tensor:
    """The layer's input (t b d) as the gradient gives it away."""
    task = observation.task
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


def _sees_the_image(task: Task, params: Params, name: str) -> bool:
    """True if the layer's input is the normalised image itself, tried on a noise image."""
    like = next(iter(params.values()))
    noise = torch.rand((2, *task.input_shape), generator=Generator().manual_seed(0)).to(like)
    with torch.no_grad():
        inputs = layer_input(task, params, noise, name)
    return torch.equal(inputs, task.normalise(noise).flatten(1))


def _labels(observation: Observation) -> Tensor:
    if observation.threat.labels == "known":
        return believed_labels(observation)
    return recovered_labels(observation)
