"""Searching from several starts, and which of them is a trial's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from attacks.attack import Reconstruction
from attacks.descent import Adam, descend
from attacks.engine import Descended
from attacks.lanes import Lanes
from attacks.observation import Observation

if TYPE_CHECKING:
    from attacks.matching import MatchingProblem


def descended(
    problem: MatchingProblem, seeds: list[int], restarts: int, adam: Adam, *, signed: bool, boxed: bool
) -> Reconstruction:
    """The answer to every trial of a descent from `restarts` starts each, `boxed` in the valid pixels."""
    start, evidence = problem.start(seeds, restarts), problem.evidence(restarts)
    box = problem.box() if boxed else None
    found = descend(problem.objective, start, evidence, adam, signed=signed, box=box, gradients=problem.gradients)
    return problem.best(found, evidence, restarts)


def best_restart(observation: Observation, found: Descended, evidence: Lanes, restarts: int) -> Reconstruction:
    """Each trial's restart with the lowest objective of the attack; the truth has no say.

    `found` and `evidence` are of the descent, its lanes trials x restarts, trial by trial.
    """
    trials = observation.trials
    # A restart that left the real numbers must never win by comparing as smallest.
    ranked = found.objective.nan_to_num(nan=float("inf")).view(trials, restarts)
    lane = ranked.argmin(dim=1) + torch.arange(trials, device=ranked.device) * restarts
    images = observation.task.denormalise(found.variables["images"][lane]).clamp(0, 1)
    logits = found.variables.get("logits")
    labels = evidence["labels"][lane] if logits is None else logits[lane].argmax(-1)
    trace = {i: value[lane] for i, value in found.trace.items()}
    return Reconstruction(images, labels, found.objective[lane], found.start[lane], trace)
