"""Federated training is plain averaging of what attacked clients send, and goes on where it was stopped."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.price import federated
from bench.price.federated import Rounds, Server, TrainingDiverged, train_federated
from bench.store import tensors
from defenses import chain as chains
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain, DefenseFault
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Classifier, Normalise, Task


def small(schedule=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Sigmoid(), nn.Linear(6, 3))
        pixels = torch.randint(256, (60, 1, 4, 4), dtype=torch.uint8)
    model = Classifier(Normalise((0.5,), (0.25,)), network).eval()
    task = Task(model, 3, (1, 4, 4), schedule or Schedule())
    return task, {name: p.detach() for name, p in model.named_parameters()}, (pixels, torch.arange(60) % 3)


def trained(parts, rounds, server=None, *, schedule=None, **more):
    chain = Chain(parts)
    task, params, data = small(chain.schedule(schedule or Schedule()))
    return train_federated(task, params, chain, data, rounds, server or Server(), **{"seed": 5, **more}).last


def same(a, b, tolerance=0.0):
    return all(torch.allclose(a[name], b[name], rtol=tolerance, atol=tolerance) for name in a)


def test_every_client_takes_part_at_most_once_a_pass_and_as_often_as_is_said():
    rounds = Rounds(rounds=11, clients=4, population=18, images=3)  # four rounds a pass, two clients left out
    chosen = [rounds.chosen(i, seed=3).tolist() for i in range(11)]
    assert all(len(set(members)) == 4 for members in chosen)
    for a_pass in (chosen[:4], chosen[4:8], chosen[8:]):
        members = [client for own in a_pass for client in own]
        assert len(set(members)) == len(members)
    counts = [sum(client in own for own in chosen) for client in range(18)]
    assert max(counts) == rounds.participations == 3
    assert chosen != [rounds.chosen(i, seed=4).tolist() for i in range(11)]


def test_more_clients_a_round_than_there_are_is_said():
    with pytest.raises(ValueError, match=r"clients must be at most 18, got 19: .*take fewer"):
        Rounds(rounds=1, clients=19, population=18, images=3)


def test_undefended_rounds_are_stochastic_gradient_descent_over_the_clients_images():
    """By hand: the gradient of the mean loss over all images of the round, a step at a rate that falls in a cosine."""
    rounds, server = Rounds(5, 4, 20, 3), Server("sgd", 0.3, 0.0)
    found = trained((NoDefense(),), rounds, server, schedule=Schedule(images=3))
    task, params, (pixels, labels) = small()
    deal = torch.randperm(60, generator=torch.Generator().manual_seed(federated.stream("deal", 5)))
    weights = {name: p.clone().requires_grad_() for name, p in params.items()}
    for number in range(5):
        images = torch.cat([deal[3 * client : 3 * client + 3] for client in rounds.chosen(number, 5).tolist()])
        loss = F.cross_entropy(task.logits(weights, pixels[images].float() / 255), labels[images])
        gradient = torch.autograd.grad(loss, list(weights.values()))
        rate = 0.3 * (1 + math.cos(math.pi * number / 5)) / 2
        weights = {
            name: (w - rate * g).detach().requires_grad_()
            for (name, w), g in zip(weights.items(), gradient, strict=True)
        }
    assert same(found, weights, 1e-6)
    assert not same(found, params, 1e-3)


def test_a_local_step_of_any_rate_moves_the_server_as_its_gradient_does():
    rounds, server = Rounds(4, 6, 30, 2), Server("sgd", 0.2, 0.5)
    gradient = trained((NoDefense(),), rounds, server, schedule=Schedule(images=2))
    for rate in (0.5, 1e-3):
        assert same(trained((LocalEpochs(1, None, rate),), rounds, server, schedule=Schedule(images=2)), gradient, 2e-3)


@pytest.mark.parametrize("chunk", [1, 3])
def test_clients_computed_in_parts_train_the_same_network(monkeypatch, chunk):
    parts, rounds = (DpSgd(0.5, 0.3),), Rounds(3, 7, 30, 2)
    whole = trained(parts, rounds, schedule=Schedule(images=2))
    monkeypatch.setattr(federated, "clients_at_once", lambda task, params: chunk)
    assert same(trained(parts, rounds, schedule=Schedule(images=2)), whole, 1e-5)


@pytest.mark.parametrize("server", [Server("adam", 0.01, 0.9), Server("sgd", 0.1, 0.9), Server("sgd", 0.1, 0.0)])
def test_a_training_that_was_stopped_ends_as_a_calm_one(tmp_path, monkeypatch, server):
    monkeypatch.setattr(federated, "KEEP_SECONDS", 0.0)
    rounds, kept = Rounds(9, 4, 30, 2), tmp_path / "kept.safetensors"

    def stop(done, total):
        if done == 6:
            raise KeyboardInterrupt

    parts, more = (GaussianNoise(0.01),), {"schedule": Schedule(images=2)}
    calm = trained(parts, rounds, server, **more)
    with pytest.raises(KeyboardInterrupt):
        trained(parts, rounds, server, kept=kept, progress=stop, **more)
    seen = []
    resumed = trained(parts, rounds, server, kept=kept, progress=lambda done, _: seen.append(done), **more)
    assert seen == [6, 7, 8, 9]
    assert same(resumed, calm)
    assert not kept.exists()


def test_the_round_of_equal_images_is_the_last_that_has_seen_no_more():
    larger = Rounds(rounds=11, clients=4, population=18, images=3)
    assert [larger.at_equal_images(undefended) for undefended in (1, 2)] == [3, 7]  # 3.7 and 7.3 rounds
    assert larger.at_equal_images(3) is larger.at_equal_images(6) is None
    assert Rounds(rounds=2, clients=4, population=18, images=3).at_equal_images(1) is None


@pytest.mark.parametrize("stopped", [3, 6])
def test_one_training_has_the_weights_of_an_earlier_round_too_wherever_it_was_stopped(tmp_path, monkeypatch, stopped):
    monkeypatch.setattr(federated, "KEEP_SECONDS", 0.0)
    schedule, server, kept = Schedule(images=2), Server("adam", 0.01, 0.9), tmp_path / "kept.safetensors"
    task, params, data = small(schedule)
    begin = [task, params, Chain((GaussianNoise(0.01),)), data, Rounds(9, 4, 30, 2), server]
    seen = {}

    def note(weights, optimiser, done, early):
        seen[done] = {name: w.detach().clone() for name, w in weights.items()}

    def stop(done, total):
        if done == stopped:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(federated, "keep_training", lambda path, *state: note(*state))
        calm = train_federated(*begin, seed=5, early=4, kept=kept)
    assert same(calm.early, seen[4])
    with pytest.raises(KeyboardInterrupt):
        train_federated(*begin, seed=5, early=4, kept=kept, progress=stop)
    resumed = train_federated(*begin, seed=5, early=4, kept=kept)
    assert same(resumed.early, calm.early)
    assert same(resumed.last, calm.last)
    assert not same(calm.early, calm.last)


def test_a_damaged_state_is_not_gone_on_from(tmp_path):
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"no tensors")
    rounds = Rounds(2, 4, 60, 1)
    assert same(trained((NoDefense(),), rounds, kept=kept), trained((NoDefense(),), rounds))


def test_the_noise_of_every_client_and_round_is_its_own():
    _, params, data = small()
    rounds = Rounds(1, 30, 60, 1)
    noisy = trained((GaussianNoise(1.0),), rounds, Server("sgd", 1.0, 0.0))
    quiet = trained((NoDefense(),), rounds, Server("sgd", 1.0, 0.0))
    noise = torch.cat([(noisy[name] - quiet[name]).flatten() for name in params])
    assert float(noise.std()) == pytest.approx(30**-0.5, rel=0.2)  # the same noise thirty times would stay 1
    batches, rngs = federated.first_clients(data, rounds, 5, 3)
    assert len(batches.images) == 3
    assert len({torch.randn((), generator=rng).item() for rng in rngs}) == 3
    of_two_rounds = [
        federated._clients(data, torch.arange(60), torch.arange(1), 1, 5, number)[1][0] for number in (0, 1)
    ]
    assert len({torch.randn((), generator=rng).item() for rng in of_two_rounds}) == 2


def test_a_state_that_cannot_be_kept_is_said_and_the_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(federated, "KEEP_SECONDS", 0.0)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors, "write_state", full)
    with pytest.warns(UserWarning, match=r"cannot be kept in .*No space left.*it goes on"):
        found = trained((NoDefense(),), Rounds(3, 4, 60, 1), kept=tmp_path / "kept.safetensors")
    assert same(found, trained((NoDefense(),), Rounds(3, 4, 60, 1)))


class Cheat(Defense):
    """Noise on the update that is attacked, none on those that train."""

    def transform(self, task, update, rng):
        return {name: u + torch.randn(u.shape, generator=rng) for name, u in update.items()}

    def transform_many(self, task, updates, rngs):
        return updates


class Biasless(Defense):
    """Biases are sent when attacked and zero when trained: few entries, which tell most."""

    def transform(self, task, update, rng):
        return update

    def transform_many(self, task, updates, rngs):
        return {name: torch.zeros_like(u) if name.endswith("bias") else u for name, u in updates.items()}


class Drifting(Defense):
    """Updates that are finite as long as the weights are those at the start."""

    def share(self, task, params, batch, rng):
        grown = max(float(p.abs().max()) for p in params.values()) > 100
        return {name: torch.full_like(p, math.inf if grown else 1e3) for name, p in params.items()}


class Explosive(Defense):
    """Finite updates that no weights survive."""

    def transform(self, task, update, rng):
        return {name: torch.full_like(u, 3e38) for name, u in update.items()}


@pytest.mark.parametrize("cheat", [Cheat(), Biasless()], ids=["noise", "biases"])
def test_a_defense_that_trains_otherwise_than_it_is_attacked_is_found_out(cheat):
    with pytest.raises(DefenseFault, match=r"send another '\S+' than each alone.*mend share_many or transform_many"):
        trained((cheat,), Rounds(2, 4, 60, 1))


@pytest.mark.parametrize("part", [0.0, 0.5], ids=["all", "half"])
def test_signs_that_are_zero_when_trained_are_no_rounding(part):
    signs = torch.randn(4000, generator=torch.Generator().manual_seed(0)).sign() * 0.3
    trained = signs * (torch.arange(4000) < 4000 * part)
    assert chains._differ(signs, trained, 0.3)
    assert not chains._differ(signs, signs.clone(), 0.3)


def test_pruning_passes_as_the_same_at_once_and_alone():
    trained((GradientPruning(0.9),), Rounds(3, 8, 60, 1))


def test_weights_that_leave_the_numbers_are_a_divergence_with_its_round():
    with pytest.raises(TrainingDiverged, match=r"not finite after round \d of 4"):
        trained((Explosive(),), Rounds(4, 4, 60, 1), Server("sgd", 10.0, 0.0))
    with pytest.raises(TrainingDiverged, match=r"in round 2 of 4: .*infinite or undefined"):
        trained((Drifting(),), Rounds(4, 4, 60, 1), Server("sgd", 1.0, 0.0))
