"""Matching that begins at the posterior mean: nearer than its start, and no nearer than held-out clients allow."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attacks.black_box import Lessons
from attacks.learned.black_box_decoder import BlackBoxDecoder
from attacks.learned.informed_matching import TRIED, InformedMatching
from attacks.learned.posterior_mean import PosteriorMean
from attacks.observation import PublicImages
from attacks.public.clients import public_clients
from attacks.public.prior import PARTS_OF_ALL
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.aggregation.larger_batch import LargerBatch
from defenses.chain import Chain
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense

KNOWN = ThreatModel(defense_known=True, public=True)


@pytest.fixture
def attacked(case):
    """An observation of digits under a defense, with public images and the client, and the private images."""

    def make(*defense, threat=KNOWN, dtype=None):
        images, labels = load_dataset("digits").training()
        own = case("lenet-zhu", "digits", 4, defense=defense, threat=threat, dtype=dtype)
        plain = case("lenet-zhu", "digits", 4, defense=defense, threat=threat)
        box = OwnBlackBox(Chain(defense or (NoDefense(),)), plain.task, plain.params)
        public = PublicImages(images[:600], labels[:600], "digits")
        seen = replace(own.observation, public=public, black_box=box, lessons=Lessons())
        order = own.labels.argsort(dim=1, stable=True)
        return seen, own.images.gather(1, order[..., None, None, None].expand_as(own.images))

    return make


def error(found, truth):
    return float((found.images - truth).square().mean())


def test_it_is_nearer_than_the_better_of_its_starts(attacked):
    observation, truth = attacked(GaussianNoise(0.01))
    starts = [attack.reconstruct(observation, [0] * 4) for attack in (PosteriorMean(), BlackBoxDecoder())]
    found = InformedMatching(iterations=60).reconstruct(observation, [0] * 4)
    assert error(found, truth) < 0.8 * min(error(start, truth) for start in starts)
    assert found.choices["blend"] > 0


def test_images_of_a_batch_are_refined_together(attacked):
    observation, truth = attacked(LargerBatch(examples=2))
    start = PosteriorMean().reconstruct(observation, [0] * 4)
    found = InformedMatching(iterations=60).reconstruct(observation, [0] * 4)
    assert error(found, truth) < 0.8 * error(start, truth)


def test_under_overwhelming_noise_it_keeps_the_start(attacked):
    observation, _ = attacked(DpSgd(noise_multiplier=100.0))
    found = InformedMatching(iterations=10).reconstruct(observation, [0] * 4)
    assert found.choices["blend"] == 0
    starts = [attack.reconstruct(observation, [0] * 4) for attack in (PosteriorMean(), BlackBoxDecoder())]
    assert any(torch.equal(found.images, start.images) for start in starts)


def test_the_objective_falls_and_is_that_of_the_answer(attacked):
    observation, _ = attacked(GaussianNoise(0.01))
    attack = InformedMatching(iterations=30)
    found = attack.reconstruct(observation, [0] * 4)
    assert found.choices["blend"] == 1
    assert (found.objective < found.start).all()
    assert torch.allclose(attack.objective(observation, found.images, found.labels), found.objective, rtol=1e-4)


def test_the_objective_does_not_depend_on_the_order_of_a_batch(attacked):
    observation, truth = attacked(LargerBatch(examples=2))
    attack = InformedMatching(iterations=60)
    assert attack.reconstruct(observation, [0] * 4).choices["blend"] == 1
    straight = attack.objective(observation, truth, observation.labels)
    swapped = attack.objective(observation, truth.flip(1), observation.labels.flip(1))
    differ = observation.labels[:, 0] != observation.labels[:, 1]
    assert torch.allclose(straight[differ], swapped[differ], rtol=1e-4)


@pytest.mark.parametrize("best", PARTS_OF_ALL)
def test_held_out_clients_choose_the_part_of_all_images(attacked, monkeypatch, best):
    observation, _ = attacked()
    _, truth = public_clients(observation).observed(observation, TRIED)

    def around(seen, images, labels, part_of_all):
        return SimpleNamespace(run=lambda adam: (truth if part_of_all == best else images, None))

    monkeypatch.setattr("attacks.learned.informed_matching._Search.around", around)
    assert InformedMatching()._choice(observation) == (best, 1)


def test_other_attacked_images_change_no_choice(attacked):
    observation, _ = attacked(GaussianNoise(0.05))
    others = {name: u.flip(0) * 3 for name, u in observation.updates.items()}
    swapped = replace(observation, updates=others, labels=(observation.labels + 1) % 10, lessons=Lessons())
    own, other = (InformedMatching(iterations=5).reconstruct(seen, [0] * 4).choices for seen in (observation, swapped))
    assert own == pytest.approx(other, rel=1e-6)


def test_labels_that_are_not_known_are_found(attacked):
    observation, truth = attacked(threat=replace(KNOWN, labels="recovered"))
    found = InformedMatching(iterations=30).reconstruct(observation, [0] * 4)
    assert error(found, truth) < 0.03


def test_equal_labels_of_a_batch_do_not_stay_alike(attacked):
    observation, _ = attacked(LargerBatch(examples=2))
    twice = replace(observation, labels=observation.labels[:, :1].expand(-1, 2))
    found = InformedMatching(iterations=20).reconstruct(twice, [0] * 4).images
    assert ((found[:, 0] - found[:, 1]).flatten(1).abs().amax(1) > 1e-3).all()
