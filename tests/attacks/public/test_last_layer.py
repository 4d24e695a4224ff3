"""The row of a label is found in releases whose entries a public key has moved, and guessed from noisy ones."""

from dataclasses import dataclass, replace

import pytest
import torch

from attacks.observation import PublicImages
from attacks.public.clients import PublicReleases, label_rows, public_clients, undefended_parts
from attacks.public.last_layer import last_layer_found
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.chain import Chain
from defenses.defense import Defense
from defenses.noise.gaussian_noise import GaussianNoise

COUNT = 40
NUMBERS = torch.arange(COUNT)


@dataclass(frozen=True)
class Moved(Defense):
    """All entries of the update times -3, in the order of a public key, without a surrogate."""

    def transform(self, task, update, rng):
        entries = torch.cat([u.flatten() for u in update.values()])
        order = torch.randperm(len(entries), generator=torch.Generator().manual_seed(7))
        parts = (-3 * entries[order]).split([u.numel() for u in update.values()])
        return {name: part.view_as(u) for (name, u), part in zip(update.items(), parts, strict=True)}


@pytest.fixture
def rows(case):
    """The rows of the labels of held-out images as found, as sent and undefended."""

    def make(defense):
        images, labels = (own[:240] for own in load_dataset("digits").training())
        threat = ThreatModel(defense_known=True, public=True)
        own = case("mlp", "digits", 2, defense=(defense,), threat=threat, hidden=[8])
        box = OwnBlackBox(Chain((defense,)), own.task, own.params)
        observation = replace(own.observation, public=PublicImages(images, labels, "digits"), black_box=box)
        clients = public_clients(observation)
        sent = PublicReleases.of(observation, clients, "black box")
        whole, view = sent.whole(NUMBERS), last_layer_found(observation, sent, COUNT)
        parts = view(whole), whole, undefended_parts(observation, clients, NUMBERS)
        return [label_rows(own.task, each, clients.labels[NUMBERS]) for each in parts]

    return make


def test_the_row_of_a_label_is_found_wherever_a_public_key_has_put_it(rows):
    found, sent, truth = rows(Moved())
    assert torch.allclose(found, truth, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(sent, truth, rtol=0.5, atol=0.05)


def test_of_noisy_entries_it_keeps_what_is_left(rows):
    found, sent, truth = rows(GaussianNoise(1.0))
    assert (found - truth).square().mean() < 0.3 * (sent - truth).square().mean()
