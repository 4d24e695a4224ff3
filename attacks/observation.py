"""What the server sees and knows: from here on nothing reaches the private batch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from attacks.threat import ThreatModel
from defenses.client import Batch, Params, Task, Update


@dataclass(frozen=True)
class Observation:
    """The updates of t trials, all of one task and one set of weights.

    `updates` holds (t, *shape) for every parameter. `labels` (t b) is each trial's sorted multiset when the
    threat model grants it, else None. `task.schedule` is the client's when it is known; otherwise the task
    claims one gradient of as many images. `scale` is what a weight difference has to be divided by to compare with
    a gradient, learning rate x steps: 1 when a gradient was sent, None when the schedule is not known. `class_means`
    (classes c h w), of public training images, are handed to controls alone.
    """

    task: Task
    params: Params
    updates: Update
    labels: Tensor | None
    threat: ThreatModel
    scale: float | None = 1.0
    class_means: Tensor | None = None

    @property
    def trials(self) -> int:
        return len(next(iter(self.updates.values())))

    @property
    def images(self) -> int:
        """Images behind each update: b."""
        return self.task.schedule.images

    @property
    def device(self) -> torch.device:
        return next(iter(self.params.values())).device

    def __getitem__(self, trials: slice | Tensor) -> Observation:
        """The same observation of some of the trials."""
        updates = {name: u[trials] for name, u in self.updates.items()}
        return replace(self, updates=updates, labels=None if self.labels is None else self.labels[trials])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Observation:
        """The same observation on another device; the architecture is copied, never moved in place."""
        model = deepcopy(self.task.model).to(device=device, dtype=dtype).eval()
        model.zero_grad(set_to_none=True)
        task = replace(self.task, model=model)
        return replace(
            self,
            task=task,
            params={name: p.to(device, dtype) for name, p in self.params.items()},
            updates={name: u.to(device, dtype) for name, u in self.updates.items()},
            labels=None if self.labels is None else self.labels.to(device),
            class_means=None if self.class_means is None else self.class_means.to(device, dtype),
        )


def gradient_scale(observation: Observation) -> Tensor:
    """What each trial's update (t,) has to be divided by to compare with a mean gradient.

    Without knowledge of the schedule it is estimated: the ratio of the update's norm to that of a gradient on noise
    images of the attacker's own.
    """
    like = next(iter(observation.params.values()))
    if observation.scale is not None:
        return like.new_full((observation.trials,), observation.scale)
    task = observation.task
    noise = torch.rand((observation.images, *task.input_shape), generator=Generator().manual_seed(0)).to(like)
    scales = []
    for trial in range(observation.trials):
        labels = torch.full((len(noise), task.classes), 1 / task.classes).to(like)
        if observation.labels is not None:
            labels = observation.labels[trial]
        expected = _norm(task.gradient(observation.params, Batch(noise, labels)))
        observed = _norm({name: u[trial] for name, u in observation.updates.items()})
        scales.append(observed / expected)
    return torch.stack(scales).clamp_min(torch.finfo(like.dtype).tiny)


def _norm(update: Update) -> Tensor:
    return torch.stack([u.square().sum() for u in update.values()]).sum().sqrt()
