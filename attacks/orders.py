"""The order of the client's local batches, which the attacker does not know."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from defenses.client import Task

ORDERS = 1
"""How many orders are averaged over unless an attack says otherwise; 1 is the dummy's own order in every epoch. On
`cifar100-samples` (untrained LeNet, 16 images, 8 to a client in local batches of 4, 2 epochs, learning rate .01, 400
iterations) 4 orders gave 13.21 dB against 13.19 for 1, at three times the cost: the truth's own cosine distance falls
from .004 to .001, the attack's stays above .007."""


def check_orders(orders: int) -> None:
    """Raise ValueError for less than one order."""
    if orders < 1:
        raise ValueError(f"orders must be at least 1, got {orders}; 1 keeps the dummy's own")


def is_drawn(task: Task) -> bool:
    """Whether the client draws an order at all: with one local batch per epoch there is none."""
    return len(task.schedule.local_batches) > 1


def slots(task: Task) -> Tensor:
    """Which label (b,) each slot of the dummy gets: sorted labels would make every local batch of one class."""
    images = task.schedule.images
    return torch.randperm(images, generator=Generator().manual_seed(0)) if is_drawn(task) else torch.arange(images)


def drawn_orders(task: Task, orders: int) -> Tensor:
    """So many orders of the dummy's slots (orders epochs b), a fresh one for every epoch as the client draws them.

    They come from the attacker's own generator and are the same at every call. Raises ValueError for less than one.
    """
    check_orders(orders)
    rng = Generator().manual_seed(1)
    count = orders * task.schedule.epochs
    return torch.stack([torch.randperm(task.schedule.images, generator=rng) for _ in range(count)]).view(
        orders, task.schedule.epochs, task.schedule.images
    )
