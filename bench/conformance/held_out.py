"""Rules for a surrogate on held-out clients: its slopes, and the residual that it leaves of their releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.func import grad, vjp
from torch.nn import functional as F

from bench.conformance.cases import DefenseCase, public_images
from bench.conformance.findings import Broken, NotApplicable
from bench.conformance.surrogates import (
    entries_of,
    predicts_what_is_sent,
    simulation_of,
    surrogate_is_usable,
    surrogate_of,
)
from defenses.defense import role_of
from defenses.surrogate import Simulation
from defenses.task import Batch, Params, Task, Update

_CLIENTS = 32
_STEP = 1e-2
"""Length of a step, as a part of the update's norm: for one of 1e4 entries about a usual entry's size."""
_PROBES = {"update": 6, "images": 2}
"""Steps for each client: those along images cost two gradients each."""
_DRAWS = {"update": 4, "images": 1}
"""Releases behind a mean where the defense draws; along images the clients are the draws."""
_SLOPES = 0.3
"""The least cosine of slopes. Built-ins have at least .97, a random mask of 10% that is called identity .66, signs that
are called tanh(1e6 u) .09."""
_OFF = 0.1
"""The part by which the residual's mean square may miss the stated noise's."""
_ALIGNED = 0.05
"""The largest cosine of a residual with the update; that of noise is below .002 for 32 clients of 1e4 entries."""
_FOLLOWING = 0.02
"""The largest correlation of a residual's squares with the update's. Noise of `gaussian_noise` has 2e-4, of `dp_sgd`
2e-3, where independent ones have an SD of 1e-3 to 1.5e-3; what a random mask of 10% or of half adds has .31 and .94,
and .10 beside four times as much noise."""
_ROUNDED = 1e-6
"""Mean square of a residual, as a part of the prediction's, that is excused: rounding to half precision leaves 1e-7,
Opacus, which adds 1e-6 to each norm that it divides by, 1e-12."""
_HIDDEN = 6.0
"""Deviations of noise by which a prediction has to differ from multiples of the updates to say more than identity."""


@dataclass(frozen=True)
class _Client:
    """A held-out client as a function of its update, or of its images where a share computes its update by itself.

    `at` is that argument, named by `given`. Flat: `undefended(x)`, the update; `sends(x, seed)`, the release;
    `says(x, observed)`, what the surrogate makes of it.
    """

    given: Literal["update", "images"]
    at: Tensor
    undefended: Callable[[Tensor], Tensor]
    sends: Callable[[Tensor, int], Tensor]
    says: Callable[[Tensor, Tensor], Tensor]


def slopes_follow_the_release(case: DefenseCase) -> None:
    """The vector-Jacobian products of the surrogate have a cosine of at least .3 with differences of the mean release.

    Of 32 held-out clients: steps of 1e-2 of the update's norm, forth and back, on single coordinates that are sent; of
    a share that does not call `task.gradient`, along random images, so far that the undefended update moves by as much.
    The vector is normal on what is sent. The mean is over releases from the same seeds on both sides: noise that is
    added cancels, and a step of an entry's usual size crosses the jumps of signs, masks and levels. One cosine is taken
    over all steps of all clients, so that units do not count, and a surrogate with slopes at next to no entry fails.
    """
    simulation = _simulation_to_ask(case)
    found = [_slopes(client, seed) for seed, client in enumerate(_held_out(case, simulation))]
    told, seen = (torch.cat(parts) for parts in zip(*found, strict=True))
    if not seen.any():
        raise NotApplicable("sends nothing that follows from the update")
    cosine = float(F.cosine_similarity(told, seen, dim=0))
    if not cosine >= _SLOPES:
        raise Broken(
            f"the slopes of its surrogate have a cosine of {cosine:.2g} with those of its mean release, over steps of "
            f"{_STEP:.0%} of the update; smooth it at that scale, or pass slopes through: u + (sent(u) - u).detach()"
        )


def residual_is_the_stated_noise(case: DefenseCase) -> None:
    """A surrogate that says identity leaves nothing but the noise that it states; any other leaves less than that one.

    The identity is known by its values: on all held-out clients a multiple of the undefended update, so that a public
    scale is part of it. Its residual, the release minus that multiple, has the mean square of the stated noise within
    10%, a cosine of at most .05 with the update, and squares whose correlation with the update's is at most .02: what a
    random mask adds may average to nothing, but is large where the update is. The same is asked of a surrogate that
    differs from such a multiple by less than its stated noise shows. A surrogate that says more leaves a smaller
    residual than the best multiple of the update. Nobody asks whether that residual is noise: a mask may hide in it.
    """
    check_residual(case, _simulation_to_ask(case))


def check_residual(case: DefenseCase, simulation: Simulation) -> None:
    """Raise `Broken` or `NotApplicable` by the residual of this simulation, whatever other rules say of it."""
    rows = [row for seed, client in enumerate(_held_out(case, simulation)) for row in _residuals(client, seed)]
    sent, said, undefended = (torch.stack(part) for part in zip(*rows, strict=True))
    if not sent.any():
        raise NotApplicable("sends zeros: nothing is left of the update")
    multiple = (said * undefended).sum(1) / undefended.square().sum(1)
    beyond = (said - multiple[:, None] * undefended).square().sum()
    rounded = _ROUNDED * float(said.square().mean())
    is_hidden = float(beyond.sqrt()) < _HIDDEN * simulation.noise_std
    if is_hidden or float(beyond) <= 1e-12 * float(said.square().sum()):
        _check_identity(sent - said, undefended, simulation.noise_std, rounded)
    else:
        _check_better(sent, said, undefended)


def _check_identity(residual: Tensor, undefended: Tensor, noise_std: float, rounded: float) -> None:
    square, stated = float(residual.square().mean()), noise_std**2
    if abs(square - stated) > _OFF * stated + rounded:
        raise Broken(
            f"its surrogate says that the update is sent as it is, with noise of deviation {noise_std:.3g}, but what "
            f"is left has {square**0.5:.3g}; say by predict or keep what else is done, or give no surrogate: unaudited"
        )
    cosine = float(F.cosine_similarity(residual.flatten(), undefended.flatten(), dim=0))
    if square > rounded and abs(cosine) > _ALIGNED:
        raise Broken(
            f"its surrogate says that noise is all that is added, but what is added has a cosine of {cosine:.2g} with "
            "the update; say by predict or keep what else is done"
        )
    following = _correlation(residual.square().flatten(), undefended.square().flatten())
    if square > rounded and abs(following) > _FOLLOWING:
        raise Broken(
            "its surrogate says that noise is all that is added, but the squares of what is added have a correlation "
            f"of {following:.2g} with those of the update; say by predict or keep what else is done"
        )


def _correlation(one: Tensor, other: Tensor) -> float:
    return float(F.cosine_similarity(one - one.mean(), other - other.mean(), dim=0))


def _check_better(sent: Tensor, said: Tensor, undefended: Tensor) -> None:
    same = undefended * ((sent * undefended).sum() / undefended.square().sum())
    apart = said - same
    # The difference of the two squared residuals, halved: in this form noise does not cancel against itself.
    if not float(((sent - (said + same) / 2) * apart).sum()) > 0:
        left, better = ((sent - part).square().mean().sqrt() for part in (said, same))
        raise Broken(
            f"its surrogate leaves a residual of {float(left):.3g}, the update itself {float(better):.3g}; predict "
            "what is sent more closely than the update does"
        )


def _simulation_to_ask(case: DefenseCase) -> Simulation:
    """The simulation of a defense whose surrogate keeps the rules that are asked before; raises `NotApplicable`."""
    surrogate_of(case)
    if role_of(type(case.defense)) == "schedule":
        raise NotApplicable("a schedule changes no update")
    try:
        surrogate_is_usable(case)
        predicts_what_is_sent(case)
    except Broken:
        raise NotApplicable("asked when the rules surrogate and prediction hold") from None
    except NotApplicable:
        pass  # Noise that hides a mean release cancels between two of the same seed.
    return simulation_of(case)


def _held_out(case: DefenseCase, simulation: Simulation) -> Iterator[_Client]:
    public, size = public_images(case.task), len(case.batch)
    for first in range(0, _CLIENTS * size, size):
        images = public.images[first : first + size].to(case.batch.images.dtype) / 255
        yield _client(replace(case, batch=Batch(images, public.labels[first : first + size])), simulation)


def _client(case: DefenseCase, simulation: Simulation) -> _Client:
    role, task, params, labels = role_of(type(case.defense)), case.task, case.params, case.batch.labels
    update = entries_of(task.gradient(params, case.batch))

    def predicted(update: Update, observed: Tensor) -> Tensor:
        return torch.cat([u.flatten() for u in simulation.predict(update, _shaped(observed, params)).values()])

    def changes(x: Tensor, seed: int) -> Tensor:
        if role == "transform":
            return entries_of(case.defense.transform(task, _shaped(x, params), _seeded(seed)))
        given = _GivenGradient(task.model, task.classes, task.input_shape, task.schedule, _shaped(x, params))
        return entries_of(case.defense.share(given, params, case.batch, _seeded(seed)))

    def simulated(images: Tensor) -> Update:
        if simulation.gradient is not None:
            return simulation.gradient(task.loss, params, images, labels)
        return grad(task.loss)(params, images, labels)

    def follows_its_update() -> bool:
        return not torch.equal(changes(update, 0), changes(-update, 0))

    if role == "transform" or (simulation.gradient is None and follows_its_update()):
        return _Client(
            "update",
            at=update,
            undefended=lambda x: x,
            sends=changes,
            says=lambda x, observed: predicted(_shaped(x, params), observed),
        )
    return _Client(
        "images",
        at=case.batch.images,
        undefended=lambda x: entries_of(task.gradient(params, Batch(x, labels))),
        sends=lambda x, seed: entries_of(case.defense.share(task, params, Batch(x, labels), _seeded(seed))),
        says=lambda x, observed: predicted(simulated(x), observed),
    )


@dataclass(frozen=True)
class _GivenGradient(Task):
    """A task that has one undefended gradient, whatever the images: what calls `gradient` becomes a function of it."""

    undefended: Update = field(default_factory=dict)

    def gradient(self, params: Params, batch: Batch) -> Update:
        return dict(self.undefended)


def _slopes(client: _Client, seed: int) -> tuple[Tensor, Tensor]:
    """The slope along each step, times the step: as the surrogate tells it, and by differences of the release."""
    seeds = [_DRAWS["update"] * seed + draw for draw in range(_DRAWS[client.given])]
    releases = [client.sends(client.at, own) for own in seeds]
    shown = (torch.stack(releases) != 0).any(0)
    chance = _seeded(seed)
    vector = torch.randn(len(shown), generator=chance, dtype=releases[0].dtype) * shown
    steps = _steps(client, shown, chance)

    def difference(step: Tensor, own: int) -> Tensor:
        return client.sends(client.at + step, own) - client.sends(client.at - step, own)

    if len(steps) and len(seeds) > 1:
        first, second = (difference(steps[0], own) for own in seeds[:2])
        if float((first - second).norm()) <= 1e-9 * float(first.norm()):
            seeds = seeds[:1]  # It draws nothing, or adds what it draws: then one release has the slopes of all.
    told, seen = steps.new_zeros(len(steps)), steps.new_zeros(len(steps))
    for own, release in zip(seeds, releases, strict=False):
        back = vjp(lambda x, release=release: client.says(x, release), client.at)[1]
        [product] = back(vector)
        told += (steps * product).flatten(1).sum(1)
        seen += seen.new_tensor([float(vector @ difference(step, own)) / 2 for step in steps])
    return told / len(seeds), seen / len(seeds)


def _steps(client: _Client, shown: Tensor, chance: Generator) -> Tensor:
    """The steps from `at`, (steps, *its shape)."""
    update = client.undefended(client.at)
    length = _STEP * update.norm()
    if client.given == "update":
        [sent] = shown.nonzero(as_tuple=True)
        chosen = sent[torch.randperm(len(sent), generator=chance)[: _PROBES[client.given]]]
        return length * F.one_hot(chosen, len(shown)).to(client.at.dtype)
    steps = 1e-3 * torch.randn((_PROBES[client.given], *client.at.shape), generator=chance, dtype=client.at.dtype)
    moved = [(client.undefended(client.at + step) - update).norm() for step in steps]
    return torch.stack([step * length / by for step, by in zip(steps, moved, strict=True)])


def _residuals(client: _Client, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Release, prediction and undefended update of a client, for one seed or two."""
    undefended = client.undefended(client.at)
    for own in (2 * seed, 2 * seed + 1)[: _DRAWS[client.given]]:
        sent = client.sends(client.at, own)
        yield sent, client.says(client.at, sent).detach(), undefended


def _shaped(entries: Tensor, params: Params) -> Update:
    parts = entries.split([p.numel() for p in params.values()])
    return {name: part.view_as(p) for (name, p), part in zip(params.items(), parts, strict=True)}


def _seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)
