"""What the attacker believes of images before seeing any gradient."""

from __future__ import annotations

from torch import Tensor


def total_variation(images: Tensor) -> Tensor:
    """Anisotropic total variation of images (... h w): mean |dx| plus mean |dy|, a scalar.

    Rudin et al., 1992, in the form of Geiping et al., NeurIPS 2020.
    """
    dx = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    dy = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return dx + dy
