"""From a grid to its cells: one architecture for all its defenses, what would run, and what cannot and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from attacks.attack import Attack, UnsupportedPair
from attacks.threat import ThreatModel
from bench.errors import ConfigurationError
from bench.grid.cells import PRIOR_SETTINGS, Block, Cell, Setting
from bench.grid.config import Config
from bench.grid.jobs import Job
from bench.plan.fingerprints import block_fingerprints, job_fingerprints
from bench.plan.jobs import make_jobs
from bench.registry.registry import Registry
from bench.registry.sources import named
from bench.registry.specs import Chain, MethodSpec, chain_label
from bench.trial.clients import Clients
from defenses.batch_norm import batch_norms
from defenses.chain import Chain as DefenseChain
from defenses.chain import DefenseFault
from defenses.schedule import Schedule
from defenses.surrogate import check_simulation
from defenses.task import Classifier, Task


def prepared(
    setting: Setting, chains: list[tuple[Chain, DefenseChain]], clients: Clients
) -> tuple[Setting, Classifier]:
    """The setting with the architecture that every defense of the grid can work with."""
    model = clients.architecture(setting, seed=0)
    preparers: list[Chain] = []
    for parts, chain in chains:
        try:
            with named(f"defense {chain_label(parts)}", passes=ValueError):
                prepared = chain.prepare(model)
        except ConfigurationError:
            raise
        except ValueError as error:
            hint = 'leave the defense out, or choose a model without such layers, e.g. with norm = "group"'
            raise ConfigurationError(f"{setting.model.label} under {chain_label(parts)}: {error}; {hint}") from error
        if not isinstance(prepared, Classifier):
            got = type(prepared).__name__
            raise ConfigurationError(f"defense {chain_label(parts)}: prepare returned {got}; return the model")
        if repr(prepared) != repr(model):
            preparers.append(parts)
            model = prepared
    return replace(setting, preparers=tuple(preparers), mode=setting.mode if batch_norms(model) else "eval"), model


@dataclass(frozen=True)
class Plan:
    """All cells of a run over the first `images` images, in the order in which they run, and notes for the reader."""

    config: Config
    cells: tuple[Cell, ...]
    images: int
    notes: tuple[str, ...]
    fingerprints: dict[str, str]
    """Id of a block or job -> fingerprint of the method that it is to be made by."""
    jobs: tuple[Job, ...] = ()

    def blocks(self) -> Iterator[Block]:
        for cell in self.cells:
            yield from cell.blocks(self.images)


def make_plan(config: Config, registry: Registry, clients: Clients) -> Plan:
    """Plan every cell of the grid and its controls; raises ConfigurationError for what cannot be a grid."""
    grid = config.grid
    attacks, notes = _with_controls(config, registry)
    chains = [(parts, clients.chain(parts)) for parts in grid.defenses]
    schedules = [_schedule(parts, chain, grid.client.schedule) for parts, chain in chains]
    cells: list[Cell] = []
    checkpoints: dict[Setting, str | None] = {}
    for model in grid.models:
        for weights, mode in itertools.product(grid.weights, grid.client.mode):
            bare = Setting(grid.dataset, model, weights, grid.client.schedule, mode=mode)
            _check_images(grid.images, schedules, clients, bare)
            setting, architecture = prepared(bare, chains, clients)
            if setting.mode != mode:
                notes.append(f"{setting.model_label} has no batch norm: in train mode its client does the same")
            if setting in checkpoints:
                continue
            checkpoints[setting] = clients.check_weights(setting, architecture)
            task = Task(architecture, clients.dataset(bare).classes, clients.dataset(bare).input_shape)
            tasks = [replace(task, schedule=schedule) for schedule in schedules]
            audited = [_is_audited(*pair, own) for pair, own in zip(chains, tasks, strict=True)]
            public = [chain.is_public(own) for (_, chain), own in zip(chains, tasks, strict=True)]
            for threat in config.threats:
                reasons = {spec: _impossible(registry, spec, task, threat) for spec, _ in attacks}
                for seed in grid.seeds:
                    for order, (parts, schedule) in enumerate(zip(grid.defenses, schedules, strict=True)):
                        # A defense is known with its schedule or not at all.
                        seen = threat.schedule_known or schedule.sends_gradient
                        known = audited[order] and (seen or not threat.defense_known)
                        adapts = audited[order] and seen and (threat.defense_known or public[order])
                        about = {"setting": setting, "threat": threat, "seed": seed, "audited": known}
                        about |= {"defense": parts, "defense_order": order, "schedule": schedule}
                        cells += _row(about, attacks, reasons, adapts)
    if "class_mean" in [spec.name for spec, _ in attacks]:
        without = [cell for cell in cells if cell.attack.name == "class_mean" and not _has_means(cell, clients)]
        cells = [cell for cell in cells if cell not in without]
        if without:
            notes.append("class_mean is left out where labels are not known or the dataset has no other images")
    if all(cell.skip or cell.control for cell in cells):
        why = "; ".join(dict.fromkeys(cell.skip for cell in cells if cell.skip))
        raise ConfigurationError(f"no attack of the grid can run: {why or 'only controls are asked for'}")
    precision = config.engine.precision
    fingerprints = block_fingerprints(cells, grid.images, registry, clients, checkpoints, precision)
    jobs = make_jobs(config, checkpoints, clients)
    fingerprints |= job_fingerprints(jobs, registry, clients, checkpoints)
    return Plan(config, tuple(cells), grid.images, tuple(dict.fromkeys(notes)), fingerprints, jobs)


def _with_controls(config: Config, registry: Registry) -> tuple[list[tuple[MethodSpec, type[Attack]]], list[str]]:
    """The grid's attacks and then the controls, each with its class."""
    asked = [(spec, registry.cls("attack", spec.name)) for spec in config.grid.attacks]
    if not config.grid.controls:
        return asked, ["controls = false: no floor to judge leakage by"]
    names = {spec.name for spec, _ in asked}
    papers = [spec.parameters for spec, _ in asked if set(PRIOR_SETTINGS) <= spec.parameters.keys()]
    priors = [{key: parameters[key] for key in PRIOR_SETTINGS} for parameters in papers] or [{}]
    wanted = [
        MethodSpec.of("grey_image", {}),
        MethodSpec.of("dataset_mean", {}),
        MethodSpec.of("class_mean", {}),
        *(MethodSpec.of("prior_only", prior) for prior in priors),
    ]
    added = dict.fromkeys(registry.resolve("attack", spec) for spec in wanted if spec.name not in names)
    return asked + [(spec, registry.cls("attack", spec.name)) for spec in added], []


def _row(
    about: dict[str, Any],
    attacks: list[tuple[MethodSpec, type[Attack]]],
    reasons: dict[MethodSpec, str | None],
    adapts: bool,
) -> list[Cell]:
    """All attacks on one defense, then `wrong_image` for each of them that is no control; all share `about`."""
    cells = [
        Cell(
            attack=spec,
            control=attack.control,
            attack_order=order,
            skip=reasons[spec],
            adapts=adapts and attack.simulates,
            recovers_labels=attack.recovers_labels,
            **about,
        )
        for order, (spec, attack) in enumerate(attacks)
    ]
    lenders = [cell for cell in cells if not cell.control] if any(attack.control for _, attack in attacks) else []
    for order, lender in enumerate(lenders, start=len(cells)):
        spec = MethodSpec.of("wrong_image", {"of": lender.attack.label})
        skip = lender.skip and f"{lender.attack.name} is skipped"
        cells.append(Cell(attack=spec, control=True, attack_order=order, borrows=lender, skip=skip, **about))
    return cells


def _is_audited(parts: Chain, chain: DefenseChain, task: Task) -> bool:
    """Whether somebody has said what an attacker who knows the defense does."""
    with named(f"defense {chain_label(parts)}"):
        try:
            found = chain.simulation(task)
            if found is not None:
                check_simulation(found, task)
        except (DefenseFault, TypeError) as error:
            raise ConfigurationError(f"defense {chain_label(parts)}: its surrogate cannot be used: {error}") from error
        return found is not None


def _schedule(parts: Chain, chain: DefenseChain, client: Schedule) -> Schedule:
    with named(f"defense {chain_label(parts)}"):
        return chain.schedule(client)


def _check_images(images: int, schedules: list[Schedule], clients: Clients, setting: Setting) -> None:
    available = len(clients.dataset(setting))
    if images > available:
        raise ConfigurationError(
            f"grid.images = {images}, but {setting.dataset.name} has {available} images to attack; ask for fewer"
        )
    for schedule in schedules:
        if images % schedule.images:
            following = -(-images // schedule.images) * schedule.images
            raise ConfigurationError(
                f"grid.images = {images} does not divide into clients of {schedule.images} images; "
                f"the next number that does is {following}"
            )


def _impossible(registry: Registry, spec: MethodSpec, task: Task, threat: ThreatModel) -> str | None:
    try:
        with named(f"attack {spec.label}", passes=UnsupportedPair):
            registry.build("attack", spec).check(task, threat.labels)
    except UnsupportedPair as error:
        return str(error)
    return None


def _has_means(cell: Cell, clients: Clients) -> bool:
    return cell.threat.labels == "known" and clients.dataset(cell.setting).read_training is not None
