"""Clients of two images, the observations of them that the rules are asked of, and the global random state."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.black_box import Lessons
from attacks.observation import Observation, PublicImages
from attacks.threat import ThreatModel
from bench.conformance.findings import NotApplicable
from bench.data.dataset import digest_of
from bench.engines.run import prepare
from bench.grid.config import from_toml
from bench.registry.registry import Registry
from bench.trial.black_box import OwnBlackBox
from bench.trial.clients import BlockRelease, observe
from defenses.chain import Chain
from defenses.defense import Defense
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Batch, Params, Task

SETTINGS = {"mlp": ("digits", '{ name = "mlp", hidden = [16] }'), "lenet": ("mnist-samples", '"lenet-zhu"')}
"""Name -> dataset and model: small, and there without a network."""
PAIRS = "larger_batch(examples=2)"
STEPS = f"{PAIRS} | local_epochs(epochs=2, batch_size=1, learning_rate=0.1)"
CLIENTS = {
    "one image": ("none", True),
    "gradient": (PAIRS, True),
    "weight difference": (STEPS, True),
    "unknown schedule": (STEPS, False),
}
"""Name -> the client's defense, and whether the attacker knows its schedule."""
LABELS = ("known", "recovered", "joint")
_GRID = """
name = "conformance"
[grid]
dataset = "{dataset}"
models = [{model}]
images = 4
attacks = ["grey_image", "inverting_gradients(iterations=1)"]
defenses = ["{defense}"]
"""


@dataclass(frozen=True)
class Subject:
    """A method at hand: `kind` is "attack" or "defense", `call` names it with all parameters, `registry` has it."""

    kind: str
    call: str
    method: Any
    registry: Registry = field(default_factory=Registry)
    seen: dict[tuple[str, str, str], AttackCase] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.call.partition("(")[0]


@dataclass(frozen=True)
class DefenseCase:
    """A defense, and what a client of two images hands to it; `params` and `batch` are of one type."""

    defense: Defense
    task: Task
    params: Params
    batch: Batch

    @property
    def title(self) -> str:
        return f"in {next(iter(self.params.values())).dtype}"


@dataclass(frozen=True)
class AttackCase:
    """An attack, what it sees, in float64, and one seed per trial."""

    attack: Attack
    seen: Observation
    seeds: list[int]
    title: str = ""

    @cached_property
    def found(self) -> Reconstruction:
        """The answer, found once for all rules that read it."""
        return self.reconstruct()

    def reconstruct(self) -> Reconstruction:
        """The answer, found on a copy of the observation; raises `NotApplicable` where the attack is impossible."""
        self.check_possible()
        try:
            return self.attack.reconstruct(deepcopy(self.seen), list(self.seeds))
        except UnsupportedPair as reason:
            raise NotApplicable(f"not possible: {reason}") from None

    def check_possible(self) -> None:
        """Raise `NotApplicable` where the attack says that it cannot be run here, or cannot say it."""
        try:
            self.attack.check(self.seen.task, self.seen.threat.labels)
        except UnsupportedPair as reason:
            raise NotApplicable(f"not possible: {reason}") from None
        except Exception as error:
            raise NotApplicable(f"its check ended in {type(error).__name__}, see the rule check") from error


@cache
def release(setting: str, defense: str) -> tuple[BlockRelease, Tensor | None, Chain]:
    """The updates of two clients of two images, or four of one, under a defense, the class means, and the defense."""
    dataset, model = SETTINGS[setting]
    config = from_toml(_GRID.format(dataset=dataset, model=model, defense=defense))
    _, _, clients, plan = prepare(config)
    [block] = plan.cells[0].blocks(4)
    cell = block.cell
    return clients.release(block), clients.class_means(cell.setting), clients.chain(cell.defense)


def observation(setting: str, defense: str = "none", **threat: Any) -> tuple[Observation, list[int]]:
    """A server's observation of a setting's clients, in float64, and one seed per trial."""
    released, means, chain = release(setting, defense)
    seen = observe(released, ThreatModel(**threat), means, public_images(released.task))
    if seen.public is not None:
        known = seen.threat.defense_known and seen.task is released.task
        box = OwnBlackBox(chain if known else Chain((NoDefense(),)), seen.task, seen.params)
        seen = replace(seen, black_box=box, lessons=_lessons(setting, defense, seen.threat))
    return seen.to("cpu", torch.float64), [11 + trial for trial in range(seen.trials)]


@cache
def _lessons(setting: str, defense: str, threat: ThreatModel) -> Lessons:
    """The lessons of all attacks on these clients: what public images teach is the same in every rule."""
    return Lessons()


def public_images(task: Task) -> PublicImages:
    """Two hundred smooth images of noise, of every class alike: small sets have no training half."""
    coarse = torch.rand((200, task.input_shape[0], 4, 4), generator=Generator().manual_seed(0))
    images = (interpolate(coarse, task.input_shape[1:], mode="bilinear") * 255).to(torch.uint8)
    labels = torch.arange(len(images)) % task.classes
    return PublicImages(images, labels, digest_of(images, labels))


def itself(subject: Subject) -> Iterator[Subject]:
    """The method alone."""
    yield subject


def two_images(subject: Subject) -> Iterator[DefenseCase]:
    """A client of two images in float32, then in float64."""
    for dtype in (torch.float32, torch.float64):
        yield defense_case(subject.method, dtype)


def in_float64(subject: Subject) -> Iterator[DefenseCase]:
    """A client of two images in float64 alone."""
    yield defense_case(subject.method, torch.float64)


def defense_case(defense: Defense, dtype: torch.dtype) -> DefenseCase:
    """A client of two images of `mnist-samples` that trains a LeNet."""
    own, *_ = release("lenet", PAIRS)
    task = replace(own.task, model=deepcopy(own.task.model).to(dtype), schedule=Schedule(images=2))
    params = {name: p.to(dtype) for name, p in own.params.items()}
    return DefenseCase(defense, task, params, Batch(own.truth[0].to(dtype) / 255, own.labels[0]))


def attack_case(attack: Attack, setting: str, client: str, labels: str) -> AttackCase:
    """Two clients of two images, as named in `SETTINGS` and `CLIENTS`, under a threat model."""
    defense, known = CLIENTS[client]
    public = attack.needs_public
    seen, seeds = observation(setting, defense, labels=labels, schedule_known=known, public=public)
    return AttackCase(attack, seen, seeds, f"{setting}, {client}, labels {labels}")


def everywhere(subject: Subject) -> Iterator[AttackCase]:
    """Every setting, client and knowledge of labels."""
    yield from _cases(subject, SETTINGS, CLIENTS, LABELS)


def gradients(subject: Subject) -> Iterator[AttackCase]:
    """Clients that send a gradient of two images, in every setting and knowledge of labels."""
    yield from _cases(subject, SETTINGS, ["gradient"], LABELS)


def plain(subject: Subject) -> Iterator[AttackCase]:
    """Clients that send a gradient of two images whose labels are known, in every setting."""
    yield from _cases(subject, SETTINGS, ["gradient"], ["known"])


def recovered(subject: Subject) -> Iterator[AttackCase]:
    """Clients that send a gradient of two images whose labels are not given, in every setting."""
    yield from _cases(subject, SETTINGS, ["gradient"], ["recovered"])


def _cases(
    subject: Subject, settings: Iterable[str], clients: Iterable[str], labels: Iterable[str]
) -> Iterator[AttackCase]:
    for key in itertools.product(settings, clients, labels):
        if key not in subject.seen:  # Rules that ask for the same observation share what was found there.
            subject.seen[key] = attack_case(subject.method, *key)
        yield subject.seen[key]


def global_state() -> Any:
    """The state of every global generator, to compare."""
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


def seed_everything(seed: int) -> None:
    """Seed every global generator on the CPU."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def kept_global_state() -> Iterator[None]:
    """Give the global generators back as they were."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
