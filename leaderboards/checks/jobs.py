"""The trainings and certificates of an entry, held to the board's and to what is possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from bench.price.certificates import identification_bound
from bench.price.federated import round_of_equal_images
from bench.store.store import JOB_COUNTS, JOB_FIGURES, JOB_TEXTS
from leaderboards.checks.expected import Expected
from leaderboards.checks.submission import Submission
from leaderboards.entries.schema import JobRow

PROOF = (
    "guarantee_unit", "guarantee_relation", "guarantee_steps", "accountant", "no_epsilon", "epsilon", "epsilon_rdp",
    "epsilon_prv", "epsilon_central", "noise_multiplier", "steps",
)  # fmt: skip
"""Columns of a guarantee. For an unknown defense the entry's own values stand, until its code is at hand."""
JOB_KEYS_OF_THE_DEFENSE = (
    "defense", "defense_name", "job", "images_per_update", "local_steps", "population", "participations", *PROOF,
)  # fmt: skip
"""Columns of a job that only a plan with the defense itself knows."""
NOT_COMPARED = ("fingerprint", "defense_order", "defense_parameters", "reason")
COMPUTED_FIGURES = {
    "training": ("accuracy", "accuracy_at_equal_images", "chance", "test_images", "bytes_sent", "update_ms", "seconds"),
    "certificate": ("successes", "bound", "seconds"),
}
"""Columns that computing a job fills in, by its kind."""
CLOSE = 1e-5
"""Tolerance of a figure, twenty times what rounding to an entry's seven digits moves it by."""


def job_faults(submission: Submission) -> Iterator[str]:
    """Trainings and certificates that are missing, not the board's, or impossible."""
    entry, plan = submission.entry, submission.plan
    for defense in entry.defenses:
        known = defense in plan.known
        own = [job for job in entry.jobs if job.defense == defense]
        mine = [job for job in plan.jobs if job["defense"] == plan.like(defense)]
        for kind in ("training", "certificate"):
            asked = {(job["weights"], job["seed"]): job for job in mine if job["kind"] == kind}
            found = {(job.weights, job.seed): job for job in own if job.kind == kind}
            if len(found) < sum(job.kind == kind for job in own):
                yield f"{defense}: a {kind} is there twice"
            # Whether an unknown defense proves something is for its author to say: then it has a certificate.
            if (known or kind == "training") and found.keys() != asked.keys():
                counts = f"{len(found)} of {len(asked)} {kind}s"
                yield f"{defense}: {counts}, or of other seeds; run the board to its end"
            for key, job in found.items():
                yield from _facts(job, asked.get(key, {}), known)
                yield from _possible(job, plan)
    for job in entry.jobs:
        if job.defense not in entry.defenses:
            yield f"{job.job}: {job.defense} is no defense of this entry"


def _facts(job: JobRow, asked: dict[str, Any], known: bool) -> Iterator[str]:
    """A job's facts, which its figures do not change."""
    told: dict[str, Any] = {**job.texts, **job.figures}
    own = {**told, **job.model_dump(exclude={"texts", "figures"})}
    place = _place(job)
    for name in (*JOB_TEXTS, *JOB_FIGURES, *JOB_COUNTS, *own):
        free = name in NOT_COMPARED or name == "status" or (not known and name in JOB_KEYS_OF_THE_DEFENSE)
        if not free and name in asked and not _same(own.get(name), asked[name]):
            yield f"{place}: {name} is {_short(own.get(name))}, the board's is {_short(asked[name])}"
    allowed = {*asked, *COMPUTED_FIGURES[job.kind], *(() if known else PROOF), *("candidates", "trials") * (not asked)}
    for name, value in told.items():
        if value is not None and name not in allowed:
            yield f"{place}: {name} is {_short(value)}, which no such {job.kind} has"


def _possible(job: JobRow, plan: Expected) -> Iterator[str]:
    place, figures = _place(job), job.figures
    metrics = plan.config.board.metrics if plan.config.board else ()
    if job.status != "ok":
        if not job.reason:
            yield f"{place}: it is {job.status} without a reason"
        # A defense under which nothing is learned says so by its accuracy; only numbers that blow up leave none.
        if job.kind == "training" and job.status != "diverged" and "accuracy" in metrics:
            yield f"{place}: it is {job.status}, but the board measures accuracy; finish it with --retry {job.status}"
        return
    yield from _training(job, plan) if job.kind == "training" else _certificate(place, figures)


def _has_second_accuracy(job: JobRow, plan: Expected) -> bool:
    """True if a training has an accuracy at equal images that the board's rules weigh; those of rules 1 weigh none."""
    board, utility, undefended = plan.config.board, plan.config.utility, plan.config.grid.client.images
    if board is None or board.rules == 1 or utility is None or job.images_per_update <= undefended:
        return False
    return round_of_equal_images(utility.rounds, job.images_per_update, undefended) is not None


def _training(job: JobRow, plan: Expected) -> Iterator[str]:
    place, figures = _place(job), job.figures
    labels = plan.dataset.labels
    images, chance = len(labels), int(labels.bincount().max()) / len(labels)
    accuracy, epsilon = figures.get("accuracy"), figures.get("epsilon")
    for name, value in (("test_images", images), ("chance", chance)):
        if not _same(figures.get(name), value):
            yield f"{place}: {name} is {_short(figures.get(name))}, the dataset's is {_short(value)}"
    early = figures.get("accuracy_at_equal_images")
    if early is None and _has_second_accuracy(job, plan):
        yield (
            f"{place}: accuracy_at_equal_images is missing, though its updates are of {job.images_per_update} images; "
            "give the run's command again, with --retry stale, and pack it anew"
        )
    # Of a defense that sees as many images as an undefended client, or was trained earlier, there is no second one.
    second = {} if early is None else {"accuracy_at_equal_images": early}
    for name, share in ({"accuracy": accuracy} | second).items():
        if share is None or not 0 <= share <= 1:
            yield f"{place}: {name} {_short(share)} of {images} test images is none"
        # An entry keeps seven digits.
        elif abs(share * images - round(share * images)) > 1e-6 * images + 1e-6:
            yield f"{place}: {name} {share} is no count of {images} test images"
    if not (figures.get("bytes_sent") or 0) > 0:
        yield f"{place}: bytes_sent is {_short(figures.get('bytes_sent'))}"
    if epsilon is not None and epsilon < 0:
        yield f"{place}: epsilon is {epsilon}"


def _certificate(place: str, figures: dict[str, float | None]) -> Iterator[str]:
    numbers = [figures.get(name) for name in ("candidates", "trials", "successes", "steps", "noise_multiplier")]
    bound = figures.get("bound")
    if None in (*numbers, bound):
        yield f"{place}: it needs candidates, trials, successes, steps, noise_multiplier and bound"
        return
    candidates, trials, successes, steps, noise = (float(n) for n in numbers if n is not None)
    whole = all(n == int(n) and abs(n) <= 2**53 for n in (candidates, trials, successes, steps))
    if not whole or not 0 <= successes <= trials or trials < 1 or candidates < 2 or steps < 1 or noise <= 0:
        yield f"{place}: {successes:g} of {trials:g} trials among {candidates:g} at noise {noise:g} cannot be"
        return
    proven = identification_bound(int(candidates), noise, int(steps))
    assert bound is not None, "looked at above"
    if not math.isclose(bound, proven, rel_tol=CLOSE, abs_tol=CLOSE):
        yield f"{place}: its bound is {bound:g}, by its noise it is {proven:g}"


def _place(job: JobRow) -> str:
    return f"{job.kind} of {job.defense}, seed {job.seed}"


def _short(value: object) -> str:
    return repr(value)[:120]


def _same(mine: Any, its: Any) -> bool:
    if isinstance(its, float) and math.isnan(its):
        its = None
    if isinstance(mine, (int, float)) and isinstance(its, (int, float)) and not isinstance(mine, bool):
        return math.isclose(mine, its, rel_tol=CLOSE)
    return (mine or None) == (its or None)
