"""Clients to attack in a benchmark: a network of `bench.models.build`, their images, and what the server sees of them.

Needs torch alone (torchvision for its own networks), so that it runs where the rest of the project cannot.
"""

import torch

from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.models.build import untrained
from defenses.schedule import Schedule
from defenses.task import Batch, Task, local_training

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
"""Of CIFAR-10's training pixels."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""What torchvision's networks are trained with."""
NOTHING = torch.Generator()
"""No client here draws anything: one local batch, no defense."""


def observed(model, images, labels, *, classes=10, epochs=0, learning_rate=1e-4, statistics=CIFAR10, dtype=None):
    """What the server sees of as many clients as there are images (t c h w) in [0, 1], one image each, undefended.

    With `epochs` each client takes so many local steps and sends the difference of weights. Weights are drawn from
    seed 0.
    """
    shape = tuple(images.shape[1:])
    network = untrained(model, {}, input_shape=shape, classes=classes, seed=0, **statistics).to(dtype)
    schedule = Schedule(images=1, epochs=epochs, learning_rate=learning_rate)
    task = Task(network, classes, shape, schedule)
    params = {name: p.detach() for name, p in network.named_parameters()}
    batches = [Batch(x[None].to(dtype), y[None]) for x, y in zip(images, labels, strict=True)]
    updates = [local_training(task, params, b, NOTHING, lambda w, part: task.gradient(w, part)) for b in batches]
    stacked = {name: torch.stack([u[name] for u in updates]) for name in params}
    return Observation(task, params, stacked, labels[:, None], ThreatModel(), schedule.update_scale)
