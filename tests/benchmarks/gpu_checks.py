"""Whether a GPU in float32 computes what the CPU computes: the objective's gradient, and a whole attack."""

import torch
from clients import observed

from attacks.engine.execution import Execution, executing
from attacks.optimisation.inverting_gradients import InvertingGradients

GRADIENT = 1e-3
"""Largest relative L2 difference of a trial's gradient; on the CPU float32 and float64 differ by up to 7e-5."""
ATTACK = 1e-3
"""After fifty iterations without sign: relative difference of the objective, mean absolute one of pixels in [0, 1];
on the CPU float32 and float64 differ by 2e-6 and 1e-6."""


def checks(images, labels, device, iterations):
    """Rows (name, value, allowed) over the images (t c h w) in [0, 1], each as one client's."""
    attack = InvertingGradients(iterations=iterations, tv_weight=1e-2, signed=False)
    found = []
    for model in ("lenet-zhu", "resnet20"):
        seen = observed(model, images, labels)
        here, there = objective_gradient(attack, seen, "cpu"), objective_gradient(attack, seen, device)
        apart = (here - there).flatten(1).norm(dim=1) / here.flatten(1).norm(dim=1)
        found.append((f"gradient of the objective, {model}", float(apart.max()), GRADIENT))
    seen = observed("lenet-zhu", images, labels)
    here, there = (reconstruction(attack, seen, where) for where in ("cpu", device))
    objective = float((there.objective.cpu() / here.objective - 1).abs().max())
    pixels = float((there.images.cpu() - here.images).abs().mean())
    found.append((f"objective after {iterations} iterations", objective, ATTACK))
    found.append((f"pixels after {iterations} iterations", pixels, ATTACK))
    return found


def objective_gradient(attack, seen, device):
    """The gradient (t 1 c h w) of every trial's objective at a seeded point, on the CPU."""
    shape = (seen.trials, 1, *seen.task.input_shape)
    point = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device).requires_grad_()
    moved = seen.to(device)
    value = attack.objective(moved, point, moved.labels)
    return torch.autograd.grad(value.sum(), point)[0].cpu()


def reconstruction(attack, seen, device):
    """What the attack finds on this device in float32."""
    with executing(Execution(mode="eager", precision="float32")):
        return attack.reconstruct(seen.to(device), list(range(seen.trials)))
