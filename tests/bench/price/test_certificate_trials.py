"""The measured rate stays within the proof, leaves it when the noise is wrong, and owes nothing to the truth."""

from dataclasses import dataclass, replace

import pytest
import torch
from scipy import stats

from bench.data import fashion_mnist
from bench.data.load import load_dataset
from bench.models.build import untrained
from bench.price import certificate_trials
from bench.price.certificate_trials import Pool, answers, draw_trial, measure, observe_clients
from bench.price.certificates import identification_bound
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate
from defenses.task import Task

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
DATASETS = [
    "digits",
    pytest.param(
        "fashion-mnist",
        marks=pytest.mark.skipif(
            not fashion_mnist.DEBIAN_FASHION_MNIST.is_dir(),
            reason="Debian's package dataset-fashion-mnist is not installed",
        ),
    ),
]


@dataclass(frozen=True)
class DividedTwice(DpSgd):
    """The seeded bug: the noise is divided by the number of images once more than the sum is."""

    def share(self, task, params, batch, rng):
        return DpSgd(self.clip_norm, self.noise_multiplier / len(batch)).share(task, params, batch, rng)


class Silent(Defense):
    """Sends zeros: what is left to the adversary is what it was not meant to have."""

    def transform(self, task, update, rng):
        return {name: torch.zeros_like(u) for name, u in update.items()}

    def surrogate(self, task):
        return Surrogate()


@dataclass(frozen=True)
class Remembering(Defense):
    """Keeps what it saw, and complains when the adversary's copy of it has that too."""

    def transform(self, task, update, rng):
        object.__setattr__(self, "seen", update)
        return update

    def surrogate(self, task):
        return Surrogate(predict=self.predicted)

    def predicted(self, update):
        assert not hasattr(self, "seen")
        return update


MODELS = {"digits": ("mlp", {"hidden": [16]}), "fashion-mnist": ("lenet-zhu", {})}


def setting(*parts, dataset="digits", images=1):
    """A chain with its task, weights, pool and guarantee: what `measure` takes; the weights are random."""
    data, (name, parameters) = load_dataset(dataset), MODELS[dataset]
    chain, client = Chain(parts), Schedule(images=images)
    network = {"input_shape": data.input_shape, "classes": data.classes, "mean": data.mean, "std": data.std}
    model = untrained(name, parameters, **network, seed=0)
    params = {name: p.detach() for name, p in model.named_parameters()}
    task = Task(model, data.classes, data.input_shape, chain.schedule(client))
    pool = Pool(data.pixels(range(300)), data.labels[:300])
    return chain, task, params, pool, chain.privacy(client, 1, 1e-5)


@pytest.mark.parametrize("multiplier", LEVELS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_on_real_images_nobody_is_identified_more_often_than_dp_sgd_allows(dataset, multiplier):
    """200 trials of 20 candidates at each of six levels, tested together."""
    found = measure(*setting(DpSgd(1.0, multiplier), dataset=dataset))
    assert (found.trials, found.candidates, found.noise_multiplier, found.steps) == (200, 20, multiplier, 1)
    assert not found.broken(len(LEVELS))
    if multiplier == 0.25:
        assert found.lower_limit(len(LEVELS)) > 5 * found.chance  # the adversary is awake


def test_noise_divided_twice_breaks_the_certificate_and_noise_divided_once_does_not():
    """Four images a client, three of them known: a quarter of the noise is left."""
    wrong, right = (measure(*setting(defense(1.0, 1.0), images=4)) for defense in (DividedTwice, DpSgd))
    assert wrong.bound == right.bound
    assert wrong.broken(len(LEVELS))
    assert not right.broken(len(LEVELS))
    assert right.images == 4


def test_local_epochs_are_counted_as_steps():
    found = measure(*setting(LocalEpochs(2, learning_rate=0.05), DpSgd(1.0, 0.5)))
    assert found.steps == 2
    assert found.bound == identification_bound(20, 0.5, steps=2)
    assert not found.broken()
    assert found.lower_limit() > identification_bound(20, 1.0)  # a second step is a second chance


def test_an_undefended_image_is_always_found_and_nothing_is_promised():
    found = measure(*setting(NoDefense()), trials=30)
    assert found.rate == 1.0
    assert found.bound is None


def test_every_candidate_is_as_likely_to_be_the_private_one_and_draws_are_fresh():
    pool = setting(NoDefense())[3]
    drawn = [draw_trial(pool, 20, 3, seed=0, trial=trial) for trial in range(1000)]
    counts = torch.bincount(torch.tensor([d.private for d in drawn]), minlength=20)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    for d in drawn:
        assert torch.cat([d.candidates, d.others]).unique().numel() == 23
        assert d.held.tolist() == [int(d.candidates[d.private]), *d.others.tolist()]
    assert len({tuple(d.candidates.tolist()) for d in drawn}) == 1000
    assert len({d.noise for d in drawn}) == 1000


def test_the_noise_is_fresh_where_the_same_images_come_again_and_needs_the_private_images():
    _, _, _, pool, _ = setting(NoDefense())
    small = Pool(pool.pixels[:2], pool.labels[:2])
    drawn = [draw_trial(small, 2, 0, seed=0, trial=trial) for trial in range(20)]
    assert len({(int(d.held), d.noise) for d in drawn}) == 20
    again = Pool(small.pixels.clone(), small.labels.clone())
    assert draw_trial(again, 2, 0, seed=0, trial=0).noise == drawn[0].noise
    # The draw is that of the old pool, the images are others: so is the noise.
    again.__dict__["digest"] = small.digest
    again.pixels[:, :, 0, 0] ^= 1
    other = draw_trial(again, 2, 0, seed=0, trial=0)
    assert torch.equal(other.candidates, drawn[0].candidates)
    assert other.noise != drawn[0].noise


def test_the_release_is_all_that_the_adversary_learns_of_the_private_index(monkeypatch):
    """From a client that sends zeros, another private candidate hands over the same bytes, and the same answer."""
    asked = []

    def recorded(observation, candidates, labels, others):
        tensors = [*observation.updates.values(), *observation.params.values(), candidates, labels]
        asked.append([observation.labels, *(t.clone() for t in (*tensors, others.images, others.labels))])
        return answer(observation, candidates, labels, others)

    def moved(*arguments, **named):
        drawn = original(*arguments, **named)
        return replace(drawn, private=(drawn.private + 1) % len(drawn.candidates), noise=drawn.noise + 1)

    answer, original = certificate_trials.most_likely, certificate_trials.draw_trial
    monkeypatch.setattr(certificate_trials, "most_likely", recorded)
    measure(*setting(Silent(), images=2), trials=10)
    monkeypatch.setattr(certificate_trials, "draw_trial", moved)
    measure(*setting(Silent(), images=2), trials=10)
    first, second = asked
    assert first[0] is None  # the private label is not granted
    assert second[0] is None
    assert all(torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True))


def test_an_answer_is_the_same_whichever_candidate_is_private_once_the_release_is_there():
    chain, task, params, pool, _ = setting(DpSgd(1.0, 0.25))
    drawn = draw_trial(pool, 20, 0, seed=0, trial=0)
    seen = replace(observe_clients(chain, task, params, pool, [drawn]), defense=chain.simulation(task))
    ask = lambda: answers(seen, pool, [drawn]).item()
    before = ask()
    object.__setattr__(drawn, "private", (drawn.private + 1) % 20)
    object.__setattr__(drawn, "noise", 0)
    assert ask() == before


def test_what_a_defense_remembers_of_a_batch_does_not_reach_the_adversary():
    measure(*setting(Remembering()), trials=3)


def test_the_same_seed_measures_the_same_and_another_draws_others():
    arguments = setting(DpSgd(1.0, 0.5))
    found = [measure(*arguments, trials=20, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    pool = arguments[3]
    assert not torch.equal(draw_trial(pool, 20, 0, 0, 0).candidates, draw_trial(pool, 20, 0, 1, 0).candidates)


def test_it_does_not_matter_how_many_trials_are_in_memory_at_once(monkeypatch):
    arguments = setting(DpSgd(1.0, 0.5))
    together = measure(*arguments, trials=20)
    monkeypatch.setattr(certificate_trials, "_ENTRIES", 1)
    assert measure(*arguments, trials=20) == together


def test_comparisons_are_paired():
    """The same images and standard noise, whatever the defense's strength."""
    weak, strong = (setting(DpSgd(1e9, s * 1e-9)) for s in (0.1, 1.0))
    drawn = draw_trial(weak[3], 20, 0, seed=0, trial=0)
    none = observe_clients(*setting(NoDefense())[:4], [drawn])
    for name, clean in none.updates.items():
        a, b = (observe_clients(*arguments[:4], [drawn]).updates[name] - clean for arguments in (weak, strong))
        assert torch.allclose(10 * a, b, atol=1e-4)


def test_impossible_numbers_are_refused():
    arguments = setting(NoDefense(), images=4)
    for wrong, message in (
        ({"candidates": 1}, "candidates must be at least 2, got 1"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"candidates": 298}, "the pool has 300 images; 298 candidates and 3 others.* need 301: give more images"),
    ):
        with pytest.raises(ValueError, match=message):
            measure(*arguments, **wrong)
    pixels, labels = arguments[3].pixels, arguments[3].labels
    with pytest.raises(ValueError, match=r"pixels must be uint8 \(m c h w\)"):
        Pool(pixels.float() / 255, labels)
    with pytest.raises(ValueError, match=r"labels must be \(300,\), one an image, got \(299,\)"):
        Pool(pixels, labels[:-1])
