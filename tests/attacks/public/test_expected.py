"""Expected releases: the noise is found, clipping is followed, and no held-out client takes part in the regression."""

from dataclasses import replace

import pytest
import torch

from attacks.observation import PublicImages
from attacks.public.clients import PublicReleases, public_clients
from attacks.public.expected import ExpectedReleases, draws_matter
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.aggregation.larger_batch import LargerBatch
from defenses.chain import Chain
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.none import NoDefense

KNOWN = ThreatModel(defense_known=True, public=True)
HELD = 100


@pytest.fixture
def sent(case):
    """An observation of an MLP on digits behind a defense, and the releases of 800 public clients."""

    def make(*defense):
        images, labels = load_dataset("digits").training()
        public = PublicImages(images[:800], labels[:800], "digits")
        own = case("mlp", "digits", 2, defense=defense, threat=KNOWN, hidden=[16])
        box = OwnBlackBox(Chain(defense), own.task, own.params)
        observation = replace(own.observation, public=public, black_box=box)
        return observation, PublicReleases.of(observation, public_clients(observation), "black box")

    return make


@pytest.mark.parametrize("std", [0.02, 0.2])
def test_the_noise_of_a_client_is_found(sent, std):
    found = ExpectedReleases.of(*sent(GaussianNoise(std)), HELD)
    # Beside the noise it holds what the regression cannot say.
    assert 0.95 * std < found.unit.median() < 1.3 * std


def test_expectations_are_what_is_sent_before_noise_clipping_included(sent):
    observation, noisy = sent(NormClipping(0.5), GaussianNoise(0.05))
    found = ExpectedReleases.of(observation, noisy, HELD)
    _, clipped = sent(NormClipping(0.5))
    truth = torch.cat([found.view(part) for part in clipped.parts(torch.arange(len(clipped.clients)))])
    for clients in (slice(HELD), slice(HELD, None)):
        error, noise = (float((own[clients] - truth[clients]).square().mean()) for own in (found.expected, found.sent))
        assert error < 0.4 * noise


def test_clients_of_several_images_have_expectations_of_each(sent):
    found = ExpectedReleases.of(*sent(LargerBatch(examples=4), GaussianNoise(0.02)), HELD)
    error, spread = (found.sent - found.expected).square().mean(), found.sent.var(0).mean()
    assert len(found.expected) == len(found.clients)
    assert error < 0.5 * spread


def test_releases_of_held_out_clients_change_no_expectation(sent):
    observation, noisy = sent(GaussianNoise(0.05))
    other = noisy.table.clone()
    other[:HELD] = other[:HELD].flip(0)
    found, again = (ExpectedReleases.of(observation, own, HELD) for own in (noisy, replace(noisy, table=other)))
    assert torch.allclose(found.expected * found.unit, again.expected * again.unit)


@pytest.mark.parametrize(("defense", "matter"), [(NoDefense(), False), (GaussianNoise(1e-3), True)], ids=repr)
def test_draws_matter_where_noise_is_drawn(sent, defense, matter):
    assert draws_matter(sent(defense)[1]) == matter
