"""What natural images are taken to look like."""

import pytest
import torch
from torch.func import grad

from attacks.matching.priors import (
    BRIGHTNESS_AND_COLOUR,
    INVERSE_SCALES,
    SMALLEST_STEP,
    colour_variation,
    total_variation,
)
from bench.data.load import load_dataset


def ramp(colour, step=1.0):
    """One step to the right everywhere along a colour, none downwards."""
    return torch.tensor(colour).view(3, 1, 1) * step * torch.arange(4.0).expand(1, 3, 4)


@pytest.mark.parametrize("axis", range(3))
def test_a_step_along_an_axis_counts_with_its_inverse_scale(axis):
    smooth = (4 + SMALLEST_STEP**2) ** 0.5 - SMALLEST_STEP
    found = float(colour_variation(ramp(BRIGHTNESS_AND_COLOUR[axis], 2.0)))
    assert found == pytest.approx(INVERSE_SCALES[axis] * smooth / 3, rel=1e-5)


def test_the_axes_are_orthonormal():
    axes = torch.tensor(BRIGHTNESS_AND_COLOUR, dtype=torch.float64)
    assert torch.allclose(axes @ axes.T, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_the_inverse_scales_are_those_of_real_images():
    data = load_dataset("cifar100-samples")
    images = data.images(range(20)).double()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (data.mean, data.std))
    axes = torch.einsum(
        "ac,nchw->nahw", torch.tensor(BRIGHTNESS_AND_COLOUR, dtype=torch.float64), (images - mean) / std
    )
    sizes = (axes.diff(dim=-1).abs().mean((0, 2, 3)) + axes.diff(dim=-2).abs().mean((0, 2, 3))) / 2
    assert torch.allclose(sizes[0] / sizes, torch.tensor(INVERSE_SCALES, dtype=torch.float64), rtol=0.02)


def test_without_colours_large_steps_count_as_in_total_variation():
    images = 100 * torch.randn(2, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    assert float(colour_variation(images)) == pytest.approx(float(total_variation(images)), rel=2e-3)


def test_the_slope_is_finite_and_zero_where_nothing_varies():
    slope = grad(colour_variation)(torch.full((1, 3, 4, 4), 0.3))
    assert float(slope.abs().max()) == 0
