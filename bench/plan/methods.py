"""The attacks and defenses of a grid, and the checks that decide how each of them can run in a setting."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from attacks.attack import Attack, UnsupportedPair
from attacks.threat import ThreatModel
from bench.errors import ConfigurationError
from bench.grid.cells import PRIOR_SETTINGS, PublicSet
from bench.grid.config import Config
from bench.registry.registry import Registry
from bench.registry.sources import named
from bench.registry.specs import ChainSpec, MethodSpec, chain_label
from bench.trial.clients import Clients
from defenses.chain import Chain, DefenseFault
from defenses.schedule import Schedule
from defenses.surrogate import check_simulation
from defenses.task import Task


@dataclass(frozen=True)
class PlannedAttack:
    """An attack of the grid, or a control that joins it."""

    spec: MethodSpec
    """The attack with all its parameters."""
    method: type[Attack]
    """The attack's class."""
    order: int
    """Its place among the attacks on each defense."""
    wrong_image: int | None
    """The place of its control `wrong_image`; None where nothing is compared with controls, and for controls."""
    same_class: int | None
    """The place of its control `same_class`, which is there beside public images; None as above, and for attacks that
    are after labels: no floor judges them."""


@dataclass(frozen=True)
class PlannedDefense:
    """A defense of the grid."""

    parts: ChainSpec
    """Its parts with all their parameters."""
    chain: Chain
    """The object that defends."""
    schedule: Schedule
    """The client's work after the defense."""
    order: int
    """Its place among the defenses."""


@dataclass(frozen=True)
class Disclosure:
    """An attacker's means against a defense in one setting, whatever the threat model."""

    schedule: Schedule
    """The client's work after the defense."""
    simulated: bool
    """True if the defense has a surrogate."""
    public: bool
    """True if its schedule is all that there is to simulate."""

    def is_audited(self, threat: ThreatModel) -> bool:
        """True if an attack that knows the defense under this threat model has something to adapt by."""
        # A defense is known with its schedule or not at all.
        return self.simulated and (self._shows_schedule(threat) or not threat.defense_known)

    def is_adapted_to(self, threat: ThreatModel) -> bool:
        """True if attacks that simulate the client leave nothing of the defense out."""
        return self.simulated and self._shows_schedule(threat) and (threat.defense_known or self.public)

    def _shows_schedule(self, threat: ThreatModel) -> bool:
        return threat.schedule_known or self.schedule.sends_gradient


def planned_attacks(config: Config, registry: Registry) -> list[PlannedAttack]:
    """The grid's attacks, and then the controls that it does not name itself."""
    specs = list(config.grid.attacks)
    if config.grid.controls:
        specs += _controls(specs, registry)
    methods: list[type[Attack]] = [registry.cls("attack", spec.name) for spec in specs]
    controlled = any(method.control for method in methods)
    following = itertools.count(len(specs))
    place = lambda there: next(following) if controlled and there else None  # noqa: E731
    wrong_images = [place(not method.control) for method in methods]
    # Behind all others: without public images the places are what they always were.
    same_classes = [place(not (method.control or method.recovers_labels)) for method in methods]
    told = zip(specs, methods, range(len(specs)), wrong_images, same_classes, strict=True)
    return [PlannedAttack(*each) for each in told]


def planned_defenses(config: Config, clients: Clients) -> list[PlannedDefense]:
    """The grid's defenses; raises ConfigurationError for one that has no schedule for the grid's client."""
    chains = [(parts, clients.chain(parts)) for parts in config.grid.defenses]
    return [
        PlannedDefense(parts, chain, _schedule(parts, chain, config.grid.client.schedule), order)
        for order, (parts, chain) in enumerate(chains)
    ]


def disclosure(defense: PlannedDefense, task: Task) -> Disclosure:
    """The defense's disclosure for a task; raises ConfigurationError for a surrogate that cannot be used."""
    own = replace(task, schedule=defense.schedule)
    return Disclosure(defense.schedule, _is_simulated(defense, own), defense.chain.is_public(own))


def obstacle(
    attack: PlannedAttack, task: Task, threat: ThreatModel, registry: Registry, public: PublicSet
) -> str | None:
    """The reason why an attack cannot run on a task under a threat model; None where it can.

    `public` tells of the images that the server could hold.
    """
    if attack.method.needs_public and not threat.public:
        return f"{attack.spec.name} needs public images: threat.public = [false, true] grants them"
    if attack.method.needs_public and not public.count:
        return (
            f"{attack.spec.name} needs public images, and the dataset has no training half: name a set in grid.public"
        )
    try:
        with named(f"attack {attack.spec.label}", passes=UnsupportedPair):
            registry.build("attack", attack.spec).check(task, threat.labels)
    except UnsupportedPair as error:
        return str(error)
    return None


def _controls(attacks: list[MethodSpec], registry: Registry) -> list[MethodSpec]:
    """The floors, without those that the grid names; `prior_only` once for every prior among the attacks."""
    names = {spec.name for spec in attacks}
    papers = [spec.parameters for spec in attacks if set(PRIOR_SETTINGS) <= spec.parameters.keys()]
    priors = [{key: parameters[key] for key in PRIOR_SETTINGS} for parameters in papers] or [{}]
    wanted = [
        MethodSpec.of("grey_image", {}),
        MethodSpec.of("dataset_mean", {}),
        MethodSpec.of("class_mean", {}),
        *(MethodSpec.of("prior_only", prior) for prior in priors),
    ]
    return list(dict.fromkeys(registry.resolve("attack", spec) for spec in wanted if spec.name not in names))


def _schedule(parts: ChainSpec, chain: Chain, client: Schedule) -> Schedule:
    with named(f"defense {chain_label(parts)}"):
        return chain.schedule(client)


def _is_simulated(defense: PlannedDefense, task: Task) -> bool:
    label = f"defense {chain_label(defense.parts)}"
    with named(label):
        try:
            found = defense.chain.simulation(task)
            if found is not None:
                check_simulation(found, task)
        except (DefenseFault, TypeError) as error:
            raise ConfigurationError(f"{label}: its surrogate cannot be used: {error}") from error
        return found is not None
