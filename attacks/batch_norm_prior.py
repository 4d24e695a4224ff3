"""What the statistics of batch-norm layers say of images before any gradient is seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attacks.execution import current
from attacks.lanes import Lanes
from attacks.observation import Observation
from attacks.priors import ImagePrior
from attacks.simulation import loss_of
from defenses.batch_norm import batch_norm_inputs, batch_norms, moments
from defenses.client import Params

EPSILON = 1e-5
"""Added to variances that are divided by, as batch norm itself does."""


def batch_norm_prior(observation: Observation) -> ImagePrior | None:
    """How far the inputs of batch-norm layers are from the statistics that the threat model grants.

    The mean over layers of the Euclidean distance between the dummy batch's means and the target's, plus that between
    the variances (Yin et al., CVPR 2021), both in the target's own units and per channel: means in standard deviations,
    variances relative. The paper sums plain distances; so measured, wide and deep layers with large activations would
    outweigh all others. The target is what the client sent of its batch, or else the model's running statistics, but
    for layers whose statistics were never updated: they say nothing. None where no layer has a target.
    """
    task, known = observation.task, observation.threat.batch_norm
    targets: dict[str, tuple[Tensor, Tensor] | None] = {}
    for name, layer in batch_norms(task.model).items():
        if known == "batch":
            targets[name] = None
        elif known == "running" and (updated := _updated(layer)) is not None:
            targets[name] = updated
    if not targets:
        return None

    def prior(params: Params, images: Tensor, evidence: Lanes) -> Tensor:
        # The labels do not reach the layers; the loss is asked because it knows the precision of the network.
        labels = images.new_zeros(len(images), dtype=torch.long)
        with batch_norm_inputs(task.model) as inputs:
            loss_of(task, current().precision)(params, task.denormalise(images), labels)
        terms: list[Tensor] = []
        for name, target in targets.items():
            sent = target or (evidence[f"{name}.mean"], evidence[f"{name}.variance"])
            mean, variance = moments(inputs[name].to(images.dtype))
            unit = sent[1] + EPSILON
            terms += [_norm((mean - sent[0]) * unit.rsqrt()), _norm((variance - sent[1]) / unit)]
        return torch.stack(terms).sum() / len(targets)

    return prior


def _updated(layer: nn.Module) -> tuple[Tensor, Tensor] | None:
    """The running mean and variance (channels,) of a layer, if it has any and they are not those that it began with."""
    mean, variance = layer.running_mean, layer.running_var
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return None
    return (mean, variance) if mean.any() or (variance != 1).any() else None


def _norm(difference: Tensor) -> Tensor:
    # The offset keeps the slope finite where a dummy meets its target.
    return (difference.square().mean() + 1e-12).sqrt()
