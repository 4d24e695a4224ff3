"""Controls look at no gradient."""

from dataclasses import replace

import pytest
import torch

from attacks.attack import Attack, UnsupportedPair
from attacks.floors.class_mean import ClassMean
from attacks.floors.dataset_mean import DatasetMean
from attacks.floors.grey_image import GreyImage
from attacks.floors.prior_only import PriorOnly


@pytest.mark.parametrize("control", [GreyImage(), DatasetMean(), ClassMean(), PriorOnly(iterations=3)])
def test_another_update_gives_the_same_bytes(case, control):
    assert control.control
    seen = replace(case(trials=2).observation, class_means=torch.rand(10, 3, 32, 32))
    other = replace(seen, updates={name: torch.randn_like(u) for name, u in seen.updates.items()})
    found = [control.reconstruct(s, [4, 5]) for s in (seen, other)]
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].labels, found[1].labels)


def test_grey_and_mean_are_what_they_say(case):
    seen = case(trials=2).observation
    assert (GreyImage().reconstruct(seen, [0, 1]).images == 0.5).all()
    mean = DatasetMean().reconstruct(seen, [0, 1]).images
    assert torch.allclose(mean[1, 0, :, 7, 9], torch.tensor([0.4914672, 0.4822617, 0.4467701]))


def test_grey_scores_the_published_decibels(case):
    """The authors' code gives 14.08 dB for CIFAR-10 test image 0 against grey."""
    seen = case(trials=1)
    error = (GreyImage().reconstruct(seen.observation, [0]).images - seen.images).square().mean()
    assert float(-10 * error.log10()) == pytest.approx(14.08, abs=0.005)


def test_class_mean_takes_the_label_s_image_and_needs_them(case):
    seen = case(trials=3).observation
    means = torch.rand(10, 3, 32, 32)
    found = ClassMean().reconstruct(replace(seen, class_means=means), [0, 1, 2]).images
    assert torch.equal(found[:, 0], means[seen.labels[:, 0]])
    with pytest.raises(UnsupportedPair, match="training images"):
        ClassMean().reconstruct(seen, [0, 1, 2])


def test_an_attack_without_reconstruct_is_refused_when_it_is_defined():
    with pytest.raises(TypeError, match="Empty does not implement reconstruct"):
        type("Empty", (Attack,), {})
