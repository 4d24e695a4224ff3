"""The client's work as the attacker computes it: differentiable, for one trial, to be mapped by torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vjp
from torch.nn import functional as F

from attacks.execution import Precision
from defenses.client import Params, Task, Update
from defenses.surrogate import Loss

GradientRule = Callable[[Params, Tensor, Tensor], Update]
"""Of weights, images (b c h w) in [0, 1] and labels (b,) or probabilities (b classes), what a local step descends."""


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
    task: Task, params: Params, images: Tensor, labels: Tensor, gradient: GradientRule | None = None
) -> Update:
    """The update of a dummy batch, images (b c h w) and labels (b,) or probabilities (b classes).

    FedSGD gives the mean gradient. FedAvg unrolls the published local steps (Geiping et al., NeurIPS 2020,
    section 6); the order of the client's local batches is not known, so the dummy's own order is used in every
    epoch. `gradient` is that of the task's loss by default.
    """
    gradient = gradient or grad(task.loss)
    if task.schedule.sends_gradient:
        return gradient(params, images, labels)
    moved = _unmoved(params)
    for part in local_steps(task):
        moved = _moved(task, gradient, params, moved, images[part], labels[part])
    return moved


def local_steps(task: Task) -> list[Any]:
    """The images of every local step, in order."""
    return [part for _ in range(task.schedule.epochs) for part in task.schedule.local_batches]


def pulled_back(
    task: Task,
    gradient: GradientRule,
    params: Params,
    images: Callable[[Any], tuple[Tensor, Tensor]],
    variables: Any,
    slope: Any,
) -> Any:
    """How a function of the simulated FedAvg update changes with what the images are made of.

    `images(variables)` are the dummy batch and its labels; `slope(update)` gives the function's derivative by the
    update and its value. Returns the derivative by the variables, and the value. The adjoint of the local steps
    (Griewank & Walther, "Evaluating Derivatives", chapter 12): only the weights between steps are kept, and every
    step is computed again on the way back, so that memory does not grow with the number of steps.
    """

    def step(moved: Update, variables: Any, part: Any) -> Update:
        dummy, labels = images(variables)
        return _moved(task, gradient, params, moved, dummy[part], labels[part])

    steps = local_steps(task)
    reached = [_unmoved(params)]
    for part in steps:
        reached.append(step(reached[-1], variables, part))
    cotangent, value = slope(reached.pop())
    total = None
    for part, moved in zip(reversed(steps), reversed(reached), strict=True):
        back = vjp(lambda moved, variables, part=part: step(moved, variables, part), moved, variables)[1]
        cotangent, own = back(cotangent)
        total = own if total is None else {name: total[name] + own[name] for name in own}
    return total, value


def _unmoved(params: Params) -> Update:
    return {name: torch.zeros_like(p) for name, p in params.items()}


def _moved(task: Task, gradient: GradientRule, params: Params, moved: Update, images: Tensor, labels: Tensor) -> Update:
    """How far one more local step leads; sums of steps avoid the cancellation of initial minus final weights."""
    weights = {name: params[name] - moved[name] for name in params}
    step = gradient(weights, images, labels)
    return {name: moved[name] + task.schedule.learning_rate * step[name] for name in moved}
