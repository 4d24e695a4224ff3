"""Beliefs about images before any gradient is seen: smoothness, and the statistics of batch-norm layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.engine.execution import current
from attacks.engine.lanes import Lanes
from attacks.matching.simulation import loss_of
from attacks.observation import Observation
from defenses.batch_norm import batch_norm_inputs, batch_norms, moments
from defenses.task import Params

ImagePrior = Callable[[Params, Tensor, Lanes], Tensor]
"""A scalar, from the weights, images (b c h w) in normalised space and the evidence of one lane."""
BRIGHTNESS_AND_COLOUR = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (2**-0.5, 0.0, -(2**-0.5)),
    (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)
"""Orthonormal axes of red, green and blue along which natural images hardly correlate: brightness and two opponent
colours (Ruderman, Cronin & Chiao, "Statistics of Cone Responses to Natural Images", JOSA A 1998)."""
INVERSE_SCALES = (1.0, 4.3, 6.9)
"""Steepness of a Laplace prior on differences of neighbours along each axis, brightness being 1: the inverse ratios of
their mean magnitudes, .333, .077 and .049 in normalised space on `cifar100-samples`."""
SMALLEST_STEP = 0.05
"""Differences of neighbours, in normalised space, below which the prior is quadratic. Of 20 `cifar100-samples`, clipped
to norm 1 under noise of deviation .01, untrained LeNet, 400 signed steps: .05 with these colours gives 15.55 dB at an
inverse scale of .9 (15.60 at .6, 15.35 at 1.3), plain total variation 14.78, and 15.14 with only its kink rounded."""


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation of images (... h w): mean |dx| plus mean |dy|, a scalar.

    Rudin et al., 1992, in the form of Geiping et al., NeurIPS 2020.
    """
    dx = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    dy = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return dx + dy


def colour_variation(images: Tensor) -> Tensor:
    """Total variation of images (... c h w) in which colours vary less than brightness, a scalar.

    A mean over all entries as `total_variation`, of the differences along `BRIGHTNESS_AND_COLOUR` weighed by
    `INVERSE_SCALES`; images of other than 3 channels are taken as they are. A difference d counts sqrt(d^2 + e^2) - e
    with e = `SMALLEST_STEP` (Charbonnier et al., "Two Deterministic Half-Quadratic Regularization Algorithms for
    Computed Imaging", ICIP 1994): without the kink at 0 signed steps settle instead of jumping over it.
    """
    axes, weights = list(images.unbind(-3)), [1.0] * images.shape[-3]
    if len(axes) == 3:
        red, green, blue = axes
        axes = [r * red + g * green + b * blue for r, g, b in BRIGHTNESS_AND_COLOUR]
        weights = [*INVERSE_SCALES]
    smooth = lambda d: ((d.square() + SMALLEST_STEP**2).sqrt() - SMALLEST_STEP).mean()  # noqa: E731
    terms = [
        weight * (smooth(x[..., :, 1:] - x[..., :, :-1]) + smooth(x[..., 1:, :] - x[..., :-1, :]))
        for weight, x in zip(weights, axes, strict=True)
    ]
    return torch.stack(terms).mean()


EPSILON = 1e-5
"""Added to variances that are divided by, as batch norm itself does."""


def batch_norm_prior(observation: Observation) -> ImagePrior | None:
    """The distance of the inputs of batch-norm layers from the statistics that the threat model grants.

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
