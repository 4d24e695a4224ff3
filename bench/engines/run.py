"""Running a grid from Python or the command line: plan, continue, and read the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ConfigurationError, Unwritable, suggest
from bench.grid.config import Config, load_config
from bench.grid.reading import GridSource
from bench.registry.registry import Registry
from bench.store.store import FAILURES, Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.plan.plan import Plan
    from bench.trial.clients import Clients

RETRIES = (*FAILURES, "stale")


@dataclass(frozen=True)
class Run:
    """A run and its folder; everything is read from what is stored."""

    folder: Path
    """The folder of the run's plan and results."""

    @property
    def store(self) -> Store:
        return Store.existing(self.folder)

    def frame(self) -> DataFrame:
        """One row per attacked image, as pandas."""
        return self.store.frame()

    def counts(self) -> Counter[str]:
        """Blocks and jobs by status."""
        return self.store.counts()

    @property
    def failed(self) -> int:
        """Blocks and jobs without a result."""
        counts = self.counts()
        return sum(counts[status] for status in (*FAILURES, "stale", "pending"))


def run(
    spec: GridSource | Config,
    registry: Registry | None = None,
    *,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    defenses: Sequence[str] = (),
    attacks: Sequence[str] = (),
    device: str | None = None,
    retry: Collection[str] = (),
    retry_since: str | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run a grid, or what is left of it, and return its results.

    `spec` is a preset's name, a TOML file, a `GridText` or a `Config`, whose methods are those of the `registry`;
    `overrides` are "key=value" as on the command line; `defenses` and `attacks`, such as
    "dp_sgd(noise_multiplier=0.1)", join the grid's; `retry` names statuses to try again, of all blocks or of those
    since one of this id. A failed cell does not raise: look at `Run.counts()`.
    Raises ConfigurationError for a user's mistake, before anything runs, and `Unwritable` when a result cannot be
    written.
    """
    _check_retry(retry)
    config, registry, clients, plan = prepare(spec, registry, overrides=overrides, defenses=defenses, attacks=attacks)
    import torch

    from bench.devices import choose_device, default_threads
    from bench.engines.local import LocalEngine
    from bench.engines.progress import Watcher
    from bench.plan.description import begin

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
    with closing(clients), Watcher(len(pending), shown=progress) as watcher:
        for unit in engine.units(pending):
            for finished in engine.run(unit, watcher):
                watcher.finished(*finished)
    return Run(store.folder)


def prepare(
    spec: GridSource | Config,
    registry: Registry | None = None,
    *,
    overrides: Sequence[str] = (),
    defenses: Sequence[str] = (),
    attacks: Sequence[str] = (),
) -> tuple[Config, Registry, Clients, Plan]:
    """Everything that must be right before anything runs: the grid, its methods, its clients and its cells.

    The registry is returned as given, else one of the built-ins and installed packages.
    """
    from bench.plan.plan import make_plan
    from bench.trial.clients import Clients

    if isinstance(spec, Config) and (overrides or defenses or attacks):
        raise ConfigurationError("overrides and more methods need a preset or a file; change the Config itself instead")
    registry = registry or Registry()
    if isinstance(spec, Config):
        config = spec
    else:
        config = load_config(spec, overrides, registry, defenses=defenses, attacks=attacks)
    clients = Clients(registry)
    return config, registry, clients, make_plan(config, registry, clients)


def _check_retry(retry: Collection[str]) -> None:
    for status in retry:
        if status not in RETRIES:
            raise ConfigurationError(f"cannot retry {status!r}; {suggest(status, RETRIES)}")
