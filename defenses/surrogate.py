"""The stand-in for a defense that an attacker who knows it simulates, and its use of the released update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from defenses.task import Params, Task, Update

Loss = Callable[[Params, Tensor, Tensor], Tensor]
"""The mean cross-entropy, from weights, images (b c h w) in [0, 1] and labels (b,) or probabilities (b classes)."""


@dataclass(frozen=True)
class Surrogate:
    """A defense as its attacker computes it for one client; every function is traceable by torch.func.

    The attack compares `predict` of the dummy's update with what was released. An update is a dict of parameter names
    to tensors of the parameters' shapes, of one client, in the units of the release. Tensors that a function brings
    along have to follow the device and type of its arguments. `Surrogate()` is that of a defense which needs no
    adapting to; a defense without one, None, is unaudited.

    - `gradient(loss, params, images, labels) -> Update`: what replaces the mean gradient in every local step; of a
      `share` only.
    - `predict(update) -> Update`: a differentiable stand-in of what the defense does to an update.
    - `keep(observed) -> Update`: 1 for every coordinate that the defense leaves as it is, 0 for those that it sets to
      zero, read off the release. Used instead of `predict` unless noise hides it; then `predict` is needed.
    - `penalty(update, observed)`: a scalar, in units of the squared distance of updates of norm 1, for what the release
      says of the update beside the coordinates that it shows; used only where nothing later changes the release.
    - `noise_std`: the standard deviation of Gaussian noise that is added to every coordinate, after all else.
    """

    gradient: Callable[[Loss, Params, Tensor, Tensor], Update] | None = None
    predict: Callable[[Update], Update] | None = None
    keep: Callable[[Update], Update] | None = None
    penalty: Callable[[Update, Update], Tensor] | None = None
    noise_std: float = 0.0


@dataclass(frozen=True)
class Simulation:
    """The surrogates of a whole chain as one: `predict(update, observed)` and `penalty(update, observed)`.

    `sent(update)` is the release of an update of the attacker's own, before noise: every part's `predict`, without a
    look at any release; None where a part only says what it keeps. `looks` says that `predict` or `penalty` does look
    at the release: of several that differ, each then says something of its own.
    """

    gradient: Callable[[Loss, Params, Tensor, Tensor], Update] | None
    predict: Callable[[Update, Update], Update]
    penalty: Callable[[Update, Update], Tensor] | None
    noise_std: float
    sent: Callable[[Update], Update] | None = None
    looks: bool = False


def composed(parts: list[Surrogate]) -> Simulation | None:
    """The simulation of a chain: of the part that computes an update, then of the parts that change it.

    None where nobody knows how: noise that a later part changes is no Gaussian any more. Raises TypeError for a
    `gradient` of a part that computes none.
    """
    if any(part.gradient is not None for part in parts[1:]):
        raise TypeError("a surrogate's gradient belongs to the part of a chain that computes the update, its share")
    steps: list[Callable[[Update, Update], Update]] = []
    penalty, variance, looks = None, 0.0, False
    for i, part in enumerate(parts):
        changes = part.predict is not None or part.keep is not None or part.penalty is not None
        if variance and changes:
            return None
        later = parts[i + 1 :]
        hidden = part.noise_std or any(other.noise_std for other in later)
        overlaid = hidden or any(other.predict is not None or other.keep is not None for other in later)
        if part.penalty is not None and not overlaid:
            penalty = partial(_penalised, part.penalty, tuple(steps))
        if part.keep is not None and not hidden:
            steps.append(partial(_kept, part.keep))
            looks = True
        elif part.predict is not None:
            steps.append(partial(_predicted, part.predict))
        elif part.keep is not None:
            return None
        variance += part.noise_std**2
    predict, looks = partial(_run, tuple(steps)), looks or penalty is not None
    return Simulation(parts[0].gradient, predict, penalty, variance**0.5, _sending(parts), looks)


def check_simulation(simulation: Simulation, task: Task) -> None:
    """Run every function once, on zeros; raises TypeError where one does not give what it should."""
    params = {name: p.detach() for name, p in task.model.named_parameters()}
    zeros = {name: torch.zeros_like(p) for name, p in params.items()}
    simulation.predict(zeros, zeros)
    if simulation.penalty is not None:
        value = simulation.penalty(zeros, zeros)
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise TypeError(f"penalty returned {value!r}; return a tensor that holds one number")
    if simulation.gradient is not None:
        image = next(iter(params.values())).new_zeros(1, *task.input_shape)
        label = torch.zeros(1, dtype=torch.int64, device=image.device)
        _alike("gradient", simulation.gradient(task.loss, params, image, label), params)


def _sending(parts: list[Surrogate]) -> Callable[[Update], Update] | None:
    if any(part.keep is not None and part.predict is None for part in parts):
        return None
    return partial(_sent, tuple(partial(_predicted, part.predict) for part in parts if part.predict is not None))


def _sent(steps: tuple[Callable[[Update, Update], Update], ...], update: Update) -> Update:
    return _run(steps, update, update)


def _run(steps: tuple[Callable[[Update, Update], Update], ...], update: Update, observed: Update) -> Update:
    for step in steps:
        update = step(update, observed)
    return update


def _penalised(
    penalty: Callable[[Update, Update], Tensor],
    before: tuple[Callable[[Update, Update], Update], ...],
    update: Update,
    observed: Update,
) -> Tensor:
    return penalty(_run(before, update, observed), observed)


def _kept(keep: Callable[[Update], Update], update: Update, observed: Update) -> Update:
    mask = _alike("keep", keep(observed), update)
    return {name: u * mask[name] for name, u in update.items()}


def _predicted(predict: Callable[[Update], Update], update: Update, observed: Update) -> Update:
    return _alike("predict", predict(update), update)


def _alike(what: str, found: Any, update: Update) -> Update:
    if not isinstance(found, dict) or found.keys() != update.keys():
        got = f"tensors {', '.join(map(str, found))}" if isinstance(found, dict) else type(found).__name__
        raise TypeError(f"{what} returned {got}; return a dict of the update's names to tensors")
    for name, u in update.items():
        shape = tuple(getattr(found[name], "shape", ()))
        if not isinstance(found[name], Tensor) or shape != tuple(u.shape):
            got = f"shape {shape}" if isinstance(found[name], Tensor) else type(found[name]).__name__
            raise TypeError(f"{what} returned {got} for {name!r}; the update has shape {tuple(u.shape)}")
    return found
