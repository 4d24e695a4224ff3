"""The protocol: what FedSGD and FedAvg clients send."""

import pytest
import torch

from defenses.aggregation.larger_batch import LargerBatch
from defenses.aggregation.local_epochs import LocalEpochs
from defenses.defense import Defense, role_of
from defenses.schedule import Schedule
from defenses.task import local_training


def test_fedsgd_sends_the_gradient_of_the_mean_loss(make_task, rng):
    task, params, batch = make_task()
    sent = local_training(task, params, batch, rng, task.gradient)
    step = 1e-6
    for name in ("network.4.bias", "network.0.weight"):
        nudged = {**params, name: params[name].clone()}
        nudged[name].view(-1)[0] += step
        slope = (task.loss(nudged, *_data(batch)) - task.loss(params, *_data(batch))) / step
        assert float(sent[name].view(-1)[0]) == pytest.approx(float(slope), abs=1e-6)


def _data(batch):
    return batch.images, batch.labels


def test_one_full_batch_local_step_is_learning_rate_times_gradient(make_task, rng):
    task, params, batch = make_task(Schedule(images=3, epochs=1, learning_rate=0.5))
    sent = local_training(task, params, batch, rng, task.gradient)
    gradient = task.gradient(params, batch)
    assert all(torch.allclose(sent[n], 0.5 * gradient[n], atol=1e-12) for n in params)


def test_fedavg_equals_plain_sgd_over_the_drawn_order(make_task):
    task, params, batch = make_task(Schedule(images=5, epochs=2, batch_size=2, learning_rate=0.3))
    sent = local_training(task, params, batch, torch.Generator().manual_seed(4), task.gradient)
    rng = torch.Generator().manual_seed(4)
    weights = {n: p.clone().requires_grad_() for n, p in params.items()}
    for _ in range(2):
        order = torch.randperm(5, generator=rng)
        for part in (order[:2], order[2:4], order[4:]):
            loss = task.loss(weights, batch.images[part], batch.labels[part])
            slopes = torch.autograd.grad(loss, list(weights.values()))
            weights = {
                n: (w - 0.3 * g).detach().requires_grad_() for (n, w), g in zip(weights.items(), slopes, strict=True)
            }
    assert all(torch.allclose(sent[n], params[n] - weights[n], atol=1e-12) for n in params)


def test_a_batch_that_the_schedule_does_not_want_is_refused(make_task, rng):
    task, params, batch = make_task()
    with pytest.raises(ValueError, match="3 images per update, the batch has 2"):
        local_training(task, params, batch[:2], rng, task.gradient)


def test_normalise_and_denormalise_are_inverse(make_task):
    task, _, batch = make_task()
    assert torch.allclose(task.denormalise(task.normalise(batch.images)), batch.images, atol=1e-14)
    assert float(task.normalise(torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64))) == 0


@pytest.mark.parametrize(
    ("schedule", "steps", "scale"),
    [
        (Schedule(images=4), 1, 1.0),
        (Schedule(images=4, epochs=3, learning_rate=0.1), 3, 0.3),
        (Schedule(images=5, epochs=2, batch_size=2, learning_rate=0.1), 6, 0.6),
    ],
)
def test_a_schedule_counts_its_steps(schedule, steps, scale):
    assert schedule.steps == steps
    assert schedule.update_scale == pytest.approx(scale)


def test_schedules_change_only_what_they_name():
    base = Schedule(images=2, epochs=1, batch_size=1, learning_rate=0.2)
    assert LargerBatch(examples=8).schedule(base) == Schedule(8, 1, 1, 0.2)
    assert LocalEpochs(epochs=5, learning_rate=0.1).schedule(base) == Schedule(2, 5, None, 0.1)


def test_a_defense_must_implement_exactly_one_method():
    with pytest.raises(TypeError, match="implements none of them"):
        type("Nothing", (Defense,), {})
    with pytest.raises(TypeError, match="share and transform"):
        type("Both", (Defense,), {"share": lambda *_: {}, "transform": lambda *_: {}})
    assert role_of(LargerBatch) == "schedule"
