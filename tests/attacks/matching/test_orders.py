"""Local batches that the client draws in an order of its own."""

from itertools import permutations

import pytest
import torch
from torch.func import vmap

from attacks.engine.descent import Adam, descend
from attacks.matching.distances import cosine_distance
from attacks.matching.problem import MatchingProblem
from attacks.matching.simulation import drawn_orders, simulated_update, slots
from attacks.threat import ThreatModel
from defenses.noise.dp_sgd import DpSgd
from defenses.schedule import Schedule
from defenses.task import Batch, local_training

SCHEDULE = Schedule(images=4, epochs=2, batch_size=2, learning_rate=0.5)


def two_clients(case, schedule=SCHEDULE, **settings):
    return case(dataset="digits", trials=2, schedule=schedule, dtype=torch.float64, **settings)


def differs(first, second):
    return max(float((first[n] - second[n]).abs().max() / second[n].abs().max()) for n in second)


def test_the_prediction_is_the_mean_of_what_the_client_sends_under_each_order(case):
    seen, orders = two_clients(case), drawn_orders(two_clients(case).task, 3)
    images, labels = seen.images[0], seen.labels[0]
    found = simulated_update(seen.task, seen.params, images, labels, orders=orders)
    one_epoch = Schedule(images=4, epochs=1, batch_size=2, learning_rate=0.5)
    sent = []
    for order in orders:
        weights = dict(seen.params)
        for epoch in order:
            for part in one_epoch.local_batches:
                slope = seen.task.gradient(weights, Batch(images[epoch[part]], labels[epoch[part]]))
                weights = {n: w - 0.5 * slope[n] for n, w in weights.items()}
        sent.append({n: seen.params[n] - weights[n] for n in weights})
    assert differs(found, {n: torch.stack([u[n] for u in sent]).mean(0) for n in found}) < 1e-12
    assert differs(sent[0], sent[1]) > 1e-3


def test_one_order_that_is_the_dummy_s_own_changes_nothing(case):
    seen = two_clients(case)
    plain = simulated_update(seen.task, seen.params, seen.images[0], seen.labels[0])
    own = torch.arange(4).expand(1, 2, 4)
    assert differs(simulated_update(seen.task, seen.params, seen.images[0], seen.labels[0], orders=own), plain) < 1e-12


def test_the_mean_over_all_orders_does_not_depend_on_the_images_places(case):
    schedule = Schedule(images=4, epochs=1, batch_size=2, learning_rate=0.5)
    seen = two_clients(case, schedule)
    every = torch.tensor(list(permutations(range(4))))[:, None]
    moved = torch.tensor([2, 0, 3, 1])
    images, labels = seen.images[0], seen.labels[0]
    first = simulated_update(seen.task, seen.params, images, labels, orders=every)
    assert differs(simulated_update(seen.task, seen.params, images[moved], labels[moved], orders=every), first) < 1e-12
    alone = simulated_update(seen.task, seen.params, images, labels)
    assert differs(simulated_update(seen.task, seen.params, images[moved], labels[moved]), alone) > 1e-3


def test_the_mean_over_orders_is_closer_to_what_the_client_sent_than_one_order(case):
    seen = two_clients(case, Schedule(images=8, epochs=2, batch_size=2, learning_rate=0.5))
    orders = drawn_orders(seen.task, 16)
    far = {1: [], 16: []}
    for trial in range(2):
        images, labels = seen.images[trial], seen.labels[trial]
        for draw in range(3):
            rng = torch.Generator().manual_seed(100 + draw)
            sent = local_training(seen.task, seen.params, Batch(images, labels), rng, seen.task.gradient)
            for many, own in ((1, None), (16, orders)):
                found = simulated_update(seen.task, seen.params, images, labels, orders=own)
                far[many].append(float(cosine_distance(found, sent)))
    assert sum(far[16]) < 0.8 * sum(far[1])


@pytest.mark.parametrize("labels", ["known", "joint"])
@pytest.mark.parametrize("defense", [(), (DpSgd(0.1, 0.0),)], ids=["undefended", "dp_sgd"])
def test_both_forms_of_the_gradient_agree_over_orders(case, defense, labels):
    threat = ThreatModel(labels=labels, defense_known=True)
    seen = two_clients(case, defense=defense, threat=threat).observation
    problem = MatchingProblem(seen, cosine_distance, 1e-2, orders=3)
    start, evidence = problem.start([1, 2], 1), problem.evidence(1)
    plain, checkpointed = (
        vmap(problem.gradients[name])(start, evidence) for name in ("double_backward", "checkpointed")
    )
    assert torch.allclose(plain[1], checkpointed[1], rtol=1e-9)
    assert differs(checkpointed[0], plain[0]) < 1e-5


def test_orders_change_the_objective_only_where_the_client_draws_one(case):
    for schedule, drawn in ((SCHEDULE, True), (Schedule(images=4, epochs=2), False), (Schedule(images=4), False)):
        seen = two_clients(case, schedule).observation
        values = []
        for orders in (1, 3):
            problem = MatchingProblem(seen, cosine_distance, orders=orders)
            values.append(vmap(problem.objective)(problem.start([1, 2], 1), problem.evidence(1)))
        assert torch.equal(*values) != drawn


def test_one_order_is_the_dummy_s_own_in_every_epoch(case):
    seen = two_clients(case).observation
    problem = MatchingProblem(seen, cosine_distance, orders=1)
    start, evidence = problem.start([1, 2], 1), problem.evidence(1)
    assert "orders" not in evidence
    images = seen.task.denormalise(start["images"])
    for trial in range(2):
        predicted = simulated_update(seen.task, seen.params, images[trial], evidence["labels"][trial])
        sent = {n: u[trial] for n, u in seen.updates.items()}
        own = {n: v[trial] for n, v in start.items()}, {n: v[trial] for n, v in evidence.items()}
        assert float(problem.objective(*own)) == pytest.approx(float(cosine_distance(predicted, sent)), rel=1e-9)


def test_orders_are_permutations_that_are_drawn_alike_at_every_call(case):
    task = two_clients(case).task
    orders = drawn_orders(task, 5)
    assert orders.shape == (5, 2, 4)
    assert torch.equal(orders.sort(-1).values, torch.arange(4).expand(5, 2, 4))
    assert torch.equal(orders, drawn_orders(task, 5))
    assert len({tuple(order.flatten().tolist()) for order in orders}) == 5
    assert sorted(slots(task).tolist()) == [0, 1, 2, 3]


def test_a_mean_over_no_order_is_refused(case):
    with pytest.raises(ValueError, match="orders must be at least 1, got 0"):
        MatchingProblem(two_clients(case).observation, cosine_distance, orders=0).evidence(1)


def test_an_attack_finds_the_same_traced_as_it_is(case, monkeypatch):
    schedule = Schedule(images=2, epochs=1, batch_size=1, learning_rate=0.5)
    seen = two_clients(case, schedule, model="mlp", hidden=[4]).observation
    problem, found = MatchingProblem(seen, cosine_distance, 1e-2, orders=2), []
    start, evidence = problem.start([1, 2], 1), problem.evidence(1)
    for short in (1000, 0):
        monkeypatch.setattr("attacks.engine.choice.SHORT", short)
        found.append(descend(problem.objective, start, evidence, Adam(3), signed=False, box=problem.box()))
    assert torch.allclose(found[0].variables["images"], found[1].variables["images"], atol=1e-9)
