"""The figures of a job: with which architecture, schedule, streams and pool it trains, or tests a proof."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.data.public import without_public
from bench.grid.cells import Setting
from bench.grid.jobs import Job
from bench.grid.sections import CertificateTest, Utility
from bench.models.training import Progress
from bench.price.certificate_trials import Pool, measure
from bench.price.federated import Rounds, train_federated
from bench.price.utility import server_of, trained_figures
from bench.registry.specs import ChainSpec
from bench.seeds import stream
from bench.store.tensors import StateDict, state_of
from bench.trial.clients import Clients
from defenses.batch_norm import in_mode
from defenses.schedule import Schedule
from defenses.task import Task

UNUSED_DELTA = 0.5
"""A certificate asks a guarantee for noise and steps alone."""


def figures_of(job: Job, clients: Clients, kept: Path, progress: Progress) -> dict[str, Any]:
    """The figures of a training or certificate, which is computed here.

    An unfinished training is kept in the file `kept`; `progress` is of trainings. Raises `TrainingDiverged` and
    `DefenseFault`.
    """
    if isinstance(job.section, Utility):
        return _trained(job, job.section, clients, kept, progress)
    return _certified(job, job.section, clients)


def _trained(job: Job, section: Utility, clients: Clients, kept: Path, progress: Progress) -> dict[str, Any]:
    return trained_figures(
        clients.architecture(job.setting, job.seed),
        job.setting.mode,
        clients.chain(job.defense),
        job.schedule,
        job.setting.client,
        clients.dataset(job.setting),
        section,
        stream("utility", job.seed),
        kept,
        progress,
    )


def trained_weights(
    setting: Setting, parts: ChainSpec, schedule: Schedule, section: Utility, clients: Clients, seed: int, rounds: int
) -> StateDict:
    """The model's state after so many rounds of training under a defense, from new weights that the seed draws.

    Where the setting's public images come from the dataset's training half no image of theirs is trained on; a round
    has all clients where that leaves fewer than the section asks for. Raises `TrainingDiverged` and `DefenseFault`.
    """
    dataset, model = clients.dataset(setting), clients.architecture(setting, seed)
    data = (without_public(dataset) if setting.shares_training_set else dataset).training()
    assert data is not None, "the plan has checked this"
    population = len(data[1]) // schedule.images
    task = Task(in_mode(model, setting.mode), dataset.classes, dataset.input_shape, schedule)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    dealt = Rounds(rounds, min(section.clients, population), population, schedule.images)
    own = stream("utility", seed)
    trained = train_federated(task, params, clients.chain(parts), data, dealt, server_of(section), seed=own)
    return {**state_of(model), **trained.last}


def _certified(job: Job, section: CertificateTest, clients: Clients) -> dict[str, Any]:
    dataset, chain = clients.dataset(job.setting), clients.chain(job.defense)
    model, _ = clients.model(job.setting, job.seed)
    params = {name: p.detach() for name, p in model.named_parameters()}
    found = measure(
        chain,
        Task(model, dataset.classes, dataset.input_shape, job.schedule),
        params,
        Pool.of(dataset),
        chain.privacy(job.setting.client, 1, UNUSED_DELTA),
        **section.model_dump(),
        seed=stream("certificate", job.seed),
    )
    figures = {name: value for name, value in asdict(found).items() if name != "seed"}
    return {**figures, "bound": found.bound}
