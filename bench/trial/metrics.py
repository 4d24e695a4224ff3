"""Scores of a reconstruction against the private image, from rounded pixels; LPIPS where its weights are there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from bench.trial.identification import identify_in_pool

LPIPS_SMALLEST = 64
"""Pixels a side under which LPIPS is not measured."""
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


PSNR_CAP_DB = 100.0
"""The PSNR of an exact match, above 99.9 dB: that of a 224 x 224 RGB image with one value wrong by 1/255."""
SSIM_WINDOW = 11
"""Pixels a side of the Gaussian window (Wang et al., 2004); smaller images have no SSIM."""


def quantise(images: Tensor) -> Tensor:
    """Pixels in [0, 1] rounded to uint8, values outside clamped; what is stored is what is scored.

    Raises ValueError on NaN or infinity: a diverged attack has a status, not a score.
    """
    if not torch.isfinite(images).all():
        raise ValueError("images hold pixels that are not finite; mark the reconstruction as diverged instead")
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def from_uint8(images: Tensor) -> Tensor:
    """uint8 pixels to float64 in [0, 1]."""
    return images.to(torch.float64) / 255


def assign(guess: Tensor, truth: Tensor) -> Tensor:
    """The one-to-one matching of a client's images with the least total MSE (Kuhn, 1955).

    Both are (b c h w); returns perm (b,) such that `guess[perm[i]]` is matched to `truth[i]`. With trials,
    (t b c h w) gives (t b).
    """
    if truth.dim() == 5:
        return torch.stack([assign(g, t) for g, t in zip(guess, truth, strict=True)])
    # Not by matrix products: their rounding would break ties between equal images.
    exact = "donot_use_mm_for_euclid_dist"
    distance = torch.cdist(truth.flatten(1).double(), guess.flatten(1).double(), compute_mode=exact)
    _, columns = linear_sum_assignment(distance.square().cpu().numpy())
    return torch.as_tensor(columns, device=truth.device)


def mse(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean squared error of each image: (n c h w) twice, pixels in [0, 1], to (n,)."""
    return (guess.double() - truth.double()).square().flatten(1).mean(1)


def psnr(guess: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB.

    Both are (n c h w) with pixels in [0, 1]; returns (n,). An exact match is capped at 100 dB: one value of a
    224 x 224 RGB image that is wrong by 1/255 stands at 99.9 dB.
    """
    return (-10 * mse(guess, truth).log10()).clamp(max=PSNR_CAP_DB)


def ssim(guess: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al., 2004), Gaussian window, mean over channels.

    Both are (n c h w) with pixels in [0, 1]; returns (n,), NaN where a side is under 11 pixels. The map is
    cropped by half a window on each side, which gives scikit-image's figure with gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, data_range=1.
    """
    if min(truth.shape[-2:]) < SSIM_WINDOW:
        return torch.full((len(truth),), torch.nan, dtype=torch.float64, device=truth.device)
    from torchmetrics.functional.image import structural_similarity_index_measure

    found = structural_similarity_index_measure(
        guess.double(), truth.double(), sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    edge = SSIM_WINDOW // 2
    return found[1][..., edge:-edge, edge:-edge].flatten(1).mean(1)


def is_recovered(ssim: Tensor, psnr: Tensor) -> Tensor:
    """1 where SSIM >= 0.5 and PSNR >= 20 dB, else 0; NaN where SSIM is null. Both (n,)."""
    return ((ssim >= 0.5) & (psnr >= 20)).double().masked_fill(ssim.isnan(), torch.nan)


def label_accuracy(guess: Tensor, truth: Tensor) -> Tensor:
    """Share of a client's labels that were found, as multisets: (t b) twice to (t,) in [0, 1]."""
    pairs = zip(guess.tolist(), truth.tolist(), strict=True)
    return torch.tensor([(Counter(g) & Counter(t)).total() / len(t) for g, t in pairs], dtype=torch.float64)


def relative_error(features: Tensor, truth: Tensor) -> Tensor:
    """|features - truth| / |truth| of each row: (n d) twice to (n,); NaN where the truth is zero."""
    norm = truth.double().norm(dim=1)
    error = (features.double() - truth.double()).norm(dim=1) / norm
    return error.masked_fill(norm == 0, torch.nan)


class Scores(TypedDict):
    """Scores of t trials of b images: float64 (t b) aligned with the truth, NaN where null.

    `matched` (t b) holds the position of the reconstruction that was matched to each private image; `nulls`
    says why a metric is null. Identification was among `identification_pool` images, the private one
    included; guessing succeeds with `identification_chance`.
    """

    mse: np.ndarray
    psnr_db: np.ndarray
    ssim: np.ndarray
    lpips: np.ndarray
    label_accuracy: np.ndarray
    identified: np.ndarray
    recovered: np.ndarray
    matched: np.ndarray
    nulls: dict[str, str]
    identification_pool: int
    identification_chance: float


def score(
    reconstruction: Tensor,
    truth: Tensor,
    guessed_labels: Tensor,
    true_labels: Tensor,
    pool: Tensor,
    own: Tensor,
) -> Scores:
    """Score a block: uint8 (t b c h w) twice, labels (t b) twice, `pool` uint8 (m c h w), `own` (t b).

    The reconstructions of a client are matched to its images by the least total MSE, and every metric uses that one
    matching. An image is identified among itself and m - 1 others of `pool`, in which `own` is its position, -1 when it
    is not there; a second copy of it is a tie, and ties fail.
    """
    if {reconstruction.dtype, truth.dtype, pool.dtype} != {torch.uint8}:
        raise ValueError("score takes uint8 images; round them with quantise first")
    if reconstruction.shape != truth.shape:
        shapes = f"reconstruction is {tuple(reconstruction.shape)}, truth {tuple(truth.shape)}"
        raise ValueError(f"{shapes}; both must have the same shape (t b c h w)")
    trials, images = truth.shape[:2]
    matched = assign(reconstruction, truth)
    found = torch.stack([r[m] for r, m in zip(reconstruction, matched, strict=True)]).flatten(0, 1)
    private = truth.flatten(0, 1)
    guess, exact = from_uint8(found), from_uint8(private)
    error, decibels, similarity = mse(guess, exact), psnr(guess, exact), ssim(guess, exact)
    distance, why_not = lpips(guess, exact)
    nulls = {} if distance is not None else {"lpips": why_not}
    if similarity.isnan().all():
        reason = f"SSIM needs images of at least {SSIM_WINDOW} pixels a side"
        nulls |= {"ssim": reason, "recovered": reason}

    def block(values: Tensor) -> np.ndarray:
        return values.double().reshape(trials, images).cpu().numpy()

    return Scores(
        mse=block(error),
        psnr_db=block(decibels),
        ssim=block(similarity),
        lpips=block(torch.full((len(private),), torch.nan) if distance is None else distance),
        label_accuracy=block(label_accuracy(guessed_labels, true_labels).repeat_interleave(images)),
        identified=block(identify_in_pool(found, private, pool, own.flatten())),
        recovered=block(is_recovered(similarity, decibels)),
        matched=matched.cpu().numpy(),
        nulls=nulls,
        identification_pool=len(pool),
        identification_chance=1 / len(pool),
    )
