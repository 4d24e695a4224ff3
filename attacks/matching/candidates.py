"""The adversary of a certificate: which of n candidate images does the release come from?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, vmap

from attacks.attack import UnsupportedPair
from attacks.matching.simulation import GradientRule, simulated_update
from attacks.observation import Observation
from defenses.surrogate import Simulation
from defenses.task import Batch, Update

_ENTRIES, _LANES = 2**22, 1024
"""Entries of predictions and their images, and candidates, that are computed at once: more were no faster on a CPU."""


def most_likely(observation: Observation, candidates: Tensor, labels: Tensor, others: Batch | None = None) -> Tensor:
    """The index (t,) of the candidate that explains each trial's update best; of equal ones the first.

    `candidates` (t n c h w) in [0, 1] and their `labels` (t n) are public; so are the other b - 1 images of a client
    with b: `others`, images (t b-1 c h w) and labels (t b-1). Nothing is reconstructed, so no image is scored, and
    nothing is random.

    Every candidate's update is computed as the client would have, with what the observation knows of the defense.
    Noise of one deviation in all coordinates makes the likeliest candidate that whose update is nearest to the release
    in squared distance, whatever the deviation is; of equally probable ones it is the best guess that there is. Local
    steps are unrolled with the private image first, in an order that the client need not have used, and a defense that
    nobody simulates is answered with the undefended update nearest in direction: both are guesses like any other,
    which leave what is measured a lower bound of what leaks.

    Raises `UnsupportedPair` for weights that differ between trials, or several images a client without the others;
    ValueError for shapes that do not fit each other.
    """
    others = _checked(observation, candidates, labels, others)
    entries = sum(p.numel() for p in observation.params.values()) + observation.images * candidates[0, 0].numel()
    lanes = max(1, min(_LANES, _ENTRIES // entries))
    over_candidates = vmap(partial(_score, observation), in_dims=(None, 0, 0, None), chunk_size=lanes)
    batches = vmap(over_candidates, chunk_size=max(1, lanes // candidates.shape[1]))
    other_lanes = (others.images, others.labels)
    scores = batches(observation.each or observation.updates, candidates, labels, other_lanes)
    # What is undefined explains nothing; argmin gives the first of equal ones.
    return scores.nan_to_num(nan=float("inf")).argmin(1)


def candidate_updates(observation: Observation, candidates: Batch) -> Iterator[Update]:
    """The update that each of n candidates (n c h w) would make alone, before what the defense does to a whole one."""
    for image, label in zip(candidates.images, candidates.labels, strict=True):
        yield _simulated(observation, image[None], label[None])


def mismatches(observation: Observation, updates: Iterable[Update]) -> Tensor:
    """The distance (t n) between every trial's release and what would have been one of each of n `updates`.

    Float64, lower is more likely, as in `most_likely`; inf where it is undefined. One update at a time is looked at.
    """
    observed = observation.each or observation.updates
    each = [vmap(partial(_mismatch, observation, update))(observed) for update in updates]
    return torch.stack(each, 1).nan_to_num(nan=float("inf"))


def _score(
    observation: Observation, observed: Update, image: Tensor, label: Tensor, others: tuple[Tensor, Tensor]
) -> Tensor:
    """The distance between a release and that of a candidate (c h w) with its label (): lower is more likely."""
    images = torch.cat([image[None], others[0]])
    labels = torch.cat([label[None], others[1]])
    return _mismatch(observation, _simulated(observation, images, labels), observed)


def _simulated(observation: Observation, images: Tensor, labels: Tensor) -> Update:
    known, task = observation.defense, observation.task
    rule: GradientRule = grad(task.loss)
    if known is not None and known.gradient is not None:
        rule = partial(known.gradient, task.loss)
    return simulated_update(task, observation.params, images, labels, rule)


def _mismatch(observation: Observation, update: Update, observed: Update) -> Tensor:
    """The distance between an update's release and the observed one, or the mean over all (releases, *shape)."""
    distance = partial(_distance, observation.defense, update)
    return distance(observed) if observation.each is None else vmap(distance)(observed).mean()


def _distance(known: Simulation | None, update: Update, observed: Update) -> Tensor:
    if known is not None:
        update = known.predict(update, observed)
    # In float64: a release under strong noise is thousands of times as long as what tells two candidates apart.
    square = torch.stack([u.double().square().sum() for u in update.values()]).sum()
    along = torch.stack([(u.double() * observed[name].double()).sum() for name, u in update.items()]).sum()
    if known is None:
        return -along / square.sqrt()
    return square - 2 * along  # |p - o|^2 but for |o|^2, which all candidates share


def _checked(observation: Observation, candidates: Tensor, labels: Tensor, others: Batch | None) -> Batch:
    """The other images of every trial, none for clients with one; raises where something does not fit."""
    trials, images, shape = observation.trials, observation.images, observation.task.input_shape
    if observation.own_weights:
        raise UnsupportedPair("candidate_pool: trials with weights of their own; observe those of each model apart")
    fits = candidates.dim() == 5 and (candidates.shape[0], *candidates.shape[2:]) == (trials, *shape)
    if not fits or not candidates.is_floating_point():
        got = f"{tuple(candidates.shape)} {candidates.dtype}"
        raise ValueError(
            f"candidates must be floats in [0, 1] of shape (t n c h w) = {(trials, 'n', *shape)}, got {got}"
        )
    if candidates.shape[1] < 2:
        raise ValueError(f"candidates must hold at least 2 images a trial, got {candidates.shape[1]}; add rivals")
    if labels.shape != candidates.shape[:2]:
        raise ValueError(
            f"labels must be (t n) = {tuple(candidates.shape[:2])}, one a candidate, got {tuple(labels.shape)}"
        )
    if others is None:
        if images > 1:
            raise UnsupportedPair(
                f"candidate_pool: an update of {images} images holds {images - 1} beside the private one; hand them "
                "over as others, images (t b-1 c h w) and labels (t b-1)"
            )
        return Batch(candidates[:, :0], labels[:, :0])
    expected = (trials, images - 1)
    if tuple(others.images.shape) != (*expected, *shape) or tuple(others.labels.shape) != expected:
        got = f"{tuple(others.images.shape)} and {tuple(others.labels.shape)}"
        raise ValueError(f"others must be images {(*expected, *shape)} and labels {expected}, (t b-1 ...), got {got}")
    return others
