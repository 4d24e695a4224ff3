"""Computing cells of an entry again, drawn when it is checked: what no look at artefacts can replace.

The defense's code is run, with the rights of whoever asks: only for somebody who has read it.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.errors import ConfigurationError
from leaderboards.entries import Entry
from leaderboards.entry_schema import CellFile
from leaderboards.expected import Expected
from leaderboards.reviews import Rerun

DECIBELS, LABELS, POINTS = 0.5, 5.0, 1.5
"""How far a mean PSNR, the share of labels found and an accuracy (percentage points) may move on another machine."""


def check_plugin(entry: Entry, plugins: Sequence[Path]) -> None:
    """Raise ConfigurationError unless the entry's plugin, if it has one, is among the files given, to the letter."""
    wanted = entry.manifest.plugin
    if wanted is None:
        return
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in plugins if path.is_file()]
    if wanted.sha256 not in digests:
        where = f"{wanted.file} of {wanted.repository} at {wanted.commit[:12]}"
        raise ConfigurationError(f"a re-run needs the plugin as submitted: give {where} with --plugin")


def drawn(entry: Entry, count: int, seed: int | None = None) -> list[CellFile]:
    """So many finished attacks on images, drawn now (or from `seed`), all where there are fewer; and all on labels."""
    attacks = [c for c in entry.cells if c.status == "ok" and not c.identity.control]
    of_images = [c for c in attacks if not c.identity.recovers_labels]
    rng = random.SystemRandom() if seed is None else random.Random(seed)
    chosen = rng.sample(of_images, min(count, len(of_images)))
    return chosen + [c for c in attacks if c.identity.recovers_labels]  # They take no time.


def rerun(
    plan: Expected, cells: Sequence[CellFile], entry: Entry, plugins: Sequence[Path], say: Callable[[str], None]
) -> list[Rerun]:
    """Compute the cells again, and one training of a defense among theirs where the board trains.

    Raises ConfigurationError where a cell fails that was submitted with a result.
    """
    import torch

    from bench.devices import choose_device, default_threads
    from bench.engines.jobs import JobEngine
    from bench.engines.local import LocalEngine
    from bench.engines.watching import Watcher
    from bench.plan_file import begin
    from bench.registry import Registry
    from bench.store import Store

    wanted = {cell.identity.cell for cell in cells}
    trained = [job for job in entry.jobs if job.kind == "training" and job.status == "ok"]
    chosen = random.SystemRandom().sample(trained, min(1, len(trained)))
    names = {job.job for job in chosen}
    own = replace(
        plan.plan,
        cells=tuple(cell for cell in plan.plan.cells if cell.id in wanted),
        jobs=tuple(job for job in plan.plan.jobs if job.id in names),
    )
    settings = plan.config.engine
    torch.set_num_threads(settings.threads or default_threads())
    with tempfile.TemporaryDirectory() as folder:
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
                say(f"training again: {job.title}")
                _, status, reason = jobs.run(job, lambda done, total: None)
                if status != "ok":
                    raise ConfigurationError(f"{job.title} is {status} when run again: {reason}")
        frame, trainings = store.frame(), store.jobs_frame()
    found: list[Rerun] = []
    for cell in cells:
        rows = frame.loc[frame["cell"] == cell.identity.cell]
        what = f"{cell.identity.attack} / {cell.identity.defense}, {cell.identity.weights} weights"
        what += ", defense known" * cell.identity.defense_known
        if cell.identity.recovers_labels:
            own = (
                f"labels found in % by {what}",
                100 * _mean(cell, "label_accuracy"),
                100 * rows["label_accuracy"].mean(),
            )
            found.append(_rerun(*own, cell.identity.cell, LABELS))
        else:
            own = (f"mean PSNR in dB of {what}", _mean(cell, "psnr_db"), rows["psnr_db"].mean())
            found.append(_rerun(*own, cell.identity.cell, DECIBELS))
    for job in chosen:
        again = float(trainings.set_index("job").at[job.job, "accuracy"])
        submitted = float(job.figures.get("accuracy") or 0)
        what = f"accuracy in % of {job.defense}, seed {job.seed}"
        found.append(_rerun(what, 100 * submitted, 100 * again, None, POINTS))
    return found


def fault(one: Rerun) -> str | None:
    """What is wrong where a figure was not found again; None where it was."""
    # Not by >: a figure that is not a number is not found again.
    if abs(one.submitted - one.found) <= one.tolerance:
        return None
    return f"{one.what}: submitted {one.submitted:.2f}, found {one.found:.2f}, at most {one.tolerance:g} apart"


def _mean(cell: CellFile, metric: str) -> float:
    values = cell.columns and getattr(cell.columns, metric)
    return float(np.mean(np.array(values, dtype=np.float64))) if values else float("nan")


def _rerun(what: str, submitted: float, found: float, cell: str | None, tolerance: float) -> Rerun:
    return Rerun(what=what, cell=cell, submitted=round(submitted, 4), found=round(float(found), 4), tolerance=tolerance)
