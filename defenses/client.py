"""The client's side of the protocol: task, batch, update, local training, and what a defense is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from defenses.schedule import Schedule

if TYPE_CHECKING:
    from defenses.accounting import Guarantee
    from defenses.surrogate import Surrogate

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
    """What client and server both know.

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
    """What the client's schedule makes of its batch (McMahan et al., AISTATS 2017).

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


class Defense:
    """The client's behaviour. A subclass is a frozen dataclass that overrides exactly one of three methods.

    - `transform(task, update, rng)` changes an update before it is sent.
    - `share(task, params, batch, rng)` computes the update; honour `task.schedule` through `local_training`.
    - `schedule(schedule)` changes the published work.

    Everything is written in plain PyTorch for one client, on the CPU; all randomness comes from `rng`, and
    arguments are never written to. `prepare(model)` may change the architecture before weights are made,
    `surrogate(task)` says how an attacker who knows the defense adapts to it, and `privacy(schedule, rounds, delta)`
    what a `share` is proven to keep. `share_many` and `transform_many` are for speed alone: the same for many clients.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        role_of(cls)

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        """The update that is sent instead; same names and shapes."""
        raise NotImplementedError

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        """The update of this batch under these weights."""
        raise NotImplementedError

    def schedule(self, schedule: Schedule) -> Schedule:
        """The work that is published instead."""
        raise NotImplementedError

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        """`transform` of t clients' updates (t, *shape), each with its own generator: the same to rounding, sooner."""
        raise NotImplementedError

    def share_many(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        """`share` of t clients, images (t b c h w) and labels (t b), as (t, *shape): the same to rounding, sooner."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> nn.Module:
        """The architecture that this defense can work with; by default the one given."""
        return model

    def surrogate(self, task: Task) -> Surrogate | None:
        """What an attacker who knows this defense and its strength simulates; None: nobody has said, unaudited."""
        return None

    def privacy(self, schedule: Schedule, rounds: int, delta: float) -> Guarantee | None:
        """What a `share` proves of each image after `rounds` updates under the published `schedule`; None: no proof."""
        return None


ROLES = ("schedule", "share", "transform")
"""In the order in which a chain applies them."""


def role_of(defense: type[Defense]) -> str:
    """Which of the three methods a defense implements; raises TypeError unless it is exactly one."""
    own = [role for role in ROLES if getattr(defense, role) is not getattr(Defense, role)]
    if len(own) != 1:
        found = " and ".join(own) or "none of them"
        raise TypeError(f"defense {defense.__name__} implements {found}; implement exactly one of {', '.join(ROLES)}")
    return own[0]
