"""What the attacker believes of images before seeing any gradient."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attacks.lanes import Lanes
from defenses.client import Params

ImagePrior = Callable[[Params, Tensor, Lanes], Tensor]
"""Of the weights, images (b c h w) in normalised space and the evidence of one lane, a scalar."""


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation of images (... h w): mean |dx| plus mean |dy|, a scalar.

    Rudin et al., 1992, in the form of Geiping et al., NeurIPS 2020.
    """
    dx = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    dy = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return dx + dy
