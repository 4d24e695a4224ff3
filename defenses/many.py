"""Many clients at once: what `client.local_training` does, as one tensor program over t clients of one schedule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator
from torch.func import grad, vmap

from defenses.client import Batch, Params, Task, Update


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
