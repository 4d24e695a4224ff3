"""A run's plan: every cell of its grid in the order in which it runs, what is left out and why, and all jobs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from attacks.threat import ThreatModel
from bench.errors import ConfigurationError
from bench.grid.cells import Block, Cell, PublicSet, Setting
from bench.grid.config import Config
from bench.grid.jobs import Job
from bench.plan.fingerprints import block_fingerprints, job_fingerprints
from bench.plan.jobs import make_jobs
from bench.plan.methods import (
    Disclosure,
    PlannedAttack,
    PlannedDefense,
    disclosure,
    obstacle,
    planned_attacks,
    planned_defenses,
)
from bench.plan.settings import PlannedSetting, planned_settings
from bench.registry.registry import Registry
from bench.trial import wrong_image
from bench.trial.clients import Clients
from bench.trial.same_class import SAME_CLASS, same_class_control


@dataclass(frozen=True)
class Plan:
    """All cells and jobs of a run."""

    config: Config
    """The grid that is planned."""
    cells: tuple[Cell, ...]
    """The cells in the order in which they run."""
    images: int
    """Images that are attacked, the first of the dataset."""
    notes: tuple[str, ...]
    """Sentences for the reader about what the plan leaves out."""
    fingerprints: dict[str, str]
    """Id of a block or job -> fingerprint of the method that it is to be made by."""
    jobs: tuple[Job, ...] = ()
    """The trainings and certificates, which run after the cells."""

    def blocks(self) -> Iterator[Block]:
        for cell in self.cells:
            yield from cell.blocks(self.images)


def make_plan(config: Config, registry: Registry, clients: Clients) -> Plan:
    """Plan every cell of the grid and its controls; raises ConfigurationError for what cannot be a grid."""
    attacks, defenses = planned_attacks(config, registry), planned_defenses(config, clients)
    cells: list[Cell] = []
    checkpoints: dict[Setting, str | None] = {}
    for planned in planned_settings(config, defenses, clients):
        checkpoints[planned.setting] = planned.checkpoint
        cells += _cells_of(planned, config, attacks, defenses, registry, clients)
    if all(cell.skip or cell.control for cell in cells):
        why = "; ".join(dict.fromkeys(cell.skip for cell in cells if cell.skip))
        raise ConfigurationError(f"no attack of the grid can run: {why or 'only controls are asked for'}")
    images, precision = config.grid.images, config.engine.precision
    fingerprints = block_fingerprints(cells, images, registry, clients, checkpoints, precision)
    jobs = make_jobs(config, checkpoints, clients)
    fingerprints |= job_fingerprints(jobs, registry, clients, checkpoints)
    notes = dict.fromkeys(_notes(config, attacks, checkpoints, clients))
    return Plan(config, tuple(cells), images, tuple(notes), fingerprints, jobs)


def _cells_of(
    planned: PlannedSetting,
    config: Config,
    attacks: list[PlannedAttack],
    defenses: list[PlannedDefense],
    registry: Registry,
    clients: Clients,
) -> Iterator[Cell]:
    """The cells of one setting: threat models slowest, then seeds, then defenses."""
    disclosures = [disclosure(defense, planned.task) for defense in defenses]
    setting, asking = planned.setting, _questions_with_public(attacks, config)
    has_held_out = bool(asking) and clients.held_out(setting) is not None
    for threat in config.threats:
        public = clients.public_set(setting) if threat.public else PublicSet()
        asked = [attack for attack in attacks if not _is_repetition(attack, threat, config.threats)]
        present = [attack for attack in asked if not _is_left_out(attack, setting, threat, clients)]
        row = [(attack, obstacle(attack, planned.task, threat, registry, public)) for attack in present]
        if not (has_held_out and threat.secrets in asking):
            row = [(replace(attack, same_class=None), skip) for attack, skip in row]
        for seed in config.grid.seeds:
            for defense, disclosed in zip(defenses, disclosures, strict=True):
                yield from _row(setting, threat, seed, defense, disclosed, row, public)


def _row(
    setting: Setting,
    threat: ThreatModel,
    seed: int,
    defense: PlannedDefense,
    disclosed: Disclosure,
    attacks: list[tuple[PlannedAttack, str | None]],
    public: PublicSet,
) -> list[Cell]:
    """All attacks on one defense, each with why it is skipped, then the controls that are made from each."""
    common = partial(
        Cell,
        setting=setting,
        defense=defense.parts,
        threat=threat,
        seed=seed,
        schedule=defense.schedule,
        defense_order=defense.order,
        audited=disclosed.is_audited(threat),
        public=public,
    )
    adapts = disclosed.is_adapted_to(threat)
    cells: list[Cell] = []
    controls: list[Cell] = []
    for attack, skip in attacks:
        method = attack.method
        cell = common(
            attack=attack.spec,
            control=method.control,
            attack_order=attack.order,
            skip=skip,
            adapts=adapts and method.simulates,
            recovers_labels=method.recovers_labels,
        )
        cells.append(cell)
        if attack.wrong_image is not None:
            controls.append(wrong_image.control(cell, attack.wrong_image))
        if attack.same_class is not None:
            controls.append(same_class_control(cell, attack.same_class))
    return cells + controls


def _questions_with_public(attacks: Collection[PlannedAttack], config: Config) -> set[tuple[Any, ...]]:
    """The secrets of the threat models under which an attack that is no floor holds public images.

    Whatever one attack of a question knows, a floor may know, for all of its attacks.
    """
    return {
        threat.secrets
        for threat, attack in itertools.product(config.threats, attacks)
        if threat.public and not attack.method.control and not _is_repetition(attack, threat, config.threats)
    }


def _is_left_out(attack: PlannedAttack, setting: Setting, threat: ThreatModel, clients: Clients) -> bool:
    """True if an attack has no cells, not even skipped ones: `class_mean` without labels or other images to average."""
    if threat.public:
        has_means = clients.public(setting) is not None
    else:
        has_means = threat.labels == "known" and clients.dataset(setting).read_training is not None
    return attack.spec.name == "class_mean" and not has_means


def _is_repetition(attack: PlannedAttack, threat: ThreatModel, threats: Collection[ThreatModel]) -> bool:
    """True if public images change nothing for an attack that the grid also asks for without them.

    The floors that take no time are there under both, for the attacks that learn from public images.
    """
    spent = not attack.method.control or attack.spec.name == "prior_only"
    return threat.public and spent and not attack.method.needs_public and replace(threat, public=False) in threats


def _notes(
    config: Config, attacks: list[PlannedAttack], settings: Collection[Setting], clients: Clients
) -> Iterator[str]:
    """A sentence for each thing that the grid asks for and the plan does not have."""
    if not config.grid.controls:
        yield "controls = false: no floor to judge leakage by"
    for setting in settings:
        if "train" in config.grid.client.mode and replace(setting, mode="train") not in settings:
            yield f"{setting.model_label} has no batch norm: in train mode its client does the same"
    choices = itertools.product(attacks, settings, config.threats)
    if any(_is_left_out(attack, setting, threat, clients) for attack, setting, threat in choices):
        yield "class_mean is left out where labels are not known or the dataset has no other images"
    if _questions_with_public(attacks, config) and any(clients.held_out(setting) is None for setting in settings):
        yield f"{SAME_CLASS} is left out: no public images are left to hold out"
