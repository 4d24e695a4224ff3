"""The black-box decoder: it needs nothing from a defense's author, and learns nothing from the attacked release."""

from dataclasses import dataclass, replace

import pytest
import torch

from attacks.attack import UnsupportedPair
from attacks.learned.black_box_decoder import BlackBoxDecoder
from attacks.learned.posterior_mean import PosteriorMean
from attacks.observation import PublicImages
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.chain import Chain
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.zeros import Zeros

KNOWN = ThreatModel(defense_known=True, public=True)


@dataclass(frozen=True)
class KeyedPermutation(Defense):
    """A permutation of each tensor's entries by a public key: no surrogate, and nothing is hidden."""

    def transform(self, task, update, rng):
        key = torch.Generator().manual_seed(7)
        return {n: u.flatten()[torch.randperm(u.numel(), generator=key)].view_as(u) for n, u in update.items()}


@dataclass(frozen=True)
class Signs(Defense):
    """The signs of the entries, without a surrogate."""

    def transform(self, task, update, rng):
        return {name: u.sign() for name, u in update.items()}


@dataclass(frozen=True)
class OwnUnits(Defense):
    """Each entry times a public factor from .01 to 100, on top of a public constant, without a surrogate."""

    def transform(self, task, update, rng):
        key = torch.Generator().manual_seed(7)
        return {n: u * 10 ** (4 * torch.rand(u.shape, generator=key) - 2) + 0.1 for n, u in update.items()}


@pytest.fixture
def attacked(case):
    """An observation of digits under a defense, with public images and the client, and the private images."""

    def make(defense):
        images, labels = load_dataset("digits").training()
        own = case("mlp", "digits", 6, defense=(defense,), threat=KNOWN, hidden=[16])
        box = OwnBlackBox(Chain((defense,)), own.task, own.params)
        public = PublicImages(images, labels, "digits")
        return replace(own.observation, public=public, black_box=box), own.images

    return make


def with_few_public_images(observation):
    public = observation.public
    few = replace(public, images=public.images[:600], labels=public.labels[:600])
    return replace(observation, public=few)


def error(images, truth):
    return float((images - truth).square().mean())


def of_class_means(observation):
    means = torch.stack([observation.public.images[observation.public.labels == k].float().mean(0) for k in range(10)])
    return means[observation.labels] / 255


@pytest.mark.parametrize("defense", [KeyedPermutation(), Signs(), GradientPruning(0.9)], ids=repr)
def test_a_deterministic_defense_hides_little_from_it(attacked, defense):
    observation, truth = attacked(defense)
    found = BlackBoxDecoder().reconstruct(observation, [0] * 6)
    assert error(found.images, truth) < 0.6 * error(of_class_means(observation), truth)


def test_a_permutation_by_a_public_key_hides_nothing_more_than_no_defense(attacked):
    permuted, plain = (error(BlackBoxDecoder().reconstruct(seen, [0] * 6).images, truth)
                       for seen, truth in map(attacked, (KeyedPermutation(), NoDefense())))  # fmt: skip
    assert permuted == pytest.approx(plain, rel=0.3)


def test_public_units_of_every_entry_hide_nothing_more_than_no_defense(attacked):
    converted, plain = (BlackBoxDecoder().reconstruct(with_few_public_images(seen), [0] * 6).images
                        for seen, _ in map(attacked, (OwnUnits(), NoDefense())))  # fmt: skip
    assert error(converted, plain) < 1e-4


def test_noise_that_nobody_states_hides_little_more_than_stated_noise(attacked):
    observation, truth = attacked(GaussianNoise(0.5))
    stated = PosteriorMean().reconstruct(observation, [0] * 6)
    found = BlackBoxDecoder().reconstruct(observation, [0] * 6)
    assert found.choices["expected_share"] > 0
    assert error(found.images, truth) < 1.15 * error(stated.images, truth)
    assert error(found.images, truth) < 0.9 * error(of_class_means(observation), truth)


def test_of_nothing_it_finds_the_class_means(attacked):
    observation, _ = attacked(Zeros())
    found = BlackBoxDecoder().reconstruct(observation, [0] * 6).images
    assert error(found, of_class_means(observation)) < 1e-3


def test_other_attacked_images_change_no_choice(attacked):
    observation, _ = attacked(Signs())
    assert observation.labels is not None
    others = {name: u.flip(0) * 3 for name, u in observation.updates.items()}
    swapped = replace(observation, updates=others, labels=(observation.labels + 1) % 10)
    own, other = (BlackBoxDecoder().reconstruct(seen, [0] * 6).choices for seen in (observation, swapped))
    assert own.keys() == other.keys()
    assert own == pytest.approx(other, rel=1e-6)


def test_without_a_black_box_it_says_why_it_does_not_apply(attacked):
    observation, _ = attacked(NoDefense())
    with pytest.raises(UnsupportedPair, match="black box"):
        BlackBoxDecoder().reconstruct(replace(observation, black_box=None), [0] * 6)
