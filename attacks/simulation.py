"""The client's work as the attacker computes it: differentiable, for one trial, to be mapped by torch.func."""

from __future__ import annotations

from torch import Tensor
from torch.func import grad

from defenses.client import Params, Task, Update


def simulated_update(task: Task, params: Params, images: Tensor, labels: Tensor) -> Update:
    """The update of a dummy batch, images (b c h w) and labels (b,) or probabilities (b classes).

    FedSGD gives the mean gradient. FedAvg unrolls the published local steps (Geiping et al., NeurIPS 2020,
    section 6); the order of the client's local batches is not known, so the dummy's own order is used in every
    epoch.
    """
    gradient = grad(task.loss)
    schedule = task.schedule
    if schedule.sends_gradient:
        return gradient(params, images, labels)
    # Summing the steps avoids the cancellation of initial minus final weights.
    moved: Update | None = None
    for _ in range(schedule.epochs):
        for part in schedule.local_batches:
            weights = params if moved is None else {name: params[name] - moved[name] for name in params}
            step = gradient(weights, images[part], labels[part])
            step = {name: schedule.learning_rate * g for name, g in step.items()}
            moved = step if moved is None else {name: moved[name] + step[name] for name in params}
    assert moved is not None, "a schedule has at least one epoch and one batch here"
    return moved
