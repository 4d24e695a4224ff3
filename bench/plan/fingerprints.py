"""Fingerprints of what a stored result was made by, so that a changed method is never mixed with an old one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bench.plan.source_digests import ROOT, closure, digests

if TYPE_CHECKING:
    from bench.grid.cells import Cell, Setting
    from bench.registry.registry import Registry
    from bench.trial.clients import Clients

CLIENT = (
    "bench/plan/plan.py",
    "bench/data/dataset.py",
    "bench/models/build.py",
    "bench/models/networks.py",
    "bench/models/weights.py",
    "bench/store/tensors.py",
    "bench/models/training.py",
    "bench/seeds.py",
    "bench/trial/clients.py",
    "defenses/batch_norm.py",
    "defenses/chain.py",
    "defenses/none.py",
)
SCORING = (
    "bench/trial/metrics.py",
    "bench/trial/identification.py",
    "bench/trial/trial.py",
    "bench/data/dataset.py",
)


def block_fingerprints(
    cells: Iterable[Cell],
    images: int,
    registry: Registry,
    clients: Clients,
    checkpoints: dict[Setting, str | None],
    precision: str,
) -> dict[str, str]:
    """Of every block, by id: its methods' sources, the images they see, and what else data and weights decide."""
    digest_of_sources = cache(lambda paths: sources_fingerprint(paths))
    digest_of_images = cache(lambda setting, start, stop: clients.dataset(setting).digest(range(start, stop)))
    found: dict[str, str] = {}
    for cell in cells:
        paths = [registry.sources("attack", (cell.borrows or cell).attack.name)]
        parts = [*cell.defense, *(part for chain in cell.setting.preparers for part in chain)]
        paths += [registry.sources("defense", part.name) for part in parts]
        facts = clients.facts(cell.setting)
        also = [facts.task, facts.trained, checkpoints[cell.setting] or ""]
        also += [str([part.canonical for chain in cell.setting.preparers for part in chain])]
        if precision != "float32" and not (cell.borrows or cell).control:
            also.append(precision)
        if cell.attack.name == "class_mean":
            also.append(clients.means_digest(cell.setting))
        for block in cell.blocks(images):
            seen = digest_of_images(cell.setting, block.start, block.stop)
            found[block.id] = fingerprint(digest_of_sources(tuple(paths)), seen, *also)
    return found


def sources_fingerprint(sources: Iterable[Path], also: Iterable[str] = CLIENT) -> str:
    """16 digits of the methods' code, of all code of `attacks` and `defenses` that they import, and of some more."""
    return fingerprint(*digests({file for source in sources for file in closure(source)} | {ROOT / f for f in also}))


def scoring_fingerprint(pool: str) -> str:
    """16 digits of the code that turns reconstructions into metrics, and of the pool's digest."""
    return fingerprint(*digests(ROOT / file for file in SCORING), pool)


def fingerprint(*parts: str) -> str:
    """16 digits of these texts in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
