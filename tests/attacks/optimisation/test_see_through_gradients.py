"""Yin et al.'s attack: its groups, its priors, and what the threat model lets it know of batch norm."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from attacks.attack import UnsupportedPair
from attacks.engine.descent import Adam, descend
from attacks.engine.execution import Execution, executing
from attacks.engine.program import Program, untraced
from attacks.labels import distinct_labels
from attacks.matching.distances import relative_squared_distance, squared_distance
from attacks.matching.priors import batch_norm_prior
from attacks.matching.problem import MatchingProblem
from attacks.observation import Observation, joined
from attacks.optimisation.see_through_gradients import SeeThroughGradients, deviation
from attacks.threat import ThreatModel
from defenses.batch_norm import batch_norm_inputs, batch_norms, batch_statistics
from defenses.compression.gradient_pruning import GradientPruning
from defenses.noise.gaussian_noise import GaussianNoise
from defenses.schedule import Schedule
from defenses.task import Batch, Classifier, Normalise, Task

BATCH, UNKNOWN = ThreatModel(batch_norm="batch"), ThreatModel(batch_norm="unknown")


def normed_task(images=2, dtype=torch.float64):
    """A small network with two batch-norm layers, whose running statistics are not those at the start."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.BatchNorm1d(48),
        nn.Linear(48, 4),
    )
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    model = Classifier(Normalise((0.5,), (0.25,)), network).eval().to(dtype)
    return Task(model, 4, (1, 4, 4), Schedule(images=images))


@pytest.fixture
def observed():
    """An observation of a task, and its private images (t b c h w) and labels (t b)."""

    def make(task, threat, trials=2):
        generator = torch.Generator().manual_seed(1)
        like = next(task.model.parameters())
        params = {name: p.detach() for name, p in task.model.named_parameters()}
        images = torch.rand((trials, task.schedule.images, *task.input_shape), generator=generator).to(like)
        labels = torch.arange(task.schedule.images).expand(trials, -1)
        sent = [task.gradient(params, Batch(x, y)) for x, y in zip(images, labels, strict=True)]
        updates = {name: torch.stack([u[name] for u in sent]) for name in params}
        statistics = batch_statistics(task, params, images) if threat.batch_norm == "batch" else None
        seen = Observation(task, params, updates, labels, threat, batch_statistics=statistics)
        return seen, images, labels

    return make


def test_the_relative_distance_is_a_fraction_of_the_observed_square():
    observed = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    zero = {name: torch.zeros(1) for name in observed}
    assert float(relative_squared_distance(zero, observed)) == 1
    assert float(relative_squared_distance({"a": torch.zeros(1), "b": observed["b"]}, observed)) == pytest.approx(0.36)
    assert torch.isfinite(relative_squared_distance(observed, zero))


def test_the_rate_rises_to_its_value_and_falls_to_nothing_by_half_a_cosine():
    adam = Adam(iterations=110, learning_rate=2.0, warmup=10, annealed=True)
    assert [adam.rate(i) for i in (0, 4, 9, 10, 60)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0])
    assert 0 < adam.rate(109) < 1e-3
    assert [Adam(10, 0.5).rate(i) for i in (0, 9)] == [0.5, 0.5]
    with pytest.raises(ValueError, match="warmup"):
        Adam(10, warmup=-1)


def test_moments_are_those_of_the_inputs_of_every_batch_norm_layer(observed):
    seen, images, _ = observed(normed_task(), BATCH)
    for trial in range(2):
        inputs = seen.task.model.network[0](seen.task.normalise(images[trial]))
        assert torch.allclose(seen.batch_statistics["network.1.mean"][trial], inputs.mean((0, 2, 3)))
        assert torch.allclose(seen.batch_statistics["network.1.variance"][trial], inputs.var((0, 2, 3), correction=0))
    assert [tuple(s.shape) for s in seen.batch_statistics.values()] == [(2, 3), (2, 3), (2, 48), (2, 48)]


def test_catching_inputs_leaves_no_hook_behind_even_when_the_call_fails():
    model = normed_task().model
    with pytest.raises(RuntimeError), batch_norm_inputs(model) as inputs:
        model(torch.zeros(2, 7, 4, 4, dtype=torch.float64))
    assert inputs == {}
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_the_batch_norm_prior_is_zero_at_the_truth_of_a_client_that_sends_its_statistics(observed):
    seen, images, labels = observed(normed_task(), BATCH)
    prior = batch_norm_prior(seen)
    sent = {name: s[0] for name, s in seen.batch_statistics.items()}
    own, other = (float(prior(seen.params, seen.task.normalise(x), sent)) for x in (images[0], images[1]))
    assert own < 1e-5  # what keeps the slope finite
    assert other > 0.01
    weightless = SeeThroughGradients(tv_weight=0.0, norm_weight=0.0)
    assert float(weightless.objective(seen, images, labels).max()) < 1e-5


def test_the_running_statistics_are_the_target_where_nothing_was_sent(observed):
    seen, images, _ = observed(normed_task(), ThreatModel())
    value = batch_norm_prior(seen)(seen.params, seen.task.normalise(images[0]), {})
    expected = 0.0
    inputs = seen.task.normalise(images[0])
    seen.task.model.requires_grad_(False)
    for i, layer in enumerate(seen.task.model.network):
        if i in (1, 4):
            own = inputs.transpose(0, 1).flatten(1)
            unit, channels = layer.running_var + 1e-5, len(own)
            means = (own.mean(1) - layer.running_mean) / unit.sqrt()
            variances = (own.var(1, correction=0) - layer.running_var) / unit
            expected += float((means.norm() + variances.norm()) / channels**0.5 / 2)
        inputs = layer(inputs)
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_running_statistics_that_were_never_updated_say_nothing(case):
    assert batch_norm_prior(case("resnet20", trials=1).observation) is None
    seen = case("resnet20", trials=1).observation
    seen.task.model.network[1].running_mean[0] = 0.1
    assert batch_norm_prior(seen) is not None
    assert batch_norm_prior(case("resnet20", trials=1, threat=BATCH).observation) is not None


@pytest.mark.parametrize("threat", [ThreatModel(), BATCH, UNKNOWN], ids=lambda t: t.batch_norm)
def test_networks_without_batch_norm_are_attacked_without_its_prior(case, threat):
    seen = case(dataset="digits", model="mlp", hidden=(16,), trials=2, threat=threat).observation
    assert batch_norm_prior(seen) is None
    plain = case(dataset="digits", model="mlp", hidden=(16,), trials=2, threat=UNKNOWN).observation
    attack = SeeThroughGradients(iterations=3, group_size=2)
    found = attack.reconstruct(seen, [0, 1])
    assert torch.equal(found.images, attack.reconstruct(plain, [0, 1]).images)


def test_what_is_not_granted_changes_no_byte(observed):
    """Statistics of other images, put where the threat model grants none, are never read."""
    attack = SeeThroughGradients(iterations=3, group_size=2, batch_norm_weight=1.0)
    for threat in (ThreatModel(), UNKNOWN):
        seen, _, _ = observed(normed_task(), threat)
        wrong = observed(normed_task(), BATCH, trials=2)[0].batch_statistics
        spoiled = replace(seen, batch_statistics={name: s + 1 for name, s in wrong.items()})
        assert torch.equal(attack.reconstruct(seen, [0, 1]).images, attack.reconstruct(spoiled, [0, 1]).images)


def test_every_kind_of_knowledge_gives_another_answer(observed):
    attack = SeeThroughGradients(iterations=3, group_size=1, batch_norm_weight=1.0)
    answers = [
        attack.reconstruct(observed(normed_task(), threat)[0], [0, 1]).images
        for threat in (ThreatModel(), BATCH, UNKNOWN)
    ]
    assert not any(torch.equal(a, b) for a, b in ((answers[0], answers[1]), (answers[1], answers[2])))


def test_statistics_follow_their_trials_through_joining_and_cutting(observed):
    seen, _, _ = observed(normed_task(), BATCH, trials=3)
    again = joined([seen[:1], seen[1:]])
    assert all(torch.equal(again.batch_statistics[name], s) for name, s in seen.batch_statistics.items())
    assert {s.dtype for s in seen.to("cpu", torch.float32).batch_statistics.values()} == {torch.float32}
    assert joined([observed(normed_task(), UNKNOWN)[0]] * 2).batch_statistics is None


def test_a_group_of_one_equals_plain_matching_with_the_same_priors(observed):
    seen, _, _ = observed(normed_task(), BATCH)
    attack = SeeThroughGradients(iterations=5, group_size=1)
    problem = attack._problem(seen)
    start, evidence = problem.start([3, 4], 1), problem.evidence(1)
    found = descend(problem.objective, start, evidence, attack._adam, signed=False, box=problem.box())
    expected, group = problem.best(found, evidence, 1), attack.reconstruct(seen, [3, 4])
    assert torch.allclose(group.images, expected.images, atol=1e-12)
    assert torch.allclose(group.objective, expected.objective, rtol=1e-10)


@pytest.mark.parametrize("form", ["double_backward", "forward_over_reverse"])
def test_a_group_s_slopes_are_those_of_its_objective(observed, form):
    seen, _, _ = observed(normed_task(), BATCH)
    attack = SeeThroughGradients(group_size=3, group_weight=0.7)
    problem = attack._problem(seen)
    images = torch.randn(3, 2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    evidence = {name: e[0] for name, e in problem.evidence(1).items()}
    own = vmap(lambda x: problem.objective({"images": x}, evidence))
    slopes, values = attack._of_group(problem.gradients[form])({"images": images}, evidence)
    expected = grad(lambda x: own(x).mean() + 0.7 * (x - x.mean(0)).square().mean())(images)
    assert torch.allclose(slopes["images"], expected, rtol=1e-8, atol=1e-12)
    assert torch.allclose(values, own(images))


def test_members_meet_under_a_strong_pull_and_stay_apart_without_one(observed):
    seen, _, _ = observed(normed_task(), UNKNOWN)
    spread = []
    for weight in (0.0, 1e4):
        attack = SeeThroughGradients(iterations=20, warmup=0, group_size=3, group_weight=weight)
        problem = attack._problem(seen)
        start = {"images": problem.start([0, 1], 3)["images"].unflatten(0, (2, 3))}
        forms = {name: attack._of_group(form) for name, form in problem.gradients.items()}
        moved = descend(
            problem.objective, start, problem.evidence(1), attack._adam, signed=False, box=None, gradients=forms
        )
        spread.append(float(deviation(moved.variables["images"][0])))
    assert spread[1] < 0.5 * spread[0]


def test_the_answer_is_the_member_with_the_lowest_objective_of_its_own(observed):
    seen, _, _ = observed(normed_task(), UNKNOWN)
    attack = SeeThroughGradients(iterations=8, group_size=4)
    found = attack.reconstruct(seen, [0, 1])
    problem = attack._problem(seen)
    start = {"images": problem.start([0, 1], 4)["images"].unflatten(0, (2, 4))}
    forms = {"double_backward": attack._of_group(problem.gradients["double_backward"])}
    group = descend(
        problem.objective, start, problem.evidence(1), attack._adam, signed=False, box=problem.box(), gradients=forms
    )
    members = seen.task.denormalise(group.variables["images"]).clamp(0, 1)
    own = torch.stack([attack.objective(seen, members[:, g], seen.labels) for g in range(4)], dim=1)
    assert torch.allclose(found.objective, own.min(dim=1).values, rtol=1e-9)
    assert torch.equal(found.images, members[torch.arange(2), own.argmin(dim=1)])
    assert torch.allclose(attack.objective(seen, found.images, found.labels), found.objective, rtol=1e-9)


def test_a_traced_step_of_a_group_equals_the_plain_one(observed):
    seen, _, _ = observed(normed_task(), BATCH)
    attack = SeeThroughGradients(group_size=2)
    problem = attack._problem(seen)
    step = vmap(attack._of_group(problem.gradients["double_backward"]))
    start = {"images": problem.start([0, 1], 2)["images"].unflatten(0, (2, 2))}
    evidence = problem.evidence(1)
    program = Program(step, (start, evidence), fixed=1)
    other = {"images": start["images"].flip(0) * 0.5}
    (found, values), (slopes, expected) = program(other, evidence), untraced(step)(other, evidence)
    assert torch.allclose(values, expected, rtol=1e-12)
    assert torch.allclose(found["images"], slopes["images"], rtol=1e-10, atol=1e-14)
    assert not any(m._forward_pre_hooks for m in seen.task.model.modules())


def test_chunks_of_groups_give_what_all_groups_together_give(observed):
    seen, _, _ = observed(normed_task(), BATCH, trials=3)
    attack = SeeThroughGradients(iterations=4, group_size=2)
    whole = attack.reconstruct(seen, [0, 1, 2])
    with executing(Execution(lanes=1)):
        cut = attack.reconstruct(seen, [0, 1, 2])
    assert torch.allclose(cut.images, whole.images, atol=1e-10)
    assert torch.allclose(cut.objective, whole.objective, rtol=1e-9)


def test_a_network_in_bfloat16_is_compared_in_float32(observed):
    seen, images, labels = observed(normed_task(dtype=torch.float32), BATCH)
    attack = SeeThroughGradients(iterations=2, group_size=2, tv_weight=0.0, norm_weight=0.0)
    with executing(Execution(precision="bfloat16")):
        found = attack.reconstruct(seen, [0, 1])
        at_truth = attack.objective(seen, images, labels)
    assert (found.images.dtype, found.objective.dtype) == (torch.float32, torch.float32)
    assert 1e-6 < float(at_truth.max()) < 1e-2  # bfloat16 has 8 bits


def test_the_simulated_update_adapts_to_a_known_defense(case):
    known = ThreatModel(defense_known=True)
    seen = case(trials=1, dtype=torch.float64, defense=(GradientPruning(ratio=0.9),), threat=known)
    attack = SeeThroughGradients(tv_weight=0.0, norm_weight=0.0)
    blind = replace(seen.observation, defense=None)
    assert float(attack.objective(seen.observation, seen.images, seen.labels)) < 1e-12
    assert float(attack.objective(blind, seen.images, seen.labels)) > 1e-3


def test_known_noise_weighs_the_same_beside_the_relative_and_the_plain_squared_distance(case):
    known = ThreatModel(defense_known=True)
    seen = case(trials=2, dtype=torch.float64, defense=(GaussianNoise(std=0.01),), threat=known)
    squares = torch.stack([u.flatten(1).square().sum(1) for u in seen.observation.updates.values()]).sum(0)
    for lane, square in enumerate(squares.tolist()):
        trial = slice(lane, lane + 1)
        truth = seen.images[trial], seen.labels[trial]
        # The weight that a grid sets is scaled alike, so that all of the objective is.
        plain = MatchingProblem(seen.observation[trial], squared_distance, 1e-9 * square).at(*truth)
        relative = MatchingProblem(seen.observation[trial], relative_squared_distance, 1e-9).at(*truth)
        assert float(plain / square) == pytest.approx(float(relative), rel=1e-9)


@pytest.mark.parametrize("model", ["lenet-zhu", "resnet20"])
def test_different_labels_of_a_batch_are_recovered_exactly(case, model):
    """Features behind a sigmoid or a ReLU are never negative; four real images of four classes to each client."""
    seen = case(
        model, dataset="cifar100-samples", trials=5, schedule=Schedule(images=4), threat=ThreatModel("recovered")
    )
    assert all(len(set(row.tolist())) == 4 for row in seen.labels)
    assert torch.equal(distinct_labels(seen.observation), seen.labels.sort(dim=1).values)
    attack = SeeThroughGradients(iterations=1, group_size=1)
    if model == "lenet-zhu":
        assert torch.equal(attack.reconstruct(seen.observation, list(range(5))).labels, seen.labels.sort(dim=1).values)


def test_more_images_than_classes_cannot_have_different_labels():
    task = normed_task(images=5)
    SeeThroughGradients().check(task, "known")
    with pytest.raises(UnsupportedPair, match="5 images cannot have different labels of 4 classes"):
        SeeThroughGradients().check(task, "recovered")


@pytest.mark.parametrize(
    "wrong",
    [{"iterations": 0}, {"group_size": 0}, {"tv_weight": -1.0}, {"batch_norm_weight": float("inf")}, {"warmup": -1}],
    ids=str,
)
def test_impossible_constants_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SeeThroughGradients(**wrong)


def test_statistics_of_the_batch_are_more_knowledge_and_only_what_is_asked_for_enters_the_identity():
    assert BATCH.sok_class(local_steps=True) == BATCH.sok_class(local_steps=False) == "E"
    assert ThreatModel().sok_class(local_steps=False) == UNKNOWN.sok_class(local_steps=False) == "B"
    assert ThreatModel().identity == {"labels": "known", "schedule_known": True, "defense_known": False}
    assert BATCH.identity["batch_norm"] == "batch"


def test_the_layers_are_found_by_name():
    assert list(batch_norms(normed_task().model)) == ["network.1", "network.4"]
