"""The jobs of a grid: the federated trainings and certificates of its defenses, and their fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bench.errors import ConfigurationError
from bench.grid.cells import Setting
from bench.grid.jobs import Job
from bench.price.certificate_trials import POOL
from bench.price.jobs import UNUSED_DELTA
from bench.price.utility import rounds_of
from bench.registry.sources import named
from bench.registry.specs import ChainSpec, chain_label

if TYPE_CHECKING:
    from bench.grid.config import Config
    from bench.trial.clients import Clients


def make_jobs(config: Config, settings: Iterable[Setting], clients: Clients) -> tuple[Job, ...]:
    """The jobs of a grid, in the order in which they run; raises ConfigurationError where one is impossible."""
    if config.utility is None and config.certificate is None:
        return ()
    found: dict[str, Job] = {}
    for setting in settings:
        for order, parts in enumerate(config.grid.defenses):
            with named(f"defense {chain_label(parts)}"):
                for job in _of_one(config, setting, parts, order, clients):
                    found.setdefault(job.id, job)
    return tuple(found.values())


def _of_one(config: Config, setting: Setting, parts: ChainSpec, order: int, clients: Clients) -> Iterator[Job]:
    chain, dataset = clients.chain(parts), clients.dataset(setting)
    schedule = chain.schedule(setting.client)
    if config.utility is not None:
        rounds_of(config.utility, dataset, schedule)
        for seed in config.utility.seeds:
            yield Job(setting, parts, order, schedule, seed, config.utility)
    proof = chain.privacy(setting.client, 1, UNUSED_DELTA)
    if config.certificate is not None and proof is not None and proof.mechanism == "gaussian":
        needed, there = config.certificate.candidates + schedule.images - 1, min(len(dataset), POOL)
        if needed > there:
            raise ConfigurationError(
                f"certificate.candidates = {config.certificate.candidates} and {schedule.images - 1} other images of a "
                f"client need {needed} images, {dataset.name} has {there}; take fewer candidates"
            )
        yield Job(setting, parts, order, schedule, config.grid.seeds[0], config.certificate)
