"""The client's work as the attacker computes it, differentiable, and the orders of its local batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import functional_call, grad, vjp, vmap
from torch.nn import functional as F

from attacks.engine.execution import Precision
from defenses.surrogate import Loss
from defenses.task import Params, Task, Update

ORDERS = 1
"""Orders that are averaged over unless an attack says otherwise; 1 is the dummy's own order in every epoch. On
`cifar100-samples` (untrained LeNet, 16 images, 8 to a client in local batches of 4, 2 epochs, learning rate .01, 400
iterations) 4 orders gave 13.21 dB against 13.19 for 1, at three times the cost: the truth's own cosine distance falls
from .004 to .001, the attack's stays above .007."""


def check_orders(orders: int) -> None:
    """Raise ValueError for less than one order."""
    if orders < 1:
        raise ValueError(f"orders must be at least 1, got {orders}; 1 keeps the dummy's own")


def is_drawn(task: Task) -> bool:
    """True if the client draws an order at all: with one local batch per epoch there is none."""
    return len(task.schedule.local_batches) > 1


def slots(task: Task) -> Tensor:
    """The label (b,) of each slot of the dummy: sorted labels would make every local batch of one class."""
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


GradientRule = Callable[[Params, Tensor, Tensor], Update]
"""A local step's gradient, from weights, images (b c h w) in [0, 1] and labels (b,) or probabilities (b classes)."""


def loss_of(task: Task, precision: Precision = "float32") -> Loss:
    """The client's loss; in "bfloat16" the network computes in it, normalisation and cross-entropy in float32."""
    if precision != "bfloat16":
        return task.loss
    network, low = task.model.network, torch.bfloat16
    buffers = {name: b.to(low) if b.is_floating_point() else b for name, b in network.named_buffers()}

    def loss(params: Params, images: Tensor, labels: Tensor) -> Tensor:
        weights = {name.removeprefix("network."): p.to(low) for name, p in params.items()}
        logits = functional_call(network, {**weights, **buffers}, (task.normalise(images).to(low),))
        return F.cross_entropy(logits.float(), labels)

    return loss


def simulated_update(
    task: Task,
    params: Params,
    images: Tensor,
    labels: Tensor,
    gradient: GradientRule | None = None,
    orders: Tensor | None = None,
) -> Update:
    """The update of a dummy batch, images (b c h w) and labels (b,) or probabilities (b classes).

    FedSGD gives the mean gradient. FedAvg unrolls the published local steps (Geiping et al., NeurIPS 2020,
    section 6). The order of the client's local batches is not known: the dummy's own order is used in every epoch, or
    the mean of the updates under `orders` (k epochs b), permutations of the dummy. `gradient` is that of the task's
    loss by default.
    """
    gradient = gradient or grad(task.loss)
    if task.schedule.sends_gradient:
        return gradient(params, images, labels)
    moved = _unmoved(params, orders)
    for part in local_steps(task, orders):
        moved = _moved(task, gradient, params, moved, images, labels, part)
    return _over_orders(moved, orders)


def local_steps(task: Task, orders: Tensor | None = None) -> list[slice | Tensor]:
    """The images of every local step, in order: a slice, or under `orders` (k epochs b) their numbers (k, size)."""
    parts, epochs = task.schedule.local_batches, range(task.schedule.epochs)
    return [part if orders is None else orders[:, epoch, part] for epoch in epochs for part in parts]


def pulled_back(
    task: Task,
    gradient: GradientRule,
    params: Params,
    images: Callable[[Any], tuple[Tensor, Tensor]],
    variables: Any,
    slope: Any,
    orders: Tensor | None = None,
) -> Any:
    """The derivative of a function of the simulated FedAvg update by the variables of the images.

    `images(variables)` are the dummy batch and its labels; `slope(update)` gives the function's derivative by the
    update and its value; `orders` are those of `simulated_update`. Returns the derivative by the variables, and the
    value. The adjoint of the local steps (Griewank & Walther, "Evaluating Derivatives", chapter 12): only the weights
    between steps are kept, and every step is computed again on the way back, so that memory does not grow with the
    number of steps.
    """

    def step(moved: Update, variables: Any, part: slice | Tensor) -> Update:
        return _moved(task, gradient, params, moved, *images(variables), part)

    steps = local_steps(task, orders)
    reached = [_unmoved(params, orders)]
    for part in steps:
        reached.append(step(reached[-1], variables, part))
    last = reached.pop()
    along, value = slope(_over_orders(last, orders))
    (cotangent,) = vjp(lambda moved: _over_orders(moved, orders), last)[1](along)
    total = None
    for part, moved in zip(reversed(steps), reversed(reached), strict=True):
        back = vjp(lambda moved, variables, part=part: step(moved, variables, part), moved, variables)[1]
        cotangent, own = back(cotangent)
        total = own if total is None else {name: total[name] + own[name] for name in own}
    return total, value


def _unmoved(params: Params, orders: Tensor | None) -> Update:
    """Zeros in the parameters' shapes, or (k, *shape) under k orders."""
    lead = () if orders is None else (len(orders),)
    return {name: p.new_zeros(*lead, *p.shape) for name, p in params.items()}


def _moved(
    task: Task,
    gradient: GradientRule,
    params: Params,
    moved: Update,
    images: Tensor,
    labels: Tensor,
    part: slice | Tensor,
) -> Update:
    """The way of one more local step; sums of steps avoid the cancellation of initial minus final weights."""

    def one(moved: Update, part: slice | Tensor) -> Update:
        weights = {name: params[name] - moved[name] for name in params}
        step = gradient(weights, images[part], labels[part])
        return {name: moved[name] + task.schedule.learning_rate * step[name] for name in moved}

    return one(moved, part) if isinstance(part, slice) else vmap(one)(moved, part)


def _over_orders(moved: Update, orders: Tensor | None) -> Update:
    return moved if orders is None else {name: m.mean(0) for name, m in moved.items()}
