"""The conformance suite: every rule is broken by a plugin made for it, and by it alone."""

import random
import textwrap

import numpy as np
import pytest
import torch

from bench.conformance.suite import RULES, conformance
from bench.errors import ConfigurationError

DEFENSE = '''
import math, torch
from dataclasses import dataclass, replace
from typing import ClassVar
from leakboard import Batch, Defense, Guarantee, Schedule, Surrogate, local_training

@dataclass(frozen=True)
class Mine(Defense):
    """Halve the update; a heuristic."""

{body}
'''
ATTACK = '''
import torch
from dataclasses import dataclass, replace
from leakboard import Attack, Reconstruction, UnsupportedPair, believed_labels

@dataclass(frozen=True)
class Mine(Attack):
    """Show a grey image; a heuristic."""

{body}
'''
TRANSFORM = """
def transform(self, task, update, rng):
    {}
"""
SHARE = """
def share(self, task, params, batch, rng):
    {}
"""
HALVE = TRANSFORM.format("return {name: u / 2 for name, u in update.items()}")
NOISE = TRANSFORM.format(
    "return {n: u + 0.1 * torch.randn(u.shape, generator=rng, dtype=u.dtype) for n, u in update.items()}"
)
MASK = TRANSFORM.format(
    "return {n: 10 * u * (torch.rand(u.shape, generator=rng, dtype=u.dtype) < 0.1) for n, u in update.items()}"
)
PADS = """
def transform(self, task, update, rng):
    pads = torch.Generator().manual_seed({})
    return {{n: u + 0.1 * torch.randn(u.shape, generator=pads, dtype=u.dtype) for n, u in update.items()}}
"""
TRAIN = SHARE.format("return local_training(task, params, batch, rng, task.gradient)")
FOUND = """
def grey(self, seen):
    like = next(iter(seen.params.values()))
    return like.new_full((seen.trials, seen.images, *seen.task.input_shape), 0.5)

def reconstruct(self, observation, seeds):
    images, labels, seen = self.grey(observation), believed_labels(observation), observation
    {}
"""
ANSWER = FOUND.format("return Reconstruction(images, labels)")
ONES = "ones = images.new_ones(seen.trials); "

BROKEN_DEFENSES = {
    "constructs": ("pass", "implements none of them; implement exactly one of schedule, share, transform"),
    "documented": (HALVE, "names no source: add author and year"),
    "parameters": ("strength = 0.5\n" + HALVE, "write strength: float = 0.5 in a dataclass"),
    "shapes": (
        TRANSFORM.format("return {name: u.float() for name, u in update.items()}"),
        "torch.float32 for 'network.0.weight', which is (12, 1, 5, 5) torch.float64; keep shape and type",
    ),
    "generator": (
        TRANSFORM.format("return {name: u + torch.randn_like(u) for name, u in update.items()}"),
        "moved a global random state; draw from rng",
    ),
    "arguments": (
        TRANSFORM.format("return {name: u.mul_(0.5) for name, u in update.items()}"),
        "wrote into 'network.0.weight'; return new tensors",
    ),
    "seeds": (
        "calls: ClassVar[list] = []\n"
        + TRANSFORM.format("self.calls.append(1); return {n: u * len(self.calls) for n, u in update.items()}"),
        "gives other values when called again with the same seed",
    ),
    "draws": (
        PADS.format("int(torch.randint(2**16, (), generator=rng))"),
        "13426 entries vary with the seed, each in its own way, but rng gave 1 numbers; draw one for each entry",
    ),
    "neutral": ('factor: float = 0.5\nneutral: ClassVar[dict] = {"factor": 1.0}\n' + HALVE, "off what none sends"),
    "extremes": (
        TRANSFORM.format("return {name: u / u.norm() for name, u in update.items()}"),
        "given zeros, 'network.0.weight' is infinite or undefined; clamp_min what you divide by",
    ),
    "schedule": (
        SHARE.format("return task.gradient(params, batch)"),
        "of two local epochs at a rate of 1e-05, 'network.0.weight' is not 2 x rate x gradient",
    ),
    "surrogate": (
        HALVE
        + "def surrogate(self, task):\n    return Surrogate(predict=lambda update: "
        + "{name: u * (0.5 if u.abs().max() < 1e9 else 1) for name, u in update.items()})",
        "cannot be simulated",
    ),
    "device": (
        HALVE
        + "def surrogate(self, task):\n    return Surrogate(predict=lambda update: "
        + "{name: u * torch.full(u.shape, 0.5) for name, u in update.items()})",
        "fails on another device than the CPU",
    ),
    "prediction": (
        NOISE + "def surrogate(self, task):\n    return Surrogate(predict=lambda u: {n: 0 * x for n, x in u.items()})",
        "predict has a cosine of 0 with the mean of 16 releases; predict what is sent, or give no surrogate",
    ),
    "slopes": (
        TRANSFORM.format("return {name: u.sign() * u.abs().mean() for name, u in update.items()}")
        + "def surrogate(self, task):\n    return Surrogate(predict=lambda update: "
        + "{name: torch.tanh(1e6 * u) * u.abs().mean() for name, u in update.items()})",
        "its surrogate have a cosine of 0.087 with those of its mean release, over steps of 1% of the update",
    ),
    "residual": (
        MASK + "def surrogate(self, task):\n    return Surrogate(predict=lambda update: update)",
        "says that the update is sent as it is, with noise of deviation 0, but what is left has 0.4",
    ),
    "many": (HALVE + "def transform_many(self, task, updates, rngs):\n    return dict(updates)", "sends another"),
    "privacy": (
        TRAIN + "def privacy(self, schedule, rounds, delta):\n    return 1.0",
        "privacy returned float and float; return leakboard.Guarantee",
    ),
    "run": (
        TRANSFORM.format("update['network.0.weight']; return {name: u / 2 for name, u in update.items()}"),
        "on digits: error: KeyError",
    ),
}
BROKEN_ATTACKS = {
    "constructs": ("pass", "does not implement reconstruct"),
    "documented": (ANSWER, "names no source"),
    "parameters": ("strength = 0.5\n" + ANSWER, "write strength: float = 0.5 in a dataclass"),
    "check": (
        ANSWER + "def check(self, task, labels):\n    if labels == 'joint': raise ValueError('no')",
        "check raised ValueError: no; raise leakboard.UnsupportedPair",
    ),
    "images": (FOUND.format("return Reconstruction(images + 2, labels)"), "lie in [2.5, 2.5]; clamp them to [0, 1]"),
    "labels": (FOUND.format("return Reconstruction(images, labels * 0)"), "differ from those that were given"),
    "objective": (
        FOUND.format(ONES + "return Reconstruction(images, labels, ones, trace={0: ones})"),
        "lacks the objective's start",
    ),
    "agreement": (
        FOUND.format(ONES + "return Reconstruction(images, labels, ones, ones, {0: ones})")
        + "def objective(self, observation, images, labels):\n    return 2 * images.new_ones(len(images))",
        "objective() gives [2.0, 2.0] at its answer, the Reconstruction says [1.0, 1.0]",
    ),
    "features": (
        FOUND.format("return Reconstruction(images, labels, recovered='features')"),
        "recovered is 'features'",
    ),
    "alone": (FOUND.format("return Reconstruction(images / len(seeds), labels)"), "when it is attacked alone"),
    "seeds": (FOUND.format("torch.rand(1); return Reconstruction(images, labels)"), "moved a global random state"),
    "observation": (
        FOUND.format("next(iter(seen.updates.values())).zero_(); return Reconstruction(images, labels)"),
        "wrote into updates['network.1.weight'] of the observation",
    ),
    "control": (
        "control = True\n"
        + FOUND.format(
            "u = next(iter(seen.updates.values())).flatten(1).mean(1).abs().clamp(max=1).nan_to_num()\n"
            "    return Reconstruction(images * u.view(-1, 1, 1, 1, 1), labels)"
        ),
        "its images depend on the update; a floor uses no gradient",
    ),
    "run": (
        FOUND.format(
            "if images.dtype == torch.float32: raise KeyError('no')\n    return Reconstruction(images, labels)"
        ),
        "on digits: error: KeyError: 'no'",
    ),
}
MODEL = SHARE.format("{}; return local_training(task, params, batch, rng, task.gradient)")
CLAMPED = ONES + "images[..., 0, 0] = 0; return Reconstruction(images, labels, ones, ones, {{0: ones}})"
OBJECTIVE = "def objective(self, observation, images, labels):\n    return {} * images.new_ones(len(images))"
NORM_OVER_TRIALS = """
iterations: int = 300

def reconstruct(self, observation, seeds):
    slope = next(iter(observation.updates.values())).flatten(1).mean(1)
    x = mean = square = torch.zeros_like(slope)
    for step in range(1, self.iterations + 1):
        g = (slope - x) / (slope - x).norm()  # Adam's first step does not see the norm of a gradient, its second does.
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        x = x - 0.01 * mean / (1 - 0.9**step) / (square / (1 - 0.999**step)).sqrt()
    images = x.new_ones(observation.trials, observation.images, *observation.task.input_shape)
    return Reconstruction((0.5 + x.view(-1, 1, 1, 1, 1)).clamp(0, 1) * images, believed_labels(observation))
"""
SAYS = "def surrogate(self, task):\n    return Surrogate({})"
ALSO_BROKEN = [
    ("defense", "prediction", (NOISE + SAYS.format("noise_std=10.0"), "states noise of deviation 10, but releases")),
    (
        "defense",
        "prediction",
        (TRANSFORM.format("return {n: u / 100 for n, u in update.items()}") + SAYS.format(""), "is 0.01 x what"),
    ),
    (
        "defense",
        "arguments",
        (MODEL.format("next(task.model.parameters()).data.mul_(0.5)"), "changed network.0.weight of"),
    ),
    ("defense", "arguments", (MODEL.format("task.model.normalise.std.mul_(2)"), "changed normalise.std of task.model")),
    (
        "defense",
        "arguments",
        (MODEL.format("task.model.train()"), "changed the mode of task.model; call task.gradient"),
    ),
    (
        "defense",
        "arguments",
        (MODEL.format("task.model.register_forward_hook(lambda *a: None)"), "changed the hooks of task.model"),
    ),
    (
        "attack",
        "agreement",
        (FOUND.format(CLAMPED.format()) + OBJECTIVE.format(2), "objective() gives [2.0, 2.0] at its"),
    ),
    (
        "attack",
        "agreement",
        (FOUND.format(CLAMPED.format()) + OBJECTIVE.format(0), "objective() gives [0.0, 0.0] at its"),
    ),
    ("attack", "alone", (NORM_OVER_TRIALS, "images of trial 0 differ when it is attacked alone")),
    (
        "defense",
        "draws",
        (
            PADS.format("rng.initial_seed() + 0 * int(torch.randn(20_000, generator=rng)[0])"),
            "gives another release to a generator of the same state and another seed",
        ),
    ),
    (
        "defense",
        "draws",
        (
            PADS.format("hash(float(next(iter(update.values())).sum()))"),
            "adds other noise when the images change by 1e-9",
        ),
    ),
    (
        "defense",
        "slopes",
        (
            TRAIN + SAYS.format("gradient=lambda loss, params, x, y: torch.func.grad(loss)(params, x.detach(), y)"),
            "its surrogate have a cosine of 0 with",
        ),
    ),
    (
        "defense",
        "residual",
        (NOISE + SAYS.format("noise_std=0.12"), "noise of deviation 0.12, but what is left has 0.1;"),
    ),
    (
        "defense",
        "residual",
        (
            TRANSFORM.format(
                "return {n: u + u * torch.randn(u.shape, generator=rng, dtype=u.dtype) / 3 for n, u in update.items()}"
            )
            + SAYS.format("predict=lambda update: {n: u + 0.5 * u.abs() for n, u in update.items()}"),
            "its surrogate leaves a residual of",
        ),
    ),
    (
        "defense",
        "prediction",
        (
            HALVE + SAYS.format("keep=lambda sent: sent, predict=lambda u: {n: u / 2 for n, u in u.items()}"),
            "surrogate's keep has a cosine of",
        ),
    ),
]
BROKEN = [("defense", *row) for row in BROKEN_DEFENSES.items()] + [("attack", *row) for row in BROKEN_ATTACKS.items()]
BROKEN += ALSO_BROKEN


def write(folder, kind, body, name="mine"):
    """The path of a plugin whose class has this body."""
    path = folder / f"{name}.py"
    path.write_text((DEFENSE if kind == "defense" else ATTACK).format(body=textwrap.indent(body, "    ")))
    return path


@pytest.mark.parametrize(("kind", "rule", "broken"), BROKEN, ids=[f"{kind}-{rule}" for kind, rule, _ in BROKEN])
def test_a_plugin_that_breaks_a_rule_fails_by_this_rule_alone_and_is_told_what_to_do(tmp_path, kind, rule, broken):
    body, reason = broken
    path = write(tmp_path, kind, body)
    if rule == "documented":
        path.write_text(path.read_text().replace("; a heuristic", ""))
    findings = conformance("mine", plugins=[path])
    assert [finding.rule for finding in findings if finding.failed] == [rule], [str(f) for f in findings if f.failed]
    [failed] = [finding for finding in findings if finding.failed]
    assert reason in failed.text


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_has_a_plugin_that_breaks_it(kind):
    """But the device of an attack, which needs a GPU to be wrong on."""
    broken = {"defense": BROKEN_DEFENSES, "attack": BROKEN_ATTACKS}[kind]
    beyond = {"device"} if kind == "attack" else set()
    assert {"constructs", *(rule.name for rule in RULES[kind])} == broken.keys() | beyond


@pytest.mark.parametrize(("kind", "body"), [("defense", HALVE), ("defense", TRAIN), ("attack", ANSWER)])
def test_a_plugin_that_keeps_every_rule_has_no_failed_finding(tmp_path, kind, body):
    findings = conformance("mine", plugins=[write(tmp_path, kind, body)])
    assert [str(finding) for finding in findings if finding.failed] == []
    assert [finding.rule for finding in findings] == ["constructs", *(rule.name for rule in RULES[kind])]
    assert findings[-1].status == "passed"


def test_what_does_not_apply_says_why(tmp_path):
    found = {finding.rule: finding for finding in conformance("mine", plugins=[write(tmp_path, "defense", HALVE)])}
    assert found["surrogate"].status == found["neutral"].status == found["privacy"].status == "not applicable"
    assert found["surrogate"].text.startswith("unaudited: no surrogate")
    assert found["neutral"].text.startswith("declares no neutral parameters")


def test_whatever_a_method_raises_breaks_the_rule_and_names_the_line(tmp_path):
    path = write(tmp_path, "defense", TRANSFORM.format("raise SystemExit('leaving')"))
    found = {finding.rule: finding for finding in conformance("mine", plugins=[path])}
    assert found["shapes"].failed
    assert found["shapes"].text == f"SystemExit: leaving ({path}:13)"
    assert found["run"].text == "asked when no other rule is broken"


def test_a_file_that_does_not_import_breaks_one_rule_and_no_other_can_be_asked(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from leakboard import Defense\nimport no_such_module\nclass Mine(Defense):\n    pass\n")
    [first, *others] = conformance("mine", plugins=[path])
    assert (first.rule, first.status) == ("constructs", "failed")
    assert "No module named 'no_such_module'" in first.text
    assert {finding.status for finding in others} == {"not applicable"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("gradient_prunig", r"unknown method 'gradient_prunig'; did you mean 'gradient_pruning'\?"),
        ("gradient_pruning", r"ratio is required \(float\); check gradient_pruning\(ratio=\.\.\.\)"),
        ("gradient_pruning(ratoi=1)", r"unknown parameter 'ratoi'; did you mean 'ratio'\?"),
        ("gradient_pruning(ratio=2)", r"ratio must lie in \[0, 1\), got 2"),
        ("gradient_pruning(ratio=[0.1,0.2])", r"names 2 methods; give one value for each parameter"),
        ("none | zeros", r"'none \| zeros' is a chain; check its parts one by one"),
        ("none(", r"cannot read 'none\('"),
    ],
)
def test_a_mistake_in_the_call_is_no_broken_rule(call, message):
    with pytest.raises(ConfigurationError, match=message):
        conformance(call)


def test_an_attack_is_checked_at_few_iterations_unless_the_call_says_how_many(monkeypatch):
    from bench.conformance import suite
    from bench.registry.registry import Registry

    subject = lambda call: suite.subject_of("attack", call, Registry())
    assert subject("ig@neurips20").method.iterations == 2
    assert subject("inverting_gradients(iterations=7)").method.iterations == 7


def test_the_global_random_state_is_given_back(tmp_path):
    path = write(tmp_path, "defense", BROKEN_DEFENSES["generator"][0])
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    conformance("mine", plugins=[path])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), repr(np.random.get_state()))


def test_a_noisy_share_is_asked_for_its_steps_where_it_is_neutral(tmp_path):
    noisy = "std: float = 0.5\n{}" + SHARE.format(
        "step = lambda p, b: {{n: g + self.std * torch.randn(g.shape, generator=rng, dtype=g.dtype) "
        "for n, g in task.gradient(p, b).items()}}; return {}"
    )
    right, wrong = "local_training(task, params, batch, rng, step)", "step(params, batch)"
    neutral = 'neutral: ClassVar[dict] = {"std": 0.0}\n'
    status = {}
    for i, (declared, share) in enumerate([("", right), (neutral, right), (neutral, wrong)]):
        path = write(tmp_path, "defense", noisy.format(declared, share), name=f"noisy_{i}")
        [status[i]] = [f.status for f in conformance(f"noisy_{i}", plugins=[path]) if f.rule == "schedule"]
    assert status == {0: "not applicable", 1: "passed", 2: "failed"}


@pytest.mark.parametrize(("slope", "status"), [("0.1", "passed"), ("1e-6", "failed")])
def test_a_share_that_sends_signs_is_asked_for_slopes_in_steps_of_its_update(tmp_path, slope, status):
    """A step along its images moves each entry by little, and crosses next to none of the jumps."""
    signs = "{n: u.sign() for n, u in local_training(task, params, batch, rng, task.gradient).items()}"
    smooth = SAYS.format(f"predict=lambda update: {{n: torch.tanh(u / {slope}) for n, u in update.items()}}")
    path = write(tmp_path, "defense", SHARE.format(f"return {signs}") + smooth)
    assert [f.status for f in conformance("mine", plugins=[path]) if f.rule == "slopes"] == [status]
