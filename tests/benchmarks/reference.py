"""The attacks as every public tool runs them: one trial at a time, double backward, the optimisers of torch.optim.

Written as plainly as possible; the oracles for the engine's numbers and the yardstick for its speed.
"""

import torch
from torch.func import functional_call
from torch.nn import functional as F


def start_of(seed, shape, dtype):
    """The starting point of a trial with this seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def invert(task, params, update, labels, start, *, iterations, tv_weight, learning_rate=0.1, signed=True):
    """Images (b c h w) in normalised space after so many iterations, and the objective after each of them.

    Cosine distance and total variation, Adam (Geiping et al., NeurIPS 2020); matches a gradient, or under a
    schedule with epochs a difference of weights.
    """
    x = start.clone().requires_grad_()
    weights = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.Adam([x], lr=learning_rate)
    milestones = [int(iterations * f) for f in (3 / 8, 5 / 8, 7 / 8)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    mean, std = task.model.normalise.mean, task.model.normalise.std
    values = []
    for _ in range(iterations):
        optimiser.zero_grad()
        shared = simulated(task, weights, x * std + mean, labels)
        inner = sum((s * u).sum() for s, u in zip(shared, update.values(), strict=True))
        norms = sum(s.pow(2).sum() for s in shared).sqrt() * sum(u.pow(2).sum() for u in update.values()).sqrt()
        variation = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        objective = 1 - inner / norms + tv_weight * variation
        (x.grad,) = torch.autograd.grad(objective, [x])
        if signed:
            x.grad.sign_()
        optimiser.step()
        scheduler.step()
        with torch.no_grad():
            x.copy_(torch.maximum(torch.minimum(x, (1 - mean) / std), -mean / std))
        values.append(objective.item())
    return x.detach(), values


def invert_euclidean(task, params, update, labels, start, *, outer_steps):
    """Images (b c h w) in normalised space, and the objective at each evaluation.

    Sum of squared differences, L-BFGS at torch's defaults (Zhu et al., NeurIPS 2019).
    """
    x = start.clone().requires_grad_()
    weights = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.LBFGS([x])
    mean, std = task.model.normalise.mean, task.model.normalise.std
    values = []

    def closure():
        optimiser.zero_grad()
        shared = simulated(task, weights, x * std + mean, labels)
        objective = sum((s - u).pow(2).sum() for s, u in zip(shared, update.values(), strict=True))
        (x.grad,) = torch.autograd.grad(objective, [x])
        values.append(objective.item())
        return objective

    for _ in range(outer_steps):
        optimiser.step(closure)
    return x.detach(), values


def simulated(task, weights, images, labels):
    """What a client with these images (b c h w) in [0, 1] would send: tensors in the order of the weights.

    The gradient of its loss, or initial minus final weights after unrolled local steps, each on all images.
    """
    schedule = task.schedule
    assert len(schedule.local_batches) == 1, "one local batch an epoch, so that the order of batches is known"
    current = weights
    for _ in range(schedule.steps):
        loss = F.cross_entropy(functional_call(task.model, current, (images,)), labels)
        gradient = torch.autograd.grad(loss, list(current.values()), create_graph=True)
        if schedule.sends_gradient:
            return gradient
        moved = zip(current.items(), gradient, strict=True)
        current = {name: w - schedule.learning_rate * g for (name, w), g in moved}
    return [weights[name] - current[name] for name in weights]
