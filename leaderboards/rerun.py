"""Computing cells of an entry again, drawn when it is checked: what no look at artefacts can replace.

The defense's code is run, with the rights of whoever asks: only for somebody who has read it.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.errors import ConfigurationError
from leaderboards.compared import compared, compared_job
from leaderboards.entries import Entry
from leaderboards.entry_schema import CellFile, JobRow
from leaderboards.expected import Expected
from leaderboards.reviews import Rerun

if TYPE_CHECKING:
    from bench.store import Store

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Drawn:
    """What is computed again."""

    cells: tuple[CellFile, ...]
    jobs: tuple[JobRow, ...] = ()


def check_plugin(entry: Entry, plugins: Sequence[Path]) -> None:
    """Raise ConfigurationError unless all code of the entry is at hand, as submitted to the letter.

    That is Leakboard's own and the plugin that the entry names, which must be among the files given.
    """
    from bench.registry import Registry

    wanted = entry.manifest.plugin
    if wanted is None:
        named = {name for cell in entry.cells for name in cell.identity.defense_name.split(" | ")}
        if foreign := Registry().foreign("defense", named):
            raise ConfigurationError(f"{foreign[0]} is not built in, and the entry names no plugin: pack it with one")
        return
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in plugins if path.is_file()]
    if wanted.sha256 not in digests:
        where = f"{wanted.file} of {wanted.repository} at {wanted.commit[:12]}"
        raise ConfigurationError(f"a re-run needs the plugin as submitted: give {where} with --plugin")


def drawn(entry: Entry, required: Collection[str], count: int, seed: int | None = None) -> Drawn:
    """So many finished attacks on images, drawn now (or from `seed`), all where there are fewer.

    So many of the board's `required` attacks and, apart from them, of those that the entry adds: many of these hide
    none of the others. With them go the floors of the same defenses, all attacks on labels, one training and one
    certificate.
    """
    rng = random.SystemRandom() if seed is None else random.Random(seed)
    finished = [cell for cell in entry.cells if cell.status == "ok"]
    labels = [c for c in finished if c.identity.recovers_labels and not c.identity.control]
    of_images = [c for c in finished if not (c.identity.recovers_labels or c.identity.control)]
    board = [c for c in of_images if c.identity.attack in required]
    chosen = [cell for own in (board, [c for c in of_images if c not in board]) for cell in _some(own, count, rng)]
    places = {_place(cell) for cell in chosen}
    floors = [c for c in finished if c.identity.control and c.of is None and _place(c) in places]
    done = [job for job in entry.jobs if job.status == "ok"]
    kinds = [[job for job in done if job.kind == kind] for kind in ("training", "certificate")]
    # Floors and attacks on labels take no time.
    return Drawn((*chosen, *labels, *floors), tuple(job for own in kinds for job in _some(own, 1, rng)))


def rerun(
    plan: Expected, chosen: Drawn, entry: Entry, plugins: Sequence[Path], say: Callable[[str], None]
) -> list[Rerun]:
    """Compute what was drawn again, and put it beside what was submitted.

    Raises ConfigurationError where something fails, or has no figure, that was submitted with one.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = _computed(plan, chosen, plugins, Path(folder), say)
        frame, jobs = store.frame(), store.jobs_frame()
    found: list[Rerun] = []
    for cell in chosen.cells:
        rows = frame.loc[frame["cell"] == cell.identity.cell].sort_values("image")
        found += compared(cell, rows)
    for job in chosen.jobs:
        found += compared_job(job, jobs.set_index("job").loc[job.job].to_dict())
    return found


def _computed(
    plan: Expected, chosen: Drawn, plugins: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Store:
    import torch

    from bench.devices import choose_device, default_threads
    from bench.engines.jobs import JobEngine
    from bench.engines.local import LocalEngine
    from bench.engines.watching import Watcher
    from bench.plan_file import begin
    from bench.registry import Registry
    from bench.store import Store

    wanted, names = {cell.identity.cell for cell in chosen.cells}, {job.job for job in chosen.jobs}
    own = replace(
        plan.plan,
        cells=tuple(cell for cell in plan.plan.cells if cell.id in wanted),
        jobs=tuple(job for job in plan.plan.jobs if job.id in names),
    )
    if len(own.cells) < len(wanted) or len(own.jobs) < len(names):
        raise ConfigurationError("the board's plan has not all that was drawn; check the entry's artefacts first")
    if not own.cells:
        raise ConfigurationError("no attack of the entry has a result to compute again")
    settings = plan.config.engine
    torch.set_num_threads(settings.threads or default_threads())
    store = Store(folder)
    store.create()
    begin(store, own, plan.clients)
    device = choose_device(settings.device, settings.execution, settings.precision)
    engine = LocalEngine(own, Registry(plugins), plan.clients, store, settings, device)
    jobs = JobEngine(own, plan.clients, store)
    pending = engine.pending(())
    with Watcher(len(pending) + len(own.jobs), shown=False) as watcher:
        for group in engine.groups(pending):
            for block, status, reason in engine.run(group, watcher):
                if status != "ok":
                    raise ConfigurationError(f"{block.title} is {status} when run again: {reason}")
        for job in own.jobs:
            say(f"computing again: {job.title}")
            _, status, reason = jobs.run(job, lambda done, total: None)
            if status != "ok":
                raise ConfigurationError(f"{job.title} is {status} when run again: {reason}")
    return store


def _place(cell: CellFile) -> tuple[object, ...]:
    """What the attacks and floors of one client share."""
    own = cell.identity
    return own.defense, own.model, own.weights, own.seed, own.labels, own.schedule_known, own.defense_known


def _some(items: list[_Item], count: int, rng: random.Random) -> list[_Item]:
    return rng.sample(items, min(count, len(items)))
