"""The trainings and certificates of an entry, held to the board's and to what is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bench.certificates import identification_bound
from leaderboards.entries import Entry
from leaderboards.entry_schema import JobRow
from leaderboards.expected import Expected

OF_THE_DEFENSE = (
    "defense", "defense_parameters", "defense_order", "job", "images_per_update", "local_steps", "fingerprint",
    "defense_name", "guarantee_unit", "guarantee_relation", "guarantee_steps", "accountant", "no_epsilon", "epsilon",
    "epsilon_rdp", "epsilon_prv", "epsilon_central", "noise_multiplier", "population", "participations",
)  # fmt: skip
CLOSE = 1e-5


def job_faults(entry: Entry, plan: Expected) -> Iterator[str]:
    """What is wrong with the entry's trainings and certificates, in words."""
    wanted = plan.jobs()
    for defense in entry.defenses:
        own = [job for job in entry.jobs if job.defense == defense]
        label = defense if plan.known else "none"
        mine = [job for job in wanted if job["defense"] == label]
        for kind in ("training", "certificate"):
            asked = {(job["weights"], job["seed"]): job for job in mine if job["kind"] == kind}
            found = {(job.weights, job.seed): job for job in own if job.kind == kind}
            if len(found) < sum(job.kind == kind for job in own):
                yield f"{defense}: a {kind} is there twice"
            # Whether an unknown defense proves something is for its author to say: then it has a certificate.
            if (plan.known or kind == "training") and found.keys() != asked.keys():
                counts = f"{len(found)} of {len(asked)} {kind}s"
                yield f"{defense}: {counts}, or of other seeds; run the board to its end"
            for key in found.keys() & asked.keys():
                yield from _facts(found[key], asked[key], plan.known)
            yield from (fault for job in found.values() for fault in _possible(job))
    for job in entry.jobs:
        if job.defense not in entry.defenses:
            yield f"{job.job}: {job.defense} is no defense of this entry"


def _facts(job: JobRow, asked: dict[str, Any], known: bool) -> Iterator[str]:
    """A job's facts, which its figures do not change."""
    own: dict[str, Any] = {**job.model_dump(exclude={"texts", "figures"}), **job.texts, **job.figures}
    for name, value in asked.items():
        if name in ("fingerprint", "defense_order", "defense_parameters") or (not known and name in OF_THE_DEFENSE):
            continue
        if not _same(own.get(name), value):
            yield f"{job.kind} of {job.defense}, seed {job.seed}: {name} is {own.get(name)!r}, the board's is {value!r}"


def _possible(job: JobRow) -> Iterator[str]:
    place, figures = f"{job.kind} of {job.defense}, seed {job.seed}", job.figures
    if job.status != "ok":
        if not job.reason:
            yield f"{place}: it is {job.status} without a reason"
        return
    if job.kind == "training":
        accuracy, images = figures.get("accuracy"), figures.get("test_images")
        if accuracy is None or images is None or not 0 <= accuracy <= 1 or images < 1:
            yield f"{place}: accuracy {accuracy} of {images} test images is none"
        elif abs(accuracy * images - round(accuracy * images)) > 1e-3:
            yield f"{place}: accuracy {accuracy} is no count of {images:.0f} test images"
        epsilon = figures.get("epsilon")
        if epsilon is not None and epsilon < 0:
            yield f"{place}: epsilon is {epsilon}"
        return
    numbers = [figures.get(name) for name in ("candidates", "trials", "successes", "noise_multiplier", "bound")]
    if None in numbers:
        yield f"{place}: it needs candidates, trials, successes, noise_multiplier and bound"
        return
    candidates, trials, successes, noise, bound = (float(n) for n in numbers if n is not None)
    steps = int(figures.get("guarantee_steps") or figures.get("steps") or 1)
    if not 0 <= successes <= trials or candidates < 2 or noise <= 0:
        yield f"{place}: {successes:g} of {trials:g} trials among {candidates:g} at noise {noise:g} cannot be"
        return
    proven = identification_bound(int(candidates), noise, steps)
    if not math.isclose(bound, proven, rel_tol=CLOSE, abs_tol=CLOSE):
        yield f"{place}: its bound is {bound:g}, by its noise it is {proven:g}"


def _same(mine: Any, its: Any) -> bool:
    if isinstance(its, float) and math.isnan(its):
        its = None
    if isinstance(mine, (int, float)) and isinstance(its, (int, float)) and not isinstance(mine, bool):
        return math.isclose(mine, its, rel_tol=CLOSE)
    return (mine or None) == (its or None)
