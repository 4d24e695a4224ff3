"""An attack held to its contract: it works on copies of what it sees, and its answer is checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from attacks.attack import Attack, Reconstruction
from attacks.observation import Observation


class Diverged(RuntimeError):
    """An attack left the real numbers; the message says in how many trials."""


class AttackFault(RuntimeError):
    """An attack broke its contract; the message names the rule."""


def reconstruct(attack: Attack, observation: Observation, seeds: list[int]) -> Reconstruction:
    """The attack's reconstruction, checked; raises `AttackFault` or `Diverged`.

    The global generator is forked and seeded: a library that draws from it must not depend on what ran before.
    """
    gpu = [observation.device] if observation.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpu), _only_lent(observation, "reconstruct") as seen:
        torch.manual_seed(seeds[0])
        found = attack.reconstruct(seen, list(seeds))
    _check(found, observation)
    return found


def objective(attack: Attack, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
    """The attack's objective (t,) at images (t b c h w) and labels (t b), or None; raises `AttackFault`."""
    with _only_lent(observation, "objective") as seen:
        values = attack.objective(seen, images, labels)
    _check_values("objective", values, observation)
    return values


def check_choices(choices: Sequence[dict[str, float]]) -> None:
    """Raise `AttackFault` unless the same was chosen for all trials: no attacked image may have a say in it."""
    for name in dict.fromkeys(chain(*choices)):
        first, *others = (own.get(name, math.nan) for own in choices)
        for other in others:
            # Where a tensor lies in memory decides the order of additions, and with it the last digits.
            if not math.isclose(first, other, rel_tol=1e-6):
                raise AttackFault(
                    f"choices[{name!r}] is {first:.7g} for some trials and {other:.7g} for others; choose on public "
                    "images alone, and keep what was chosen with observation.learn"
                )


@contextmanager
def _only_lent(observation: Observation, method: str) -> Iterator[Observation]:
    """A copy of the observation, which other attacks see too; raises `AttackFault` if the block writes into it."""
    before, public = _tensors(observation), observation.public
    copies = {name: tensor.clone() for name, tensor in before.items()}
    yield replace(
        observation,
        task=replace(observation.task, model=deepcopy(observation.task.model)),
        updates={name: copies[f"updates[{name!r}]"] for name in observation.updates},
        params={name: copies[f"params[{name!r}]"] for name in observation.params},
        labels=copies.get("labels"),
        class_means=copies.get("class_means"),
        each=observation.each and {name: copies[f"each[{name!r}]"] for name in observation.each},
        public=public and replace(public, images=copies["public.images"], labels=copies["public.labels"]),
    )
    for name, tensor in copies.items():
        if not torch.equal(tensor.nan_to_num(), before[name].nan_to_num()):
            raise AttackFault(f"{method} wrote into {name} of the observation; make new tensors instead")


def _tensors(observation: Observation) -> dict[str, Tensor]:
    named = {f"updates[{name!r}]": tensor for name, tensor in observation.updates.items()}
    named |= {f"params[{name!r}]": tensor for name, tensor in observation.params.items()}
    named |= {f"each[{name!r}]": tensor for name, tensor in (observation.each or {}).items()}
    optional = {"labels": observation.labels, "class_means": observation.class_means}
    if observation.public is not None:
        optional |= {"public.images": observation.public.images, "public.labels": observation.public.labels}
    return named | {name: tensor for name, tensor in optional.items() if tensor is not None}


def _check(found: Reconstruction, seen: Observation) -> None:
    if not isinstance(found, Reconstruction):
        raise AttackFault(f"reconstruct returned {type(found).__name__}; return a leakboard.Reconstruction")
    shape = (seen.trials, seen.images, *seen.task.input_shape)
    if tuple(found.images.shape) != shape:
        raise AttackFault(f"reconstruct returned images {tuple(found.images.shape)}; (t b c h w) is {shape}")
    if tuple(found.labels.shape) != shape[:2] or found.labels.dtype != torch.long:
        got = f"{tuple(found.labels.shape)} {found.labels.dtype}"
        raise AttackFault(f"reconstruct returned labels {got}; (t b) is {shape[:2]} torch.int64")
    _check_values("objective", found.objective, seen)
    _check_values("start", found.start, seen)
    for iteration, values in found.trace.items():
        _check_values(f"trace[{iteration}]", values, seen)
    for name, value in found.choices.items():
        if not isinstance(value, float | int) or not math.isfinite(value):
            raise AttackFault(f"choices[{name!r}] is {value!r}; give a finite number")
    bad = (~torch.isfinite(found.images)).flatten(1).any(1)
    if bad.any():
        raise Diverged(f"{int(bad.sum())} of {len(bad)} trials ended in infinite or undefined pixels")
    if found.images.min() < 0 or found.images.max() > 1:
        low, high = float(found.images.min()), float(found.images.max())
        raise AttackFault(f"reconstruct returned pixels in [{low:.3g}, {high:.3g}]; clamp them to [0, 1]")


def _check_values(name: str, values: Tensor | None, seen: Observation) -> None:
    if values is not None and tuple(values.shape) != (seen.trials,):
        raise AttackFault(f"{name} has shape {tuple(values.shape)}; (t,) is ({seen.trials},)")
