"""The posterior mean under public images: known answers at both ends of the noise, and what has no say in it."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import MultivariateNormal

from attacks.attack import UnsupportedPair
from attacks.learned.posterior_mean import Cloud, Kernel, Posterior, PosteriorMean
from attacks.observation import PublicImages
from attacks.threat import ThreatModel
from bench.data.load import load_dataset
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate

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
    found = PosteriorMean(held_out=40).reconstruct(observation, [0] * ATTACKED)
    assert torch.allclose(found.images, own.images, atol=1e-6)
    assert torch.equal(found.labels, own.labels)


def test_under_boundless_noise_the_answer_is_the_class_mean(seen):
    _, observation = seen(DpSgd(noise_multiplier=1e6), public=public_digits(200))
    posterior = Posterior.of(observation, 20)
    found = posterior.answer().images
    for image, label in zip(found[:, 0], observation.labels[:, 0], strict=True):
        [cloud] = [cloud for cloud in posterior.clouds if bool((cloud.labels == label).all())]
        assert torch.allclose(image.flatten(), cloud.middle, atol=1e-3)


def test_both_ends_of_the_noise_are_known_of_one_cloud():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(9, 4, generator=draw, dtype=torch.float64)
    points = torch.randn(9, 3, generator=draw, dtype=torch.float64)
    cloud = Cloud.around(pixels, torch.zeros(9, dtype=torch.long), points - points.mean(0))
    assert torch.allclose(cloud.mean(cloud.points, Kernel(0.0, 0.0))[0], pixels)
    for smoothing in (0.0, 0.7):
        far = cloud.mean(cloud.points, Kernel(smoothing, 1e12))[0]
        assert torch.allclose(far, pixels.mean(0).expand(9, -1), atol=1e-9)


def test_the_mean_of_a_cloud_is_bayes_rule_over_its_kernels():
    draw = torch.Generator().manual_seed(1)
    mixing = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    pixels = torch.randn(40, 4, generator=draw, dtype=torch.float64)
    points = (pixels - pixels.mean(0)) @ mixing
    # Principal coordinates: of uncorrelated entries.
    points = points @ torch.linalg.eigh(points.T @ points)[1]
    cloud, choice = Cloud.around(pixels, torch.zeros(40, dtype=torch.long), points), Kernel(0.4, 0.3)
    release = torch.randn(3, generator=draw, dtype=torch.float64)
    covariance = torch.diag(0.3 + 0.4 * cloud.variances)
    answers, evidence = [], []
    for image, point in zip(cloud.pixels, cloud.points, strict=True):
        centre = math.sqrt(0.6) * point
        evidence.append(MultivariateNormal(centre, covariance).log_prob(release))
        gain = 0.4 * cloud.covariances.T @ torch.linalg.inv(covariance)
        answers.append(cloud.middle + math.sqrt(0.6) * image + gain @ (release - centre))
    expected = torch.stack(evidence).softmax(0) @ torch.stack(answers)
    assert torch.allclose(cloud.mean(release[None], choice)[0][0], expected)


@pytest.mark.parametrize("defense", [NoDefense(), GaussianNoise(0.1), GradientPruning(0.9)], ids=repr)
def test_other_attacked_images_change_no_temperature(seen, defense):
    _, observation = seen(defense, public=public_digits(200))
    others = {name: u.flip(0) * 3 for name, u in observation.updates.items()}
    assert observation.labels is not None
    swapped = replace(observation, updates=others, labels=(observation.labels + 1) % 10)
    own, other = Posterior.of(observation, 20).choice(), Posterior.of(swapped, 20).choice()
    assert own.smoothing == other.smoothing
    # The same sums to rounding: where a tensor lies in memory decides the order of additions.
    assert own.variance == pytest.approx(other.variance, rel=1e-9)


def test_a_trial_attacked_alone_equals_it_in_a_batch(seen):
    _, observation = seen(DpSgd(noise_multiplier=0.01), public=public_digits(200))
    together = PosteriorMean(held_out=20).reconstruct(observation, [1, 2, 3]).images
    for trial in range(ATTACKED):
        alone = PosteriorMean(held_out=20).reconstruct(observation[trial : trial + 1], [trial + 1]).images
        assert torch.allclose(alone[0], together[trial], rtol=1e-8, atol=1e-8)


def test_public_images_get_more_than_the_class_mean_gets(seen):
    own, observation = seen(DpSgd(noise_multiplier=0.01), public=public_digits(1000))
    posterior = Posterior.of(observation, 50)
    blind = replace(posterior, noise=1e12)
    near, far = ((found.answer().images - own.images).square().mean() for found in (posterior, blind))
    assert near < 0.5 * far


def test_labels_that_are_not_known_are_those_of_the_likely_images(seen):
    threat = ThreatModel(labels="recovered", defense_known=True)
    own, observation = seen(NoDefense(), public=public_digits(500), threat=threat)
    found = PosteriorMean(held_out=50).reconstruct(observation, [0] * ATTACKED)
    assert observation.labels is None
    assert torch.equal(found.labels, own.labels)


def test_a_class_without_public_images_is_answered_from_all_of_them(seen):
    own, observation = seen(NoDefense(), public=public_digits(100))
    kept = observation.public.labels != int(own.labels[0])
    public = PublicImages(observation.public.images[kept], observation.public.labels[kept], "fewer")
    found = PosteriorMean(held_out=20).reconstruct(replace(observation, public=public), [0] * ATTACKED)
    assert torch.equal(found.labels, own.labels)
    assert torch.isfinite(found.images).all()


def test_without_public_images_it_says_why_it_does_not_apply(seen):
    _, observation = seen(NoDefense(), public=None)
    with pytest.raises(UnsupportedPair, match="public images"):
        PosteriorMean().reconstruct(observation, [0] * ATTACKED)


def test_clients_of_several_images_are_refused(case):
    task = case("lenet-zhu", "digits", 1, schedule=Schedule(images=2)).task
    with pytest.raises(UnsupportedPair, match="one image"):
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


def test_no_held_out_image_is_refused():
    with pytest.raises(ValueError, match="held_out"):
        PosteriorMean(held_out=0)
