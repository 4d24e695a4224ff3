"""The Gaussian prior around an image: its coordinates, its energy, and the images that make it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import MultivariateNormal

from attacks.public.prior import PIXEL_VARIANCE, Neighbourhoods, energy


@pytest.fixture
def around():
    """Neighbourhoods of 60 images of 6 pixels, the prior around two images, and the covariance that it has."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(60, 6, generator=draw, dtype=torch.float64)
    prior = Neighbourhoods.of(pixels, torch.arange(60) % 3)
    images = torch.rand(1, 2, 6, generator=draw, dtype=torch.float64)
    evidence = prior.evidence(images, torch.tensor([[0, 2]]))
    covariance = evidence["near"] @ evidence["near"].mT + evidence["own"] @ evidence["own"].mT
    covariance = covariance + prior.part_of_all * prior.common @ prior.common.T
    covariance = covariance + PIXEL_VARIANCE * torch.eye(6, dtype=torch.float64)
    return prior, images, evidence, covariance


def test_coordinates_of_an_image_lead_back_to_it(around):
    prior, images, evidence, _ = around
    assert torch.allclose(prior.image(prior.coordinates(images, evidence), evidence), images)


def test_the_energy_is_the_negative_log_density_of_the_prior(around):
    prior, images, evidence, covariance = around
    coordinates = prior.coordinates(images, evidence)
    zero = {name: torch.zeros_like(z) for name, z in coordinates.items()}
    density = MultivariateNormal(evidence["mean"], covariance)
    expected = (density.log_prob(evidence["mean"]) - density.log_prob(images)).sum()
    assert torch.allclose(energy(coordinates) - energy(zero), expected)


def test_no_other_coordinates_of_an_image_have_less_energy(around):
    prior, images, evidence, _ = around
    best = prior.coordinates(images, evidence)
    # Moves along the coordinates that leave the image where it is.
    other = {name: z + 0.1 for name, z in best.items()}
    other["rest"] = other["rest"] + (images - prior.image(other, evidence)) / PIXEL_VARIANCE**0.5
    assert torch.allclose(prior.image(other, evidence), images)
    assert energy(other) > energy(best)


def test_the_mean_is_that_of_the_nearest_images_of_the_label(monkeypatch):
    monkeypatch.setattr("attacks.public.prior.NEIGHBOURS", 2)
    monkeypatch.setattr("attacks.public.prior.FEWEST", 2)
    pixels = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.9, 0.9], [0.0, 0.1], [0.5, 0.4], [0.1, 0.9]])
    prior = Neighbourhoods.of(pixels, torch.tensor([0, 0, 0, 1, 1, 1]))
    found = prior.evidence(torch.tensor([[[0.1, 0.0]]]), torch.tensor([[0]]))
    assert torch.allclose(found["mean"], torch.tensor([[[0.1, 0.0]]]))


def test_a_label_without_public_images_gets_those_of_all(around):
    prior, images, *_ = around
    found = prior.evidence(images, torch.tensor([[0, 9]]))
    assert torch.isfinite(prior.image(prior.coordinates(images, found), found)).all()


def test_a_label_with_few_public_images_narrows_no_other_ones_prior():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(61, 6, generator=draw, dtype=torch.float64)
    labels = torch.cat([torch.arange(60) % 2, torch.tensor([2])])
    images = pixels[None, :1]
    rare = Neighbourhoods.of(pixels, labels).evidence(images, torch.tensor([[0]]))
    alone = Neighbourhoods.of(pixels[:60], labels[:60]).evidence(images, torch.tensor([[0]]))
    assert torch.equal(rare["mean"], alone["mean"])
    assert torch.equal(rare["near"], alone["near"])
    of_all = Neighbourhoods.of(pixels, labels).evidence(images, torch.tensor([[2]]))
    assert all(torch.isfinite(part).all() for part in of_all.values())


THREADED = """
import torch
from attacks.public.prior import Neighbourhoods
torch.set_num_threads(2)
pixels, labels = torch.rand(400, 400), torch.arange(400) % 2
prior, images = Neighbourhoods.of(pixels, labels), torch.rand(20, 1, 400)
around = prior.evidence(images, torch.zeros(20, 1, dtype=torch.long))
print(torch.allclose(prior.image(prior.coordinates(images, around), around), images, atol=1e-4))
"""


def test_many_images_and_two_threads_do_not_hang():
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    ran = subprocess.run(
        [sys.executable, "-c", THREADED], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert ran.stdout.strip() == "True"
