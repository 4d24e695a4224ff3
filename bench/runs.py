"""Running a grid from Python or the command line: plan, continue, and read the results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Config, load_config, to_toml
from bench.errors import ConfigurationError, Unwritable, suggest
from bench.registry import Registry
from bench.specs import chain_label
from bench.store import FAILURES, VERSION, Store
from bench.whole_files import read_arrays

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.cells import Cell
    from bench.clients import Clients
    from bench.plan import Plan

RETRIES = (*FAILURES, "stale")


@dataclass(frozen=True)
class Run:
    """A run and its folder; everything is read from what is stored."""

    folder: Path

    @property
    def store(self) -> Store:
        return Store.existing(self.folder)

    def frame(self) -> DataFrame:
        """One row per attacked image, as pandas."""
        return self.store.frame()

    def counts(self) -> Counter[str]:
        """Blocks by status."""
        return self.store.counts()

    @property
    def failed(self) -> int:
        """Blocks that ended in a failure."""
        counts = self.counts()
        return sum(counts[status] for status in (*FAILURES, "stale", "pending"))


def run(
    spec: str | Path | Config,
    *,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    device: str | None = None,
    retry: Collection[str] = (),
    retry_since: str | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run a grid, or what is left of it, and return its results.

    `spec` is a preset's name, a TOML file or a `Config`; `overrides` are "key=value" as on the command line; `retry`
    names statuses to try again, of all blocks or of those since one of this id. A failed cell does not raise: look at
    `Run.counts()`. Raises ConfigurationError for a user's mistake, before anything runs, and `Unwritable` when
    a result cannot be written.
    """
    _check_retry(retry)
    config, registry, clients, plan = prepare(spec, overrides=overrides, plugins=plugins)
    import torch

    from bench.devices import choose_device, default_threads
    from bench.engines.local import LocalEngine
    from bench.engines.watching import Watcher

    store = Store(output or Path("runs") / config.name)
    chosen = choose_device(device or config.engine.device, config.engine.execution, config.engine.precision)
    torch.set_num_threads(config.engine.threads or default_threads())
    store.create()
    try:
        begin(store, plan, clients)
    except Unwritable as error:
        raise ConfigurationError(str(error)) from error
    if others := store.unplanned():
        say(f"{others} stored blocks are of cells that this grid does not have: they stay, outside its tables")
    engine = LocalEngine(plan, registry, clients, store, config.engine, chosen)
    if again := engine.score_again():
        say(f"scoring has changed: {again} stored blocks were scored again")
    pending = engine.pending(retry, retry_since)
    if not pending:
        say(f"nothing left to run in {store.folder}")
    with Watcher(len(pending), shown=progress) as watcher:
        for group in engine.groups(pending):
            for finished in engine.run(group, watcher):
                watcher.finished(*finished)
    return Run(store.folder)


def prepare(
    spec: str | Path | Config, *, overrides: Sequence[str] = (), plugins: Sequence[str | Path] = ()
) -> tuple[Config, Registry, Clients, Plan]:
    """Everything that must be right before anything runs."""
    from bench.clients import Clients
    from bench.plan import make_plan

    if isinstance(spec, Config) and overrides:
        raise ConfigurationError("overrides need a preset or a file; change the Config itself instead")
    config = spec if isinstance(spec, Config) else load_config(str(spec), overrides, plugins)
    registry = Registry([Path(plugin) for plugin in plugins])
    clients = Clients(registry)
    return config, registry, clients, make_plan(config, registry, clients)


def begin(store: Store, plan: Plan, clients: Clients) -> None:
    """Publish the resolved configuration, the attacked images and the plan; raises `Unwritable`."""
    import numpy as np

    setting = plan.cells[0].setting
    dataset = clients.dataset(setting)
    images = range(plan.images)
    truth = f"truth-{dataset.digest(images)[:16]}.npz"
    pixels = dataset.pixels(images).numpy()
    try:
        whole = np.array_equal(read_arrays(store.folder / truth)["images"], pixels)
    except (ConfigurationError, KeyError):
        whole = False
    if not whole:
        store.write_arrays(store.folder / truth, images=pixels)
    store.write_text("run.toml", to_toml(plan.config))
    described = {
        "version": VERSION,
        "name": plan.config.name,
        "images": plan.images,
        "truth": truth,
        "dataset_title": dataset.title,
        "dataset_provenance": dataset.provenance,
        "expect": None if plan.config.expect is None else plan.config.expect.model_dump(),
        "notes": list(plan.notes),
        "cells": [_described(cell, plan) for cell in plan.cells],
    }
    store.write_text("plan.json", json.dumps(described, indent=1))


def _described(cell: Cell, plan: Plan) -> dict[str, Any]:
    """A cell as every row of its results repeats it."""
    threat = cell.threat
    return {
        "cell": cell.id,
        "dataset": cell.setting.dataset.name,
        "model": cell.setting.model_label,
        "weights": cell.setting.weights.label,
        "attack": cell.attack.label,
        "attack_name": cell.attack.name,
        "attack_parameters": json.dumps(cell.attack.parameters),
        "attack_order": cell.attack_order,
        "control": cell.control,
        "defense": chain_label(cell.defense),
        "defense_name": " | ".join(part.name for part in cell.defense),
        "defense_order": cell.defense_order,
        "audited": cell.audited,
        "adapts": cell.adapts,
        "defense_parameters": json.dumps([part.parameters for part in cell.defense]),
        **asdict(threat),
        "threat_class": threat.sok_class(local_steps=not cell.schedule.sends_gradient),
        "seed": cell.seed,
        "images_per_update": cell.schedule.images,
        "local_steps": 0 if cell.schedule.sends_gradient else cell.schedule.steps,
        "skip": cell.skip,
        "blocks": [
            {"id": block.id, "start": block.start, "stop": block.stop, "fingerprint": plan.fingerprints[block.id]}
            for block in cell.blocks(plan.images)
        ],
    }


def _check_retry(retry: Collection[str]) -> None:
    for status in retry:
        if status not in RETRIES:
            raise ConfigurationError(f"cannot retry {status!r}; {suggest(status, RETRIES)}")
