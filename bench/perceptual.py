"""Perceptual distance, where its weights are already on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

LPIPS_SMALLEST = 64
LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"


def lpips(guess: Tensor, truth: Tensor) -> tuple[Tensor | None, str]:
    """Perceptual distance of each image (LPIPS with AlexNet, Zhang et al., 2018), and why it is missing.

    Both are (n c h w) with pixels in [0, 1]; returns ((n,), "") or (None, reason). Never downloads: the
    backbone must lie in torch hub's checkpoint folder.
    """
    if min(truth.shape[-2:]) < LPIPS_SMALLEST:
        return (
            None,
            f"LPIPS needs images of at least {LPIPS_SMALLEST} pixels a side, got {min(truth.shape[-2:])}",
        )
    if truth.shape[1] not in (1, 3):
        return None, f"LPIPS needs 1 or 3 channels, got {truth.shape[1]}"
    if not (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE).is_file():
        return (
            None,
            f"LPIPS needs {LPIPS_BACKBONE} in torch hub's checkpoint folder; nothing is downloaded here",
        )
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    # `normalize` says that the inputs are in [0, 1]; the network expects [-1, 1].
    metric = LearnedPerceptualImagePatchSimilarity("alex", reduction="none", normalize=True).to(truth.device)
    pairs = zip(_rgb(guess), _rgb(truth), strict=True)
    with torch.no_grad():
        return torch.stack([metric(g[None], t[None]).reshape(()).double() for g, t in pairs]), ""


def _rgb(images: Tensor) -> Tensor:
    return images.float().expand(-1, 3, -1, -1)
