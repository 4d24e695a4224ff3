"""The posterior mean under public images: known answers at both ends of the noise, and what has no say in it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from attacks.attack import UnsupportedPair
from attacks.learned.posterior_mean import PosteriorMean
from attacks.observation import PublicImages
from attacks.public.clouds import Kernel
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from bench.trial.black_box import OwnBlackBox
from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate
from defenses.task import Classifier, Normalise, Task
from defenses.zeros import Zeros

KNOWN = ThreatModel(defense_known=True)
ATTACKED = 3


def public_digits(count):
    """Training images of `digits`, none of which is attacked."""
    images, labels = load_dataset("digits").training()
    return PublicImages(images[:count], labels[:count], f"{count} digits")


def copies_of_the_attacked(copies):
    """The first attacked images, and others, so many times."""
    data = load_dataset("digits")
    images, labels = data.pixels(range(20)), data.labels[:20]
    return PublicImages(images.repeat(copies, 1, 1, 1), labels.repeat(copies), "copies")


@pytest.fixture
def seen(case):
    def make(*defense, public, threat=KNOWN, **extra):
        own = case("lenet-zhu", "digits", ATTACKED, defense=defense, threat=threat, dtype=torch.float64, **extra)
        return own, replace(own.observation, public=public)

    return make


@pytest.mark.parametrize(
    "defense",
    [
        NoDefense(),
        GradientPruning(0.9),
        GaussianNoise(1e-9),
        DpSgd(noise_multiplier=1e-9),
        LocalEpochs(epochs=2, learning_rate=0.1),
    ],
    ids=repr,
)
def test_without_noise_an_image_that_has_copies_among_the_public_ones_is_the_answer(seen, defense):
    own, observation = seen(defense, public=copies_of_the_attacked(8))
    found = PosteriorMean().reconstruct(observation, [0] * ATTACKED)
    assert torch.allclose(found.images, own.images, atol=1e-6)
    assert torch.equal(found.labels, own.labels)


def test_under_boundless_noise_the_answer_is_the_class_mean(seen):
    _, observation = seen(DpSgd(noise_multiplier=1e6), public=public_digits(200))
    posterior = PosteriorMean().posterior(observation)
    found, labels = posterior.answer(observation)
    for image, label in zip(found[:, 0], labels[:, 0].tolist(), strict=True):
        assert torch.allclose(image.flatten(), posterior.clouds[label][0].middle, atol=1e-3)


@pytest.mark.parametrize("defense", [NoDefense(), GaussianNoise(0.1), GradientPruning(0.9)], ids=repr)
def test_other_attacked_images_change_no_temperature(seen, defense):
    _, observation = seen(defense, public=public_digits(200))
    others = {name: u.flip(0) * 3 for name, u in observation.updates.items()}
    assert observation.labels is not None
    swapped = replace(observation, updates=others, labels=(observation.labels + 1) % 10)
    own, other = (PosteriorMean().posterior(seen).choices for seen in (observation, swapped))
    # The same sums to rounding: where a tensor lies in memory decides the order of additions.
    assert own == pytest.approx(other, rel=1e-9)


def test_a_trial_attacked_alone_equals_it_in_a_batch(seen):
    _, observation = seen(DpSgd(noise_multiplier=0.01), public=public_digits(200))
    together = PosteriorMean().reconstruct(observation, [1, 2, 3]).images
    for trial in range(ATTACKED):
        alone = PosteriorMean().reconstruct(observation[trial : trial + 1], [trial + 1]).images
        assert torch.allclose(alone[0], together[trial], rtol=1e-8, atol=1e-8)


def test_public_images_get_more_than_the_class_mean_gets(seen):
    own, observation = seen(DpSgd(noise_multiplier=0.01), public=public_digits(1000))
    posterior = PosteriorMean().posterior(observation)
    blind = replace(posterior, kernel=Kernel(0.0, 1e12))
    near, far = ((found.answer(observation)[0] - own.images).square().mean() for found in (posterior, blind))
    assert near < 0.5 * far


def test_labels_that_are_not_known_are_those_of_the_likely_images(seen):
    threat = ThreatModel(labels="recovered", defense_known=True)
    own, observation = seen(NoDefense(), public=public_digits(500), threat=threat)
    found = PosteriorMean().reconstruct(observation, [0] * ATTACKED)
    assert observation.labels is None
    assert torch.equal(found.labels, own.labels)


def test_a_class_without_public_images_is_answered_from_all_of_them(seen):
    own, observation = seen(NoDefense(), public=public_digits(100))
    kept = observation.public.labels != int(own.labels[0])
    public = PublicImages(observation.public.images[kept], observation.public.labels[kept], "fewer")
    found = PosteriorMean().reconstruct(replace(observation, public=public), [0] * ATTACKED)
    assert torch.equal(found.labels, own.labels)
    assert torch.isfinite(found.images).all()


def test_without_public_images_it_says_why_it_does_not_apply(seen):
    _, observation = seen(NoDefense(), public=None)
    with pytest.raises(UnsupportedPair, match="public images"):
        PosteriorMean().reconstruct(observation, [0] * ATTACKED)


def test_images_of_a_batch_are_told_by_the_rows_of_their_labels(case):
    batches = LargerBatch(examples=3)
    own = case("lenet-zhu", "digits", 2, defense=(batches,), threat=KNOWN, dtype=torch.float64)
    observation = replace(own.observation, public=public_digits(1500))
    posterior = PosteriorMean().posterior(observation)
    blind = replace(posterior, kernel=Kernel(0.0, 1e12))
    order = own.labels.argsort(dim=1, stable=True)
    truth = own.images.gather(1, order[..., None, None, None].expand_as(own.images))
    near, far = ((found.answer(observation)[0] - truth).square().mean() for found in (posterior, blind))
    assert near < 0.7 * far


def test_a_network_without_a_row_for_each_label_is_refused_for_batches():
    network = Classifier(Normalise((0.5,), (0.5,)), nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    task = Task(network, 10, (1, 8, 8), Schedule(images=2))
    with pytest.raises(UnsupportedPair, match="one row per class"):
        PosteriorMean().check(task, "known")


class KeepsAlone(Defense):
    """A defense whose surrogate tells no release of an image that the server makes up."""

    def transform(self, task, update, rng):
        return update

    def surrogate(self, task):
        return Surrogate(keep=lambda observed: {name: torch.ones_like(o) for name, o in observed.items()})


def test_a_surrogate_that_simulates_no_release_is_refused(seen):
    _, observation = seen(KeepsAlone(), public=public_digits(100))
    with pytest.raises(UnsupportedPair, match="predict"):
        PosteriorMean().reconstruct(observation, [0] * ATTACKED)


def test_a_surrogate_that_is_wrong_about_the_client_leaves_the_means_of_labels(case):
    images, labels = load_dataset("digits").training()
    own = case("mlp", "digits", 6, defense=(Zeros(),), threat=replace(KNOWN, public=True), hidden=[16])
    box = OwnBlackBox(Chain((Zeros(),)), own.task, own.params)
    seen = replace(own.observation, public=PublicImages(images, labels, "digits"), black_box=box)
    assert seen.defense is not None, "its surrogate says that a client sends what an undefended one does"
    found = PosteriorMean().reconstruct(seen, [0] * 6)
    means = torch.stack([images[labels == label].float().mean(0) / 255 for label in seen.labels.flatten()])
    assert torch.allclose(found.images[:, 0], means, atol=0.08)
