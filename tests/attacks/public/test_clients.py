"""Clients made of public images: who is in them, and the part of a release that tells of one image."""

from dataclasses import replace

import pytest
import torch

from attacks.attack import UnsupportedPair
from attacks.observation import PublicImages
from attacks.public.clients import PublicReleases, label_rows, public_clients
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.aggregation.larger_batch import LargerBatch
from defenses.chain import Chain
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense

KNOWN = ThreatModel(defense_known=True, public=True)


@pytest.fixture
def seen(case):
    """An observation of clients of digits with 400 public images and the client as a black box."""

    def make(*defense, count=400):
        images, labels = load_dataset("digits").training()
        public = PublicImages(images[:count], labels[:count], "digits")
        own = case("mlp", "digits", 2, defense=defense, threat=KNOWN, hidden=[16])
        box = OwnBlackBox(Chain(defense or (NoDefense(),)), own.task, own.params)
        return replace(own.observation, public=public, black_box=box)

    return make


def test_no_label_comes_twice_in_a_client_and_labels_are_sorted(seen):
    clients = public_clients(seen(LargerBatch(examples=4)))
    labels = clients.labels.view(-1, 4)
    assert (labels.diff(dim=1) > 0).all()
    assert len(labels) > 60


def test_no_public_image_is_in_two_clients(seen):
    clients = public_clients(seen(LargerBatch(examples=4)))
    assert len(clients.images.flatten(1).unique(dim=0)) == len(clients)


def test_clients_of_more_images_than_classes_hold_every_class_about_as_often(seen):
    labels = public_clients(seen(LargerBatch(examples=20))).labels.view(-1, 20)
    assert all((client.bincount(minlength=10) == 2).all() for client in labels)


@pytest.mark.parametrize("defense", [(), (LargerBatch(examples=4),)], ids=["one image", "four images"])
def test_without_noise_surrogate_and_black_box_send_the_same(seen, defense):
    observation = seen(*defense)
    clients, numbers = public_clients(observation), torch.arange(8)
    predicted, sent = (PublicReleases.of(observation, clients, source) for source in ("surrogate", "black box"))
    assert torch.allclose(predicted.whole(numbers), sent.whole(numbers), rtol=1e-4, atol=1e-6)


def test_noise_that_the_surrogate_states_is_that_of_the_black_box(seen):
    observation = seen(LargerBatch(examples=4), GaussianNoise(0.05))
    clients = public_clients(observation)
    predicted, sent = (PublicReleases.of(observation, clients, source) for source in ("surrogate", "black box"))
    numbers = torch.arange(len(clients))
    assert sent.noise == 0
    left = (sent.whole(numbers) - predicted.whole(numbers)).square().mean()
    assert float(left) == pytest.approx(predicted.noise, rel=0.05)


def test_releases_that_are_not_held_are_those_that_are(seen, monkeypatch):
    observation = seen(GaussianNoise(0.05))
    clients, numbers = public_clients(observation), torch.tensor([5, 3, 300])
    held = PublicReleases.of(observation, clients, "black box")
    monkeypatch.setattr("attacks.public.clients.MOST_ENTRIES", 10)
    computed = PublicReleases.of(observation, clients, "black box")
    assert held.table is not None
    assert computed.table is None
    assert torch.allclose(held.whole(numbers), computed.whole(numbers), rtol=1e-4, atol=1e-6)


def test_a_row_of_the_last_layer_is_a_multiple_of_what_the_layer_saw(seen):
    observation = seen()
    clients, numbers = public_clients(observation), torch.arange(5)
    whole = PublicReleases.of(observation, clients, "black box").whole(numbers)
    rows = label_rows(observation.task, whole, clients.labels[numbers])
    task, params = observation.task, observation.params
    logits = task.logits(params, clients.images[numbers].float() / 255)
    missing = logits.softmax(1)[numbers, clients.labels[numbers]] - 1
    assert torch.allclose(rows[:, -1], missing, atol=1e-5)


def test_the_release_of_a_public_client_is_observed_as_an_attacked_one(seen):
    observation = seen(LargerBatch(examples=2))
    clients = public_clients(observation)
    own, images = clients.observed(observation, 3)
    assert own.labels.tolist() == clients.labels.view(-1, 2)[:3].tolist()
    assert torch.equal((images * 255).round().byte().flatten(0, 1), clients.images[:6])
    assert {name: u.shape[1:] for name, u in own.updates.items()} == {n: p.shape for n, p in own.params.items()}


def test_too_few_public_images_are_refused(seen):
    with pytest.raises(UnsupportedPair, match=r"15 granted images make \d; raise grid\.public\.count"):
        public_clients(seen(LargerBatch(examples=4), count=15))
    with pytest.raises(UnsupportedPair, match=r"none are granted; set threat\.public"):
        public_clients(replace(seen(), public=None))


def test_a_network_that_costs_much_is_shown_fewer_images(seen, monkeypatch):
    observation = seen()
    assert len(public_clients(observation)) == 400
    monkeypatch.setattr("attacks.public.clients.LEAST_IMAGES", 50)
    # An image takes 64 x 16 + 16 x 10 products forward, as many for the weights and 160 on the way back; 2 each.
    monkeypatch.setattr("attacks.public.clients.MOST_WORK", 2 * (2 * (64 * 16 + 16 * 10) + 160) * 120)
    assert len(public_clients(observation)) == 120
    monkeypatch.setattr("attacks.public.clients.MOST_WORK", 1.0)
    assert len(public_clients(observation)) == 50
