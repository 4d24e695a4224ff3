"""Scores agree with brute force, with scikit-image, and with what can be computed by hand."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bench.trial import metrics
from bench.trial.identification import identification


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def scored(
    reconstruction: Tensor, truth: Tensor, pool: Tensor | None = None, own: Tensor | None = None
) -> metrics.Scores:
    labels = torch.zeros(truth.shape[:2], dtype=torch.long)
    if pool is None:
        pool, own = truth.flatten(0, 1), torch.arange(labels.numel()).view(labels.shape)
    return metrics.score(reconstruction, truth, labels, labels, pool, labels - 1 if own is None else own)


def test_rounding_keeps_every_uint8_image() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(metrics.quantise(metrics.from_uint8(every).float()), every)
    assert metrics.quantise(torch.tensor([-1.0, 2.0])).tolist() == [0, 255]


def test_pixels_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="diverged"):
        metrics.quantise(torch.tensor([0.5, torch.nan]))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(b=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_assignment_is_the_best_of_all_permutations(b: int, seed: int) -> None:
    guess, truth = images(b, 1, 3, 3, seed=seed).double(), images(b, 1, 3, 3, seed=seed + 1).double()

    def cost(perm: tuple[int, ...]) -> float:
        return float((guess[list(perm)] - truth).square().sum())

    assert tuple(metrics.assign(guess, truth).tolist()) == min(permutations(range(b)), key=cost)


def test_a_three_cycle_is_undone_and_not_applied_twice() -> None:
    truth = images(2, 3, 3, 12, 12)
    order = [1, 2, 0]
    found = scored(truth[:, order], truth)
    assert found["matched"].tolist() == [[2, 0, 1], [2, 0, 1]]
    assert (found["psnr_db"] == metrics.PSNR_CAP_DB).all()


CYCLES = [[1, 2, 0], [2, 0, 1], [1, 2, 0, 3], [3, 1, 0, 2, 4], [1, 2, 0, 4, 5, 3], [2, 0, 1, 4, 3, 5]]
"""Each with a cycle of three, which is not its own inverse."""


@pytest.mark.parametrize("order", CYCLES, ids=str)
def test_noisy_guesses_in_a_three_cycle_find_their_images(order: list[int]) -> None:
    """`guess[perm[i]]` belongs to `truth[i]`: the inverse of the order in which the guesses were put."""
    truth = images(1, len(order), 1, 12, 12)
    blurred = (truth.float() * 0.7 + 0.3 * images(1, len(order), 1, 12, 12, seed=1)).to(torch.uint8)
    found = scored(blurred[:, order], truth)
    assert found["matched"][0].tolist() == [order.index(i) for i in range(len(order))]
    np.testing.assert_array_equal(found["mse"], scored(blurred, truth)["mse"])
    assert found["identified"].all()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(order=st.integers(2, 6).flatmap(lambda b: st.permutations(range(b))), seed=st.integers(0, 2**31))
def test_the_order_of_the_guesses_changes_no_metric(order: list[int], seed: int) -> None:
    b = len(order)
    truth, guess = images(2, b, 3, 12, 12, seed=seed), images(2, b, 3, 12, 12, seed=seed + 1)
    guess[:, 0] = truth[:, 0] // 2 + 10  # one that can be told
    once, again = scored(guess, truth), scored(guess[:, order], truth)
    for name in ("mse", "psnr_db", "ssim", "identified", "recovered", "label_accuracy"):
        np.testing.assert_array_equal(once[name], again[name])


def test_one_good_guess_scores_for_one_image_only() -> None:
    """The private images are much alike, so that the one good guess is the nearest to each of them."""
    truth = images(1, 1, 3, 12, 12).expand(-1, 3, -1, -1, -1) // 2 + images(1, 3, 3, 12, 12, seed=1) // 32
    guess = torch.cat([truth[:, 1:2], images(1, 2, 3, 12, 12, seed=2)], dim=1)
    distance = (guess[0, None].double() - truth[0, :, None].double()).square().flatten(2).mean(2)
    assert distance.argmin(1).tolist() == [0, 0, 0]  # the case is what it claims to be
    found = scored(guess, truth)
    assert sorted(found["matched"][0].tolist()) == [0, 1, 2]
    assert found["matched"][0, 1] == 0
    assert (found["psnr_db"] > 20).tolist() == [[False, True, False]]


def test_an_exact_image_is_capped_and_disturbs_no_other() -> None:
    truth, guess = images(4, 3, 12, 12) / 255, images(4, 3, 12, 12, seed=1) / 255
    guess[2] = truth[2]
    together = metrics.psnr(guess, truth)
    assert together[2] == metrics.PSNR_CAP_DB
    alone = torch.cat([metrics.psnr(guess[i : i + 1], truth[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    torch.testing.assert_close(metrics.ssim(guess, truth)[:2], metrics.ssim(guess[:2], truth[:2]))
    assert metrics.ssim(guess, truth)[2] == pytest.approx(1)


def test_a_uniform_error_of_a_tenth_is_twenty_decibels() -> None:
    assert metrics.psnr(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5)).item() == pytest.approx(
        20, abs=1e-5
    )


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 28, 28), (2, 3, 11, 17)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape: tuple[int, ...]) -> None:
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    truth = images(*shape) / 255
    guess = (0.7 * truth + 0.3 * images(*shape, seed=1) / 255).double()
    pairs = [(g.numpy(), t.double().numpy()) for g, t in zip(guess, truth, strict=True)]
    slow_ssim = [
        structural_similarity(
            t, g, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=0
        )
        for g, t in pairs
    ]
    slow_psnr = [peak_signal_noise_ratio(t, g, data_range=1) for g, t in pairs]
    np.testing.assert_allclose(metrics.ssim(guess, truth), slow_ssim, atol=1e-6)
    np.testing.assert_allclose(metrics.psnr(guess, truth), slow_psnr, atol=1e-6)


def test_small_images_have_no_ssim_and_the_reason_is_given() -> None:
    found = scored(images(1, 2, 1, 8, 8), images(1, 2, 1, 8, 8, seed=1))
    assert np.isnan(found["ssim"]).all()
    assert np.isnan(found["recovered"]).all()
    assert "11 pixels" in found["nulls"]["ssim"]
    assert np.isfinite(found["psnr_db"]).all()


def test_recovery_needs_both_similarity_and_decibels() -> None:
    found = metrics.is_recovered(torch.tensor([0.5, 0.49, 0.9, torch.nan]), torch.tensor([20.0, 30.0, 19.9, 30.0]))
    assert found[:3].tolist() == [1, 0, 0]
    assert found[3].isnan()


def test_labels_are_compared_as_multisets() -> None:
    guess, truth = torch.tensor([[1, 1, 2], [5, 4, 3]]), torch.tensor([[1, 2, 2], [3, 4, 5]])
    assert metrics.label_accuracy(guess, truth).tolist() == pytest.approx([2 / 3, 1])


def test_relative_error_of_a_zero_truth_is_null() -> None:
    found = metrics.relative_error(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]]))
    assert found[0] == pytest.approx(0.75)
    assert found[1].isnan()


def test_identification_ignores_brightness_and_contrast() -> None:
    truth, pool = images(3, 3, 8, 8), images(5, 3, 8, 8, seed=1)
    assert identification((truth // 4) + 60, truth, pool).all()
    assert not identification(pool[:3], truth, pool).any()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_identifies_nothing(value: int) -> None:
    truth = images(2, 3, 8, 8)
    grey = torch.full_like(truth, value)
    assert not identification(grey, truth, images(4, 3, 8, 8, seed=1)).any()
    # Not even a constant private image, when another candidate is constant too.
    assert not identification(grey, grey, torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).any()


def test_a_copy_in_the_pool_is_a_tie_and_fails() -> None:
    truth = images(3, 3, 8, 8)
    assert identification(truth, truth, truth[:1]).tolist() == [False, True, True]


def test_a_block_identifies_in_a_fixed_pool_of_equal_chance_for_all() -> None:
    truth, others = images(2, 2, 3, 12, 12), images(7, 3, 12, 12, seed=1)
    flat, guess = truth.flatten(0, 1), images(4, 3, 12, 12, seed=2)
    pool = torch.cat([flat[:2], others])  # the first two private images are in it, the other two are not
    own = torch.tensor([[0, 1], [-1, -1]])
    found = scored(truth, truth, pool, own)
    assert found["identified"].all()
    assert found["identification_pool"] == 9
    assert found["identification_chance"] == 1 / 9
    slow = []
    for i in range(4):
        rest = torch.cat([pool[:i], pool[i + 1 :]]) if i < 2 else pool[:-1]
        assert len(rest) == 8
        slow.append(bool(identification(guess[i : i + 1], flat[i : i + 1], rest)))
    block = scored(guess[:, None], flat[:, None], pool, own.view(4, 1))["identified"]
    assert block.ravel().tolist() == slow


def test_identification_by_chance_succeeds_once_in_n() -> None:
    truth, guess, pool = images(200, 1, 4, 4), images(200, 1, 4, 4, seed=1), images(3, 1, 4, 4, seed=2)
    assert 0.15 < identification(guess, truth, pool).double().mean() < 0.35


def test_lpips_is_null_with_a_reason_and_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    large = torch.rand(1, 3, 64, 64)
    value, reason = metrics.lpips(large, large)
    assert value is None
    assert metrics.LPIPS_BACKBONE in reason
    value, reason = metrics.lpips(large[..., :32, :32], large[..., :32, :32])
    assert value is None
    assert "64 pixels" in reason


def test_lpips_says_that_pixels_lie_in_zero_to_one_and_takes_grey_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(net_type: str, reduction: str, normalize: bool) -> torch.nn.Module:
        assert (net_type, reduction, normalize) == ("alex", "none", True)
        return Difference()

    class Difference(torch.nn.Module):
        def forward(self, guess: Tensor, truth: Tensor) -> Tensor:
            assert guess.shape == truth.shape == (1, 3, 64, 64)
            return (guess - truth).abs().mean()

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / metrics.LPIPS_BACKBONE).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", network)
    truth = torch.zeros(2, 1, 64, 64)
    value, reason = metrics.lpips(truth + torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), truth)
    assert reason == ""
    assert value is not None
    assert value.tolist() == [0, 0.5]


def test_score_refuses_images_that_were_not_rounded() -> None:
    with pytest.raises(ValueError, match="quantise"):
        scored(torch.rand(1, 1, 3, 12, 12), images(1, 1, 3, 12, 12))
