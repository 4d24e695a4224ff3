"""Cells of an entry computed again, drawn at the time of the check, and compared with what was submitted.

The defense's code is run, with the rights of whoever asks: only for somebody who has read it.
"""

from __future__ import annotations

import hashlib
import math
import random
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from bench.columns import facts_of, granted_text
from bench.errors import ConfigurationError
from bench.store.store import underpowered
from bench.trial.same_class import SAME_CLASS, same_class_label
from leaderboards.checks.expected import Expected, chain_of
from leaderboards.entries.entry import Entry
from leaderboards.entries.reviews import Conformance, Rerun
from leaderboards.entries.schema import LENT, CellFile, JobRow
from leaderboards.untrusted.refusals import shown

if TYPE_CHECKING:
    from pandas import DataFrame

    from bench.plan.plan import Plan
    from bench.registry.registry import Registry
    from bench.store.store import Store
    from bench.trial.clients import Clients


@dataclass(frozen=True)
class ComparedFigure:
    """A number that is compared when its cell or job was computed again."""

    text: str
    """Printed, and kept in reviews; {} stands for the cell or job."""
    owner: str
    """A noun in place of {}, for documents."""
    tolerance: float
    """The most by which it may move on another machine."""
    unit: str = ""
    """The unit of `tolerance`, with the space before it."""


ATTACK, CELL = "an attack on images", "an attack on images, or a floor"
PSNR = ComparedFigure("mean PSNR in dB of {}", CELL, 0.5, " dB")
SSIM = ComparedFigure("mean SSIM of {}", CELL, 0.02)
SSIM_BY_IMAGE = ComparedFigure("distance of SSIM by image of {}", CELL, 0.05)
IDENTIFIED = ComparedFigure("images identified in % by {}", CELL, 5.0, " points")
LIKELY = ComparedFigure("images identified by likelihood in % under {}", "an attack with public images", 5.0, " points")
LABELS_FOUND = ComparedFigure("labels found in % by {}", "an attack on labels", 5.0, " points")
UPDATE_NORM = ComparedFigure("norm of the update in % for {}", "an attack", 10.0, "%")
OBJECTIVE_FOUND = ComparedFigure("objective found in % of the start of {}", ATTACK, 5.0, " points")
OBJECTIVE_TRUTH = ComparedFigure("objective truth in % of the start of {}", ATTACK, 5.0, " points")
UNDERPOWERED = ComparedFigure("images underpowered in % of {}", ATTACK, 20.0, " points")
ACCURACY = ComparedFigure("accuracy in % of {}", "a training", 1.5, " points")
EARLY_ACCURACY = ComparedFigure("accuracy at equal images in % of {}", "a training that sees more", 1.5, " points")
UPDATE_BYTES = ComparedFigure("bytes of an update in % of {}", "a training", 5.0, "%")
SUCCESSES = ComparedFigure("private images identified in % of {}", "a certificate", 5.0, " points")
COMPARED_FIGURES = (
    PSNR, SSIM, SSIM_BY_IMAGE, IDENTIFIED, LIKELY, LABELS_FOUND, UPDATE_NORM, OBJECTIVE_FOUND, OBJECTIVE_TRUTH,
    UNDERPOWERED, ACCURACY, EARLY_ACCURACY, UPDATE_BYTES, SUCCESSES,
)  # fmt: skip
"""All that is compared."""


def compared(cell: CellFile, rows: DataFrame) -> Iterator[Rerun]:
    """A finished cell beside its `rows`, sorted by image: what it leaks, what was sent, how far the attack came.

    Raises ConfigurationError where one of both has no figure.
    """
    columns = cell.columns
    assert columns is not None, "only finished cells are computed again"
    what = shown(f"{cell.identity.attack} / {cell.identity.defense}, {cell.identity.weights} weights", 300)
    what += granted_text(*facts_of(vars(cell.identity)))
    place = what, cell.identity.cell
    mine = {name: _values(values) for name, values in columns.model_dump().items() if values is not None}
    its = {name: rows[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in mine if name in rows}
    blank = np.full(len(rows), np.nan)
    pair = lambda name: (mine.get(name, blank), its.get(name, rows[name].to_numpy(np.float64)))  # noqa: E731
    if cell.identity.recovers_labels:
        yield from _means(LABELS_FOUND, place, pair("label_accuracy"), 100)
    else:
        yield from _means(PSNR, place, pair("psnr_db"))
        yield from _means(SSIM, place, pair("ssim"))
        apart = np.abs(np.subtract(*pair("ssim")))
        yield from _means(SSIM_BY_IMAGE, place, (0 * apart, apart))
        yield from _means(IDENTIFIED, place, pair("identified"), 100)
    if cell.identity.control:
        return
    yield from _means(LIKELY, place, pair("identified_by_likelihood"), 100)
    norm, again = pair("update_norm")
    yield from _means(UPDATE_NORM, place, (norm, again), _percent(norm))
    start, start_again = pair("objective_start")
    for figure, name in ((OBJECTIVE_FOUND, "objective_found"), (OBJECTIVE_TRUTH, "objective_truth")):
        objective, objective_again = pair(name)
        relative = objective.mean() / abs(start.mean()), objective_again.mean() / abs(start_again.mean())
        yield from _means(figure, place, relative, 100)
    found, truth = pair("objective_found"), pair("objective_truth")
    shares = [underpowered(*both) for both in zip(found, truth, strict=True)]
    yield from _means(UNDERPOWERED, place, shares, 100)


def compared_job(job: JobRow, row: dict[str, Any]) -> Iterator[Rerun]:
    """A training or certificate beside the `row` of its figures."""
    what = f"{shown(job.defense, 300)}, seed {job.seed}", None
    own = {name: np.nan if value is None else value for name, value in job.figures.items()}
    if job.kind == "training":
        yield from _means(ACCURACY, what, (own.get("accuracy"), row["accuracy"]), 100)
        if "accuracy_at_equal_images" in own:
            both = own["accuracy_at_equal_images"], row["accuracy_at_equal_images"]
            yield from _means(EARLY_ACCURACY, what, both, 100)
        sent = own.get("bytes_sent", np.nan)
        yield from _means(UPDATE_BYTES, what, (sent, row["bytes_sent"]), _percent(sent))
    else:
        rates = own.get("successes", np.nan) / own.get("trials", np.nan), row["successes"] / row["trials"]
        yield from _means(SUCCESSES, what, rates, 100)


def fault(one: Rerun) -> str | None:
    """A message about a figure that was not found again; None where it was."""
    if abs(one.submitted - one.found) <= one.tolerance:
        return None
    return f"{one.what}: submitted {one.submitted:.4g}, found {one.found:.4g}, at most {one.tolerance:g} apart"


def _means(figure: ComparedFigure, place: tuple[str, str | None], both: Any, scale: float = 1.0) -> Iterator[Rerun]:
    """The means of a figure as submitted and as found; none where neither has it."""
    what, cell = figure.text.format(place[0]), place[1]
    mine, its = (float(np.mean(values)) * scale for values in both)
    if math.isnan(mine) and math.isnan(its):
        return
    if not (math.isfinite(mine) and math.isfinite(its)):
        raise ConfigurationError(f"{what}: submitted {mine:.4g}, found {its:.4g}")
    yield Rerun(what=what, cell=cell, submitted=round(mine, 4), found=round(its, 4), tolerance=figure.tolerance)


def _percent(submitted: Any) -> float:
    mean = float(np.mean(submitted))
    return 100 / mean if mean else 100.0


def _values(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


_Item = TypeVar("_Item")


@dataclass(frozen=True)
class RerunSample:
    """The cells and jobs of an entry that are computed again."""

    cells: tuple[CellFile, ...]
    jobs: tuple[JobRow, ...] = ()


def check_plugin(entry: Entry, registry: Registry) -> None:
    """Raise ConfigurationError unless all code of the entry is at hand, as submitted to the letter.

    That is Leakboard's own and the plugin that the entry names, which must be among the files given.
    """
    wanted = entry.manifest.plugin
    if wanted is None:
        named = {name for cell in entry.cells for name in cell.identity.defense_name.split(" | ")}
        if foreign := registry.foreign("defense", named):
            raise ConfigurationError(f"{foreign[0]} is not built in, and the entry names no plugin: pack it with one")
        return
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in registry.plugins if path.is_file()]
    if wanted.sha256 not in digests:
        where = f"{wanted.file} of {wanted.repository} at {wanted.commit[:12]}"
        raise ConfigurationError(f"a re-run needs the plugin as submitted: give {where} with --plugin")


def sample_reruns(entry: Entry, required: Collection[str], count: int, seed: int | None = None) -> RerunSample:
    """So many finished attacks on images, drawn now (or from `seed`), all where there are fewer.

    So many of the board's `required` attacks and, apart from them, of those that the entry adds: many of these hide
    none of the others. With them go the floors of the same defenses (`same_class` of these attacks alone), all attacks
    on labels, one training and one certificate.
    """
    rng = random.SystemRandom() if seed is None else random.Random(seed)
    finished = [cell for cell in entry.cells if cell.status == "ok"]
    labels = [c for c in finished if c.identity.recovers_labels and not c.identity.control]
    of_images = [c for c in finished if not (c.identity.recovers_labels or c.identity.control)]
    board = [c for c in of_images if c.identity.attack in required]
    chosen = [cell for own in (board, [c for c in of_images if c not in board]) for cell in _some(own, count, rng)]
    places = {_place(cell) for cell in chosen}
    attacks = {same_class_label(cell.identity.attack) for cell in chosen}
    floors = [
        cell
        for cell in finished
        if cell.identity.control
        and cell.of is None
        and _place(cell) in places
        # Its answers take as long as the attack, and those to all other attacks may be left alone.
        and (cell.identity.attack_name != SAME_CLASS or cell.identity.attack in attacks)
    ]
    done = [job for job in entry.jobs if job.status == "ok"]
    kinds = [[job for job in done if job.kind == kind] for kind in ("training", "certificate")]
    # Other floors, and attacks on labels, take no time.
    return RerunSample((*chosen, *labels, *floors), tuple(job for own in kinds for job in _some(own, 1, rng)))


def rerun(
    plan: Expected, chosen: RerunSample, entry: Entry, registry: Registry, say: Callable[[str], None]
) -> list[Rerun]:
    """Compute what was drawn again, and put it beside what was submitted.

    Raises ConfigurationError where something fails, or has no figure, that was submitted with one.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = _computed(plan, chosen, registry, Path(folder), say)
        frame, jobs = store.frame(), store.jobs_frame()
    found: list[Rerun] = []
    for cell in chosen.cells:
        rows = frame.loc[frame["cell"] == cell.identity.cell].sort_values("image")
        found += compared(cell, rows)
    for job in chosen.jobs:
        found += compared_job(job, jobs.set_index("job").loc[job.job].to_dict())
    return found


def held(entry: Entry, registry: Registry, say: Callable[[str], None]) -> tuple[Conformance, ...]:
    """Hold every method of the entry's plugin to the conformance suite, each with its parameters.

    Raises ConfigurationError where that cannot be.
    """
    from bench.conformance.child import checked
    from bench.conformance.findings import Finding

    parts = dict.fromkeys(part for cell in entry.cells for part in chain_of(cell.identity))
    foreign, found = registry.foreign("defense", (part.name for part in parts)), []
    for call in dict.fromkeys(registry.resolve("defense", part).call for part in parts if part.name in foreign):
        say(f"holding to the conformance suite: {call}")
        told = [one for one in checked(call, registry.plugins) if isinstance(one, Finding)]
        passed, failed = ([one.rule for one in told if one.status == status] for status in ("passed", "failed"))
        found.append(Conformance(method=shown(call, 2000), passed=passed, failed=failed))
        for one in told:
            if one.failed:
                say(str(one))
    return tuple(found)


def _computed(
    plan: Expected, chosen: RerunSample, registry: Registry, folder: Path, say: Callable[[str], None]
) -> Store:
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
    return run_plan(own, plan.clients, registry, folder, say)


def run_plan(plan: Plan, clients: Clients, registry: Registry, folder: Path, say: Callable[[str], None]) -> Store:
    """Compute a plan in a folder; raises ConfigurationError where something of it has no result."""
    import torch

    from bench.devices import choose_device, default_threads
    from bench.engines.local import LocalEngine
    from bench.engines.progress import Watcher
    from bench.grid.jobs import Job
    from bench.plan.description import begin
    from bench.store.store import Store

    settings = plan.config.engine
    torch.set_num_threads(settings.threads or default_threads())
    store = Store(folder)
    store.create()
    begin(store, plan, clients)
    device = choose_device(settings.device, settings.execution, settings.precision)
    engine = LocalEngine(plan, registry, clients, store, settings, device)
    pending = engine.pending(())
    with Watcher(len(pending), shown=False) as watcher:
        for unit in engine.units(pending):
            if isinstance(unit, Job):
                say(f"computing again: {unit.title}")
            for item, status, reason in engine.run(unit, watcher):
                if status != "ok":
                    raise ConfigurationError(f"{item.title} is {status} when run again: {reason}")
    return store


def _place(cell: CellFile) -> tuple[object, ...]:
    """The client that a cell attacks, told by the columns that `wrong_image` shares with its lender."""
    return tuple(getattr(cell.identity, name) for name in LENT)


def _some(items: list[_Item], count: int, rng: random.Random) -> list[_Item]:
    return rng.sample(items, min(count, len(items)))
