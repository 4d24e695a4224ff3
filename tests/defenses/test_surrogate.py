"""A surrogate computes what the defended client computes, and chains compose what their parts say."""

from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch.func import grad

from attacks.matching.simulation import simulated_update
from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.chain import Chain, DefenseFault
from defenses.compression.gradient_pruning import GradientPruning
from defenses.defense import Defense
from defenses.noise.dp_sgd import DpSgd
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.noise.norm_clipping import NormClipping
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Surrogate, check_simulation, composed
from defenses.task import Task

NOISELESS = {
    "none": (NoDefense(),),
    "larger batch": (LargerBatch(4),),
    "local epochs": (LocalEpochs(3, learning_rate=0.5),),
    "clipping": (NormClipping(0.1),),
    "clipping by layer": (NormClipping(0.05, scope="layer"),),
    "clipping that does nothing": (NormClipping(1e3),),
    "dp_sgd, one image": (DpSgd(0.1, 0.0),),
    "dp_sgd, a batch": (LargerBatch(3), DpSgd(0.1, 0.0)),
    "dp_sgd, local steps": (LargerBatch(3), LocalEpochs(2, learning_rate=0.5), DpSgd(0.1, 0.0)),
    "pruning": (GradientPruning(0.9),),
    "pruning and clipping": (GradientPruning(0.9), NormClipping(0.05)),
    "pruning and clipping by layer": (GradientPruning(0.9, scope="model"), NormClipping(0.01, scope="layer")),
    "clipping by layer and pruning": (NormClipping(0.01, scope="layer"), GradientPruning(0.9, scope="model")),
    "dp_sgd and clipping": (LargerBatch(3), DpSgd(0.1, 0.0), NormClipping(0.05)),
}


def simulated(chain, task, params, batch, sent):
    """What an attacker who knows chain and images expects to be released."""
    known = chain.simulation(task)
    gradient = None
    if known.gradient is not None:
        gradient = lambda weights, images, labels: known.gradient(task.loss, weights, images, labels)
    update = simulated_update(task, params, batch.images, batch.labels, gradient)
    return known.predict(update, sent)


def released(chain, make_task, rng):
    task, params, batch = make_task(chain.schedule(Schedule()))
    return task, params, batch, chain.update(task, params, batch, rng)


def largest_difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in other)


@pytest.mark.parametrize("parts", NOISELESS.values(), ids=NOISELESS)
def test_the_truth_explains_what_was_released(parts, make_task, rng):
    task, params, batch, sent = released(Chain(parts), make_task, rng)
    # Opacus adds 1e-6 to every norm that it divides by.
    assert largest_difference(simulated(Chain(parts), task, params, batch, sent), sent) < 1e-5


@pytest.mark.parametrize("parts", NOISELESS.values(), ids=NOISELESS)
def test_what_would_be_sent_is_told_without_a_look_at_a_release(parts, make_task, rng):
    task, params, batch, sent = released(Chain(parts), make_task, rng)
    known = Chain(parts).simulation(task)
    rule = None if known.gradient is None else partial(known.gradient, task.loss)
    update = simulated_update(task, params, batch.images, batch.labels, rule)
    assert largest_difference(known.sent(update), sent) < 1e-5


def test_who_only_says_what_is_kept_tells_of_no_update_what_would_be_sent():
    keeping = Surrogate(keep=lambda observed: observed)
    assert composed([Surrogate(), keeping]).sent is None
    assert composed([keeping, Surrogate(noise_std=0.1)]) is None
    assert composed([Surrogate(noise_std=0.1)]).sent is not None


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_pruning_is_predicted_where_noise_hides_what_was_kept(scope, make_task, rng):
    pruning = GradientPruning(0.8, scope=scope)
    chain = Chain((pruning, GaussianNoise(1e-9)))
    task, params, batch, sent = released(chain, make_task, rng)
    assert largest_difference(simulated(chain, task, params, batch, sent), sent) < 1e-7


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_the_truth_pays_no_penalty_for_what_was_pruned(scope, make_task, rng):
    chain = Chain((GradientPruning(0.8, scope=scope),))
    task, params, batch, sent = released(chain, make_task, rng)
    known = chain.simulation(task)
    whole = task.gradient(params, batch)
    kept = {n: (u != 0).to(u.dtype) for n, u in sent.items()}
    assert largest_difference(known.predict(whole, sent), sent) == 0
    assert float(known.penalty(whole, sent)) == 0
    rescaled = known.penalty({n: 7 * g for n, g in whole.items()}, {n: 3 * u for n, u in sent.items()})
    assert float(rescaled) < 1e-25  # rounding, squared
    # One pruned entry, at twice the norm of all that was kept.
    name = next(n for n in sent if (kept[n] == 0).any())
    place = tuple((kept[name] == 0).nonzero()[0])
    norm = torch.cat([u.flatten() for u in sent.values()]).norm()
    loud = {n: g.clone() for n, g in whole.items()}
    loud[name][place] = 2 * norm
    alike = sent.values() if scope == "model" else [sent[name]]
    threshold = float(torch.cat([u[u != 0].abs() for u in alike]).min()) / float(norm)
    assert float(known.penalty(loud, sent)) == pytest.approx((2 - threshold) ** 2, rel=1e-6)


def test_the_penalty_has_a_finite_slope_even_at_an_update_of_zeros(make_task, rng):
    chain = Chain((GradientPruning(0.5),))
    task, _, _, sent = released(chain, make_task, rng)
    slope = grad(lambda u: chain.simulation(task).penalty(u, sent))({n: torch.zeros_like(u) for n, u in sent.items()})
    assert all(torch.isfinite(s).all() for s in slope.values())


@pytest.mark.parametrize(
    "parts",
    [
        (GaussianNoise(0.3),),
        (LargerBatch(3), DpSgd(2.0, 1.5)),
        (DpSgd(2.0, 0.5),),
        (LargerBatch(3), LocalEpochs(4, batch_size=2, learning_rate=1e-3), DpSgd(2.0, 1.5)),
        (LargerBatch(2), DpSgd(2.0, 1.5), GaussianNoise(1.0)),
    ],
    ids=["gaussian", "dp_sgd batch", "dp_sgd", "dp_sgd local steps", "dp_sgd and noise"],
)
def test_the_stated_noise_is_that_of_the_release(parts, make_task):
    chain = Chain(parts)
    task, params, batch = make_task(chain.schedule(Schedule()))
    draws = [chain.update(task, params, batch, torch.Generator().manual_seed(i)) for i in range(40)]
    entries = torch.stack([torch.cat([u.flatten() for u in draw.values()]) for draw in draws])
    measured = float(entries.var(0).mean().sqrt())
    assert measured == pytest.approx(chain.simulation(task).noise_std, rel=0.02)


def test_what_a_later_part_hides_is_predicted_and_costs_no_penalty():
    pruning = GradientPruning(0.5)
    assert Chain((pruning,)).simulation(None).penalty is not None
    assert Chain((pruning, NormClipping(1.0))).simulation(None).penalty is None
    assert Chain((pruning, GaussianNoise(0.1))).simulation(None).penalty is None
    assert Chain((NormClipping(1.0), pruning)).simulation(None).penalty is not None


@pytest.mark.parametrize("scope", ["layer", "model"])
def test_clipping_has_a_slope_at_an_update_of_zeros(scope):
    zeros = {"a": torch.zeros(3), "b": torch.zeros(2)}
    clipped = NormClipping(0.5, scope=scope).clipped
    slope = grad(lambda u: sum(v.sum() for v in clipped(u).values()))(zeros)
    assert {name: s.tolist() for name, s in slope.items()} == {"a": [1.0] * 3, "b": [1.0] * 2}


class Unknown(Defense):
    def transform(self, task, update, rng):
        return update


@pytest.mark.parametrize(
    "parts",
    [
        (Unknown(),),
        (GradientPruning(0.5), Unknown()),
        (GaussianNoise(0.1), NormClipping(1.0)),
        (GaussianNoise(0.1), GradientPruning(0.5)),
        (DpSgd(1.0, 0.1), GradientPruning(0.5)),
    ],
    ids=["no surrogate", "a part without", "noise that is clipped", "noise that is pruned", "dp_sgd that is pruned"],
)
def test_a_chain_that_nobody_can_simulate_is_unaudited(parts):
    assert Chain(parts).simulation(Task(None, 10, (3, 32, 32))) is None


@dataclass(frozen=True)
class Odd(Unknown):
    said: object

    def surrogate(self, task):
        return self.said


@dataclass(frozen=True)
class OddSchedule(Defense):
    def schedule(self, schedule):
        return schedule

    def surrogate(self, task):
        return Surrogate(noise_std=1.0)


def test_surrogates_that_say_what_their_part_cannot_are_refused():
    with pytest.raises(TypeError, match="a surrogate's gradient belongs to"):
        Chain((Odd(Surrogate(gradient=lambda *a: {})),)).simulation(None)
    with pytest.raises(DefenseFault, match=r"Odd\.surrogate returned int, not a Surrogate"):
        Chain((Odd(3),)).simulation(None)
    with pytest.raises(DefenseFault, match=r"OddSchedule.surrogate says more than Surrogate\(\)"):
        Chain((OddSchedule(),)).simulation(None)


def test_a_mask_that_noise_hides_needs_a_prediction_too():
    masked = Odd(Surrogate(keep=lambda o: o))
    assert Chain((masked,)).simulation(None) is not None
    assert Chain((masked, GaussianNoise(0.1))).simulation(None) is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Surrogate(predict=lambda u: sum(v.sum() for v in u.values())), "predict returned Tensor; return a dict"),
        (
            Surrogate(predict=lambda u: dict(list(u.items())[:2])),
            "predict returned tensors network.0.weight, network.0",
        ),
        (Surrogate(predict=lambda u: {n: 1.0 for n in u}), "predict returned float for 'network.0.weight'"),
        (Surrogate(keep=lambda o: {n: v[:1] for n, v in o.items()}), r"keep returned shape \(1, 1, 3, 3\) for"),
        (Surrogate(penalty=lambda u, o: u["network.0.weight"]), "penalty returned tensor"),
        (Surrogate(penalty=lambda u, o: 3.0), r"penalty returned 3\.0; return a tensor"),
    ],
)
def test_what_a_surrogate_returns_is_checked_before_it_can_weaken_an_attack(said, message, make_task):
    task, _, _ = make_task()
    with pytest.raises(TypeError, match=message):
        check_simulation(Chain((Odd(said),)).simulation(task), task)


@pytest.mark.parametrize("parts", NOISELESS.values(), ids=NOISELESS)
def test_every_built_in_simulation_passes_the_check(parts, make_task):
    chain = Chain(parts)
    task, _, _ = make_task(chain.schedule(Schedule()))
    check_simulation(chain.simulation(task), task)


def test_a_share_s_gradient_is_checked_too(make_task):
    task, _, _ = make_task()
    known = replace(Chain((LargerBatch(2), DpSgd())).simulation(task), gradient=lambda loss, params, x, y: {})
    with pytest.raises(TypeError, match="gradient returned tensors"):
        check_simulation(known, task)
