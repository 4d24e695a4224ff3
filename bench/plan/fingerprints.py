"""Fingerprints of what a stored result was made by, so that a changed method is never mixed with an old one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attacks.matching import candidates
from bench import devices, seeds
from bench.data import dataset
from bench.data.dataset import Dataset, digest_of
from bench.models import build
from bench.price import certificate_trials, certificates, federated, utility
from bench.price import jobs as job_results
from bench.price.certificate_trials import POOL
from bench.source_digests import closure, code_digest, digests, file, room
from bench.store import tensors
from bench.trial import (
    black_box,
    forked_clients,
    held_out,
    identification,
    likelihood,
    metrics,
    releases,
    trial,
    wrong_image,
)
from bench.trial import clients as client_side
from defenses import chain

if TYPE_CHECKING:
    from bench.grid.cells import Cell, Setting
    from bench.grid.jobs import Job
    from bench.registry.registry import Registry
    from bench.trial.clients import Clients

_NETWORKS = room(build) | room(chain) | file(dataset) | file(tensors) | file(seeds)
CLIENT = _NETWORKS | file(client_side) | file(releases)
"""Code that decides what a client releases, beside its defense: images and the choices of a grid are digested apart."""
_BLACK_BOX = file(black_box) | file(forked_clients)
"""Code of the clients, beside that, wherever anybody holds public images."""
SCORING = file(metrics) | file(identification) | file(likelihood) | file(candidates) | file(trial) | file(dataset)
"""Code that turns reconstructions into metrics."""
TRAINING = _NETWORKS | file(job_results) | file(federated) | file(utility) | file(devices)
CERTIFYING = CLIENT | file(job_results) | file(certificates) | file(certificate_trials)
"""Code that decides the result of a training or of a certificate, beside that of the defense and the adversary."""


def block_fingerprints(
    cells: Iterable[Cell],
    images: int,
    registry: Registry,
    clients: Clients,
    checkpoints: dict[Setting, str | None],
    precision: str,
) -> dict[str, str]:
    """Block's id -> fingerprint of its methods' code, of the images they see, and of other data that decides it."""
    digest_of_sources = cache(lambda paths, code: sources_fingerprint(paths, code))
    digest_of_images = cache(lambda setting, start, stop: clients.dataset(setting).digest(range(start, stop)))
    found: dict[str, str] = {}
    for cell in cells:
        paths = [registry.sources("attack", cell.attacked_by.name)]
        parts = [*cell.defense, *(part for own in cell.setting.preparers for part in own)]
        paths += [registry.sources("defense", part.name) for part in parts]
        code = CLIENT | file(wrong_image) if cell.borrows else CLIENT
        code = code | file(held_out) if cell.repeats else code
        code = code | _BLACK_BOX if cell.setting.public is not None else code
        data = clients.data_digests(cell.setting)
        also = [data.task, data.trained, checkpoints[cell.setting] or ""]
        also += [str([part.canonical for own in cell.setting.preparers for part in own])]
        if precision != "float32" and not (cell.borrows or cell.repeats or cell).control:
            also.append(precision)
        source = registry.cls("attack", cell.attacked_by.name)
        if cell.threat.public and (source.needs_public or cell.attack.name == "class_mean"):
            also.append(cell.public.digest)
        elif cell.attack.name == "class_mean":
            also.append(clients.means_digest(cell.setting))
        if cell.repeats:
            referees = clients.held_out(cell.setting)
            also.append("" if referees is None else referees.digest)
        for block in cell.blocks(images):
            seen = digest_of_images(cell.setting, block.start, block.stop)
            found[block.id] = fingerprint(digest_of_sources(tuple(paths), code), seen, *also)
    return found


def job_fingerprints(
    jobs: Iterable[Job], registry: Registry, clients: Clients, checkpoints: dict[Setting, str | None]
) -> dict[str, str]:
    """Job's id -> fingerprint of the defense's code, of the code that trains or tests, and of the data that it sees."""
    found: dict[str, str] = {}
    digest_of_sources = cache(lambda sources, also: sources_fingerprint(sources, also))
    splits = cache(lambda setting: _digest_of_splits(clients.dataset(setting)))
    attacked = cache(lambda setting: _digest_of_attacked(clients.dataset(setting), POOL))
    for job in jobs:
        preparers = [part for own in job.setting.preparers for part in own]
        sources = [registry.sources("defense", part.name) for part in (*job.defense, *preparers)]
        known, architecture = clients.data_digests(job.setting), code_digest(type(clients).architecture)
        if job.kind == "certificate":
            sources.extend(file(candidates))
            data = [attacked(job.setting), known.trained, checkpoints[job.setting] or ""]
        else:
            data = [splits(job.setting)]
        methods = digest_of_sources(tuple(sources), TRAINING if job.kind == "training" else CERTIFYING)
        prepared = str([part.canonical for part in preparers])
        found[job.id] = fingerprint(methods, architecture, prepared, known.task, *data)
    return found


def sources_fingerprint(sources: Iterable[Path], also: frozenset[Path] = CLIENT) -> str:
    """16 digits of the methods' code, of all code of `attacks` and `defenses` that they import, and of some more."""
    return fingerprint(*digests(also.union(*map(closure, sources))))


def scoring_fingerprint(pool: str) -> str:
    """16 digits of the code that turns reconstructions into metrics, and of the pool's digest."""
    return fingerprint(*digests(SCORING), pool)


def fingerprint(*parts: str) -> str:
    """16 digits of these texts in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _digest_of_splits(dataset: Dataset) -> str:
    """Fingerprint of all images: those to test on and those to train on."""
    return fingerprint(_digest_of_attacked(dataset, len(dataset)), digest_of(*(dataset.training() or ())))


def _digest_of_attacked(dataset: Dataset, most: int) -> str:
    """Fingerprint of the first images to attack, digested a thousand at a time: all may not fit into memory."""
    count = min(most, len(dataset))
    return fingerprint(*(dataset.digest(range(i, min(i + 1000, count))) for i in range(0, count, 1000)))
