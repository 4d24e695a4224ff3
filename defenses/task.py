"""The client's side of the protocol: task, batch, update, local training, and the same for many clients at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from defenses.schedule import Schedule

if TYPE_CHECKING:
    pass


Params = dict[str, Tensor]
"""Parameter name -> tensor."""
Update = dict[str, Tensor]
"""Parameter name -> what leaves the device; the names and shapes of the parameters."""


def squared_norm(update: Update) -> Tensor:
    """The square of the Euclidean norm of all entries together, a scalar."""
    return torch.stack([u.square().sum() for u in update.values()]).sum()


class Normalise(nn.Module):
    """The first layer of every model: pixels in [0, 1] to zero mean and unit deviation per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Classifier(nn.Module):
    """A network behind its normalisation: images (b c h w) in [0, 1] to logits (b classes)."""

    def __init__(self, normalise: Normalise, network: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalise(images))


@dataclass(frozen=True)
class Batch:
    """A client's private data: `images` (b c h w) in [0, 1]; `labels` (b,), or soft (b classes)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        return Batch(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Task:
    """The knowledge that client and server share.

    `model` is the architecture in eval mode; its own weights mean nothing, since every call takes `params`.
    `input_shape` is (c, h, w). The loss is mean cross-entropy.
    """

    model: Classifier
    classes: int
    input_shape: tuple[int, int, int]
    schedule: Schedule = field(default_factory=Schedule)

    def logits(self, params: Params, images: Tensor) -> Tensor:
        """Logits (b classes) of images (b c h w) in [0, 1] under `params`."""
        return functional_call(self.model, params, (images,))

    def loss(self, params: Params, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, a scalar; labels (b,) or probabilities (b classes)."""
        return F.cross_entropy(self.logits(params, images), labels)

    def gradient(self, params: Params, batch: Batch) -> Update:
        """Gradient of the mean loss by plain autograd; detached."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        loss = self.loss(leaves, batch.images, batch.labels)
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] to the space in which the attack moves."""
        return self.model.normalise(images)

    def denormalise(self, inputs: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return inputs * self.model.normalise.std + self.model.normalise.mean


GradientRule = Callable[[Params, Batch], Update]


def local_training(task: Task, params: Params, batch: Batch, rng: Generator, gradient: GradientRule) -> Update:
    """The update that the client's schedule makes of its batch (McMahan et al., AISTATS 2017).

    FedSGD returns one gradient. FedAvg runs `epochs` of plain SGD, the order drawn anew from `rng` every
    epoch when there are several local batches, and returns initial minus final weights.
    """
    schedule = task.schedule
    if len(batch) != schedule.images:
        raise ValueError(f"the schedule wants {schedule.images} images per update, the batch has {len(batch)}")
    if schedule.sends_gradient:
        return gradient(params, batch)
    weights = dict(params)
    for _ in range(schedule.epochs):
        slices = schedule.local_batches
        epoch = batch if len(slices) == 1 else batch[torch.randperm(len(batch), generator=rng)]
        for part in slices:
            step = gradient(weights, epoch[part])
            weights = {name: w - schedule.learning_rate * step[name] for name, w in weights.items()}
    return {name: params[name] - weights[name] for name in params}


def local_training_of_many(task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
    """The updates (t, *shape) of t undefended clients: batches of images (t b c h w) and labels (t b).

    One generator a client: each draws from its own what it would draw alone. Equal to `local_training` of one client
    after the other, to rounding.
    """
    schedule = task.schedule
    if schedule.sends_gradient:
        return vmap(grad(task.loss), in_dims=(None, 0, 0))(params, batches.images, batches.labels)
    clients = torch.arange(len(rngs))[:, None]
    step = vmap(grad(task.loss))
    weights = {name: p.expand(len(rngs), *p.shape) for name, p in params.items()}
    for _ in range(schedule.epochs):
        slices, epoch = schedule.local_batches, batches
        if len(slices) > 1:
            order = torch.stack([torch.randperm(schedule.images, generator=rng) for rng in rngs])
            epoch = Batch(batches.images[clients, order], batches.labels[clients, order])
        for part in slices:
            gradient = step(weights, epoch.images[:, part], epoch.labels[:, part])
            weights = {name: w - schedule.learning_rate * gradient[name] for name, w in weights.items()}
    return {name: params[name] - weights[name] for name in params}
