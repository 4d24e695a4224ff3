"""Everything that the server sees and knows: from here on nothing reaches the private batch."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from attacks.black_box import BlackBox, Lessons
from attacks.threat import ThreatModel
from defenses.surrogate import Simulation
from defenses.task import Batch, Params, Task, Update, squared_norm


@dataclass(frozen=True, eq=False)
class PublicImages:
    """Public images that the server holds, none of them attacked: uint8 `images` (n c h w), int64 `labels` (n,).

    `digest` is the SHA-256 of both.
    """

    images: Tensor
    labels: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> PublicImages:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Observation:
    """The updates of t trials, all of one task and one set of weights.

    `updates` holds (t, *shape) for every parameter, the mean over the releases where the server sees several. `each`
    holds (t, releases, *shape), every one of them, where they differ and the simulation of the defense looks at a
    release: then no mean says all, and objectives add. Elsewhere it is None: of Gaussian noise the mean is a sufficient
    statistic, and releases without noise are equal. `labels` (t b) is each trial's sorted multiset when the
    threat model grants it, else None. `task.schedule` is the client's when it is known; otherwise the task
    claims one gradient of as many images. `scale` is what a weight difference has to be divided by to compare with
    a gradient, learning rate x steps: 1 when a gradient was sent, None when the schedule is not known. `class_means`
    (classes c h w), of public training images, are handed to controls alone. With `own_weights` every trial has weights
    of its own: `params` holds (t, *shape) too. `defense` simulates the defense where the threat model grants its
    knowledge, and is None where it does not or nobody has written a surrogate; its `noise_std` is that of `updates`.
    `batch_statistics`, named as by
    `defenses.batch_norm.batch_statistics`, holds (t, channels) of every batch-norm layer where the client sends them.
    `public` are the images that the server holds where the threat model grants any. `black_box` is the client, with its
    defense where that is known, as the server can run it, and `lessons` keeps what was learned from it and from public
    images; both are None where the server has neither.
    """

    task: Task
    params: Params
    updates: Update
    labels: Tensor | None
    threat: ThreatModel
    scale: float | None = 1.0
    class_means: Tensor | None = None
    own_weights: bool = False
    defense: Simulation | None = None
    batch_statistics: dict[str, Tensor] | None = None
    public: PublicImages | None = None
    black_box: BlackBox | None = None
    lessons: Lessons | None = None
    each: Update | None = None

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

    def learn(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result of public images alone that is kept under this key; made where nothing is kept."""
        if self.lessons is None:
            return make()
        return self.lessons.learn((key, str(self.device), next(iter(self.params.values())).dtype), make)

    def __getitem__(self, trials: slice | Tensor) -> Observation:
        """The same observation of some of the trials."""
        updates = {name: u[trials] for name, u in self.updates.items()}
        params = {name: p[trials] for name, p in self.params.items()} if self.own_weights else self.params
        labels = None if self.labels is None else self.labels[trials]
        sent = self.batch_statistics
        own = {"batch_statistics": None if sent is None else {name: s[trials] for name, s in sent.items()}}
        own["each"] = None if self.each is None else {name: u[trials] for name, u in self.each.items()}
        return replace(self, params=params, updates=updates, labels=labels, **own)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Observation:
        """The same observation on another device; the architecture is copied, never moved in place."""
        model = deepcopy(self.task.model).to(device=device, dtype=dtype).eval()
        model.zero_grad(set_to_none=True)
        task = replace(self.task, model=model)
        sent = self.batch_statistics
        return replace(
            self,
            task=task,
            params={name: p.to(device, dtype) for name, p in self.params.items()},
            updates={name: u.to(device, dtype) for name, u in self.updates.items()},
            labels=None if self.labels is None else self.labels.to(device),
            class_means=None if self.class_means is None else self.class_means.to(device, dtype),
            batch_statistics=None if sent is None else {name: s.to(device, dtype) for name, s in sent.items()},
            public=None if self.public is None else self.public.to(device),
            each=None if self.each is None else {name: u.to(device, dtype) for name, u in self.each.items()},
        )


def joined(observations: list[Observation]) -> Observation:
    """The trials of several observations as one.

    They must agree in all but updates, releases, labels, batch statistics and weights: in the architecture with its
    buffers, the schedule, the threat model, the scale, the defense and the public images. Weights are shared when they
    are equal, else every trial gets its own.
    """
    first = observations[0]
    stacked = lambda fields: {name: torch.cat([field[name] for field in fields]) for name in fields[0]}  # noqa: E731
    params, own_weights = first.params, False
    if any(not torch.equal(p, o.params[name]) for o in observations[1:] for name, p in params.items()):
        own_weights = True
        params = stacked([{n: p.expand(o.trials, *p.shape) for n, p in o.params.items()} for o in observations])
    labels = None if first.labels is None else torch.cat([o.labels for o in observations if o.labels is not None])
    updates = stacked([o.updates for o in observations])
    sent = [o.batch_statistics for o in observations if o.batch_statistics is not None]
    own = {"own_weights": own_weights, "batch_statistics": stacked(sent) if sent else None}
    if any(o.each is not None for o in observations):
        own["each"] = stacked([o.each or as_often(o.updates, o.threat.releases) for o in observations])
    return replace(first, params=params, updates=updates, labels=labels, **own)


def as_often(updates: Update, releases: int) -> Update:
    """Updates (t, *shape) as so many equal releases (t, releases, *shape) of every client."""
    return {name: u[:, None].expand(len(u), releases, *u.shape[1:]) for name, u in updates.items()}


def gradient_scale(observation: Observation) -> Tensor:
    """The divisor (t,) that brings each trial's update to the scale of a mean gradient.

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
        params = (
            {name: p[trial] for name, p in observation.params.items()}
            if observation.own_weights
            else observation.params
        )
        expected = squared_norm(task.gradient(params, Batch(noise, labels))).sqrt()
        observed = squared_norm({name: u[trial] for name, u in observation.updates.items()}).sqrt()
        scales.append(observed / expected)
    return torch.stack(scales).clamp_min(torch.finfo(like.dtype).tiny)
