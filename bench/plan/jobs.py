"""The jobs of a grid: the federated trainings and certificates of its defenses, and their fingerprints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from bench.data.dataset import Dataset, digest_of
from bench.errors import ConfigurationError
from bench.grid.cells import Setting
from bench.grid.jobs import Job
from bench.plan import source_digests
from bench.plan.fingerprints import CLIENT, ROOT, fingerprint, sources_fingerprint
from bench.price.certificate_trials import POOL
from bench.price.jobs import UNUSED_DELTA
from bench.registry.sources import named
from bench.registry.specs import Chain, chain_label

if TYPE_CHECKING:
    from bench.grid.config import Config
    from bench.registry.registry import Registry
    from bench.trial.clients import Clients

TRAINING = (
    "bench/plan/plan.py",
    "bench/data/dataset.py",
    "bench/price/jobs.py",
    "bench/price/federated.py",
    "bench/store/tensors.py",
    "bench/devices.py",
    "bench/models/build.py",
    "bench/models/networks.py",
    "bench/seeds.py",
    "bench/models/training.py",
    "bench/price/utility.py",
    "defenses/batch_norm.py",
    "defenses/chain.py",
    "defenses/task.py",
    "defenses/none.py",
)
CERTIFYING = (*CLIENT, "bench/price/certificates.py", "bench/price/jobs.py", "bench/price/certificate_trials.py")
"""Files that decide the result of a training or of a certificate, beside those of the defense and the adversary."""


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


def _of_one(config: Config, setting: Setting, parts: Chain, order: int, clients: Clients) -> Iterator[Job]:
    from bench.price.utility import rounds_of

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


def job_fingerprints(
    jobs: Iterable[Job], registry: Registry, clients: Clients, checkpoints: dict[Setting, str | None]
) -> dict[str, str]:
    """Of every job, by id: the sources of the defense and of what trains or tests, and the data that it sees."""
    found: dict[str, str] = {}
    digest_of_sources = cache(lambda sources, also: sources_fingerprint(sources, also))
    splits = cache(lambda setting: _digest_of_splits(clients.dataset(setting)))
    attacked = cache(lambda setting: _digest_of_attacked(clients.dataset(setting), POOL))
    for job in jobs:
        preparers = [part for chain in job.setting.preparers for part in chain]
        sources = [registry.sources("defense", part.name) for part in (*job.defense, *preparers)]
        facts, made = clients.facts(job.setting), source_digests.digest_of(type(clients).architecture)
        if job.kind == "certificate":
            sources.append(ROOT / "attacks" / "matching" / "candidates.py")
            data = [attacked(job.setting), facts.trained, checkpoints[job.setting] or ""]
        else:
            data = [splits(job.setting)]
        methods = digest_of_sources(tuple(sources), TRAINING if job.kind == "training" else CERTIFYING)
        prepared = str([part.canonical for part in preparers])
        found[job.id] = fingerprint(methods, made, prepared, facts.task, *data)
    return found


def _digest_of_splits(dataset: Dataset) -> str:
    """Of all images: those to test on and those to train on."""
    return fingerprint(_digest_of_attacked(dataset, len(dataset)), digest_of(*(dataset.training() or ())))


def _digest_of_attacked(dataset: Dataset, most: int) -> str:
    """Of the first images to attack and to test on, a thousand at a time: all of them may not fit into memory."""
    count = min(most, len(dataset))
    return fingerprint(*(dataset.digest(range(i, min(i + 1000, count))) for i in range(0, count, 1000)))
