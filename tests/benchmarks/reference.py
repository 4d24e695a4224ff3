"""The paper's attack as every public tool runs it: one trial at a time, double backward, torch.optim.Adam.

Written as plainly as possible; the oracle for the engine's numbers and the yardstick for its speed.
"""

import torch
from torch.func import functional_call
from torch.nn import functional as F


def start_of(seed, shape, dtype):
    """The starting point of a trial with this seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def invert(task, params, update, labels, start, *, iterations, tv_weight, learning_rate=0.1):
    """Images (b c h w) in normalised space after so many iterations, and the objective after each of them."""
    x = start.clone().requires_grad_()
    weights = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimiser = torch.optim.Adam([x], lr=learning_rate)
    milestones = [int(iterations * f) for f in (3 / 8, 5 / 8, 7 / 8)]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, gamma=0.1)
    mean, std = task.model.normalise.mean, task.model.normalise.std
    values = []
    for _ in range(iterations):
        optimiser.zero_grad()
        loss = F.cross_entropy(functional_call(task.model, weights, (x * std + mean,)), labels)
        gradient = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        inner = sum((g * u).sum() for g, u in zip(gradient, update.values(), strict=True))
        norms = sum(g.pow(2).sum() for g in gradient).sqrt() * sum(u.pow(2).sum() for u in update.values()).sqrt()
        variation = (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
        objective = 1 - inner / norms + tv_weight * variation
        (x.grad,) = torch.autograd.grad(objective, [x])
        x.grad.sign_()
        optimiser.step()
        scheduler.step()
        with torch.no_grad():
            x.copy_(torch.maximum(torch.minimum(x, (1 - mean) / std), -mean / std))
        values.append(objective.item())
    return x.detach(), values
