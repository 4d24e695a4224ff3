"""What the attacker believes of images before seeing any gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacks.lanes import Lanes
from defenses.client import Params

ImagePrior = Callable[[Params, Tensor, Lanes], Tensor]
"""Of the weights, images (b c h w) in normalised space and the evidence of one lane, a scalar."""
BRIGHTNESS_AND_COLOUR = (
    (3**-0.5, 3**-0.5, 3**-0.5),
    (2**-0.5, 0.0, -(2**-0.5)),
    (6**-0.5, -2 * 6**-0.5, 6**-0.5),
)
"""Orthonormal axes of red, green and blue along which natural images hardly correlate: brightness and two opponent
colours (Ruderman, Cronin & Chiao, "Statistics of Cone Responses to Natural Images", JOSA A 1998)."""
INVERSE_SCALES = (1.0, 4.3, 6.9)
"""How steep a Laplace prior on differences of neighbours is along each axis, brightness being 1: the inverse ratios of
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
