"""Rules for a defense's claims about itself: its surrogate, its many clients at once, and its proof."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.func import grad_and_value, vmap
from torch.nn import functional as F

from bench.conformance.cases import DefenseCase
from bench.conformance.defenses import applied
from bench.conformance.findings import Broken, NotApplicable
from defenses.accounting import Guarantee
from defenses.chain import Chain
from defenses.defense import Defense, role_of
from defenses.schedule import Schedule
from defenses.surrogate import Simulation, Surrogate, check_simulation, composed
from defenses.task import Batch, Update

Lanes = dict[str, Tensor]


def surrogate_is_usable(case: DefenseCase) -> None:
    """The functions that an attack differentiates have finite slopes, for several lanes at once and in every shape."""
    own, simulation = surrogate_of(case), simulation_of(case)
    if not (isinstance(own.noise_std, int | float) and 0 <= own.noise_std < math.inf):
        raise Broken(f"its surrogate's noise_std is {own.noise_std!r}; give a number of at least 0")
    _said("on zeros", lambda: check_simulation(simulation, case.task))
    gradient = case.task.gradient(case.params, case.batch)
    observed = {name: torch.stack([u, -u]) for name, u in gradient.items()}
    lanes = {name: torch.stack([u, u / 2]) for name, u in gradient.items()}
    steps: dict[str, Callable[[Update, Update], Tensor]] = {"predict or keep": _squared(simulation.predict)}
    if simulation.penalty is not None:
        steps["penalty"] = simulation.penalty
    for name, step in steps.items():
        slopes, values = _said(name, lambda step=step: vmap(grad_and_value(step))(lanes, observed))
        for part, slope in {**slopes, "its value": values}.items():
            if not torch.isfinite(slope).all():
                raise Broken(f"its surrogate's {name} has no finite slope at {part!r}; guard roots and divisions")
    if simulation.gradient is not None:
        _said("gradient", lambda: _differentiated(simulation, case))


def surrogate_follows_its_arguments(case: DefenseCase) -> None:
    """On the device of what it is given: tried on the meta device, which has shapes alone."""
    simulation = simulation_of(case)
    shapes = {name: p.to("meta") for name, p in case.params.items()}

    def run() -> dict[str, Any]:
        penalty = simulation.penalty
        found = {"predict or keep": simulation.predict(shapes, shapes)}
        return found | ({} if penalty is None else {"penalty": {"its value": penalty(shapes, shapes)}})

    own = surrogate_of(case)
    if own == Surrogate(noise_std=own.noise_std):
        raise NotApplicable("its surrogate has no function of updates")
    try:
        surrogate_is_usable(case)
    except Broken:
        raise NotApplicable("asked when the rule surrogate holds") from None
    try:
        found = run()
    except Exception as error:
        raise Broken(
            f"its surrogate fails on another device than the CPU: {type(error).__name__}: {error}; make new tensors by "
            "torch.zeros_like(u) or u.new_tensor(...), and read no value of a tensor in Python"
        ) from error
    for name, parts in found.items():
        for part, value in parts.items():
            if value.device.type != "meta":
                raise Broken(f"its surrogate's {name} brings {part!r} back on {value.device}; follow the arguments")


def many_at_once_are_each_alone(case: DefenseCase) -> None:
    """`transform_many` or `share_many` sends what each client alone would, to rounding."""
    role = role_of(type(case.defense))
    if role == "schedule" or getattr(type(case.defense), f"{role}_many") is getattr(Defense, f"{role}_many"):
        raise NotApplicable(f"has no {role}_many, which is for speed alone")
    chain, images, labels = Chain((case.defense,)), case.batch.images, case.batch.labels
    batches = Batch(torch.stack([images, images.flip(-1)]), torch.stack([labels, labels]))
    sent = chain.updates(case.task, case.params, batches, [Generator().manual_seed(seed) for seed in (1, 2)])
    for client, pixels in enumerate(batches.images):
        rng = Generator().manual_seed(client + 1)
        alone = chain.update(case.task, case.params, Batch(pixels, labels), rng)
        for name, u in alone.items():
            if not torch.allclose(sent[name][client], u, rtol=1e-4, atol=1e-5 * float(u.abs().max())):
                raise Broken(f"{role}_many sends another {name!r} than {role} for client {client}; draw in the order")


def proof_is_honest(case: DefenseCase) -> None:
    """`privacy` gives None or a `Guarantee` that does not shrink with more rounds, and a share alone gives one."""
    role, schedule = role_of(type(case.defense)), Schedule(images=2)
    one, many = (case.defense.privacy(schedule, rounds, 1e-5) for rounds in (1, 10))
    if one is None and many is None:
        raise NotApplicable("states no proof: heuristics have no epsilon")
    if role != "share":
        raise Broken(f"privacy of a {role} is not asked: only a share sees images; leave privacy out, or write a share")
    if not isinstance(one, Guarantee) or not isinstance(many, Guarantee):
        raise Broken(f"privacy returned {type(one).__name__} and {type(many).__name__}; return leakboard.Guarantee")
    if not 0 <= one.epsilon <= many.epsilon:
        raise Broken(f"epsilon is {one.epsilon} after 1 round and {many.epsilon} after 10; each round adds to it")
    if (one.delta, many.delta) != (1e-5, 1e-5):
        raise Broken(f"privacy was asked at delta 1e-05 and states {one.delta}; take the delta that is asked")


def surrogate_of(case: DefenseCase) -> Surrogate:
    """The surrogate of this defense; raises `NotApplicable` where it is unaudited."""
    own = case.defense.surrogate(case.task)
    if own is None:
        raise NotApplicable("unaudited: no surrogate says how an attacker who knows it adapts")
    return own


def simulation_of(case: DefenseCase) -> Simulation:
    """The surrogate of this defense alone; raises `NotApplicable` where it is unaudited."""
    own = case.defense.surrogate(case.task)
    if own is not None and not isinstance(own, Surrogate):
        raise Broken(f"surrogate returned {type(own).__name__}; return leakboard.Surrogate(...), or None: unaudited")
    own = surrogate_of(case)
    if role_of(type(case.defense)) == "schedule" and own != Surrogate():
        raise Broken("the surrogate of a schedule says more than Surrogate(), but a schedule is public")
    if own.gradient is not None and role_of(type(case.defense)) != "share":
        raise Broken("its surrogate has a gradient, which belongs to a share; use predict")
    found = composed([own])
    if found is None:
        raise Broken("its surrogate has keep, which its own noise hides, and no predict to use instead; add predict")
    return found


def _squared(predict: Callable[[Update, Update], Update]) -> Callable[[Update, Update], Tensor]:
    def value(update: Update, observed: Update) -> Tensor:
        return torch.stack([u.square().sum() for u in predict(update, observed).values()]).sum()

    return value


def _differentiated(simulation: Simulation, case: DefenseCase) -> None:
    assert simulation.gradient is not None
    own, task = simulation.gradient, case.task

    def value(images: Tensor) -> Tensor:
        found = own(task.loss, case.params, images, case.batch.labels)
        return torch.stack([u.square().sum() for u in found.values()]).sum()

    slopes, _ = vmap(grad_and_value(value))(torch.stack([case.batch.images, case.batch.images / 2]))
    if not torch.isfinite(slopes).all():
        raise Broken("its surrogate's gradient has no finite slope at the images; guard roots and divisions")


def _said(what: str, run: Callable[[], Any]) -> Any:
    """The function's result; whatever it raises breaks the rule."""
    try:
        return run()
    except Broken:
        raise
    except Exception as error:
        raise Broken(
            f"its surrogate's {what} cannot be simulated: {type(error).__name__}: {str(error).splitlines()[0]}; use "
            "out-of-place tensor operations alone: no .item(), no if on a value"
        ) from error


_SEEDS = 16
"""Number of releases over whose mean a defense's own randomness averages out."""
_COSINE = 0.5
"""The least cosine between a prediction and the mean release; unbiased quantisers of heavy-tailed gradients pass."""
_FACTOR = 10.0
"""The factor by which the scale of a prediction, or of the declared noise, may be off."""


def predicts_what_is_sent(case: DefenseCase) -> None:
    """Direction and scale of the mean release follow from a real gradient by `predict` and `keep`, up to its noise."""
    own = surrogate_of(case)
    if role_of(type(case.defense)) == "schedule":
        raise NotApplicable("a schedule changes no update")
    try:
        surrogate_is_usable(case)
    except Broken:
        raise NotApplicable("asked when the rule surrogate holds") from None
    releases: list[Update] = [applied(case, seed)[0] for seed in range(_SEEDS)]  # pyright: ignore[reportAssignmentType]
    sent = torch.stack([entries_of(release) for release in releases])
    if not sent.any():
        raise NotApplicable("sends zeros, of which there is nothing to predict")
    _check_noise(own, sent)
    for name, (predicted, shown) in _predictions(own, case, releases).items():
        _check_prediction(name, predicted, shown, sent)


def _check_noise(own: Surrogate, sent: Tensor) -> None:
    """Raise `Broken` where the declared noise is not there, `NotApplicable` where it hides the rest."""
    spread = float(sent.var(0).mean().sqrt())
    if spread < own.noise_std / _FACTOR:
        raise Broken(
            f"its surrogate states noise of deviation {own.noise_std:.3g}, but releases of other seeds differ by "
            f"{spread:.3g}; state what it adds to every coordinate"
        )
    in_the_mean = own.noise_std**2 / _SEEDS * sent.shape[1]
    if float(sent.mean(0).square().sum()) < 2 * in_the_mean:
        raise NotApplicable("its noise hides what it sends; ask at parameters with less noise")


def _predictions(own: Surrogate, case: DefenseCase, releases: list[Update]) -> dict[str, tuple[Tensor, Tensor]]:
    """The predictions of each release, (seeds, entries), and 1 for the entries to compare."""
    simulation, task = simulation_of(case), case.task
    update = task.gradient(case.params, case.batch)
    if simulation.gradient is not None:
        update = simulation.gradient(task.loss, case.params, case.batch.images, case.batch.labels)
    used = torch.stack([entries_of(simulation.predict(update, release)) for release in releases])
    found = {"keep" if own.keep and not own.noise_std else "predict": (used, torch.ones_like(used))}
    if own.keep and own.predict and not own.noise_std:
        # Where later noise hides what is kept, an attack falls back on predict: the mean over what keep draws.
        kept = torch.stack([entries_of(own.keep(release)) for release in releases])
        found["predict"] = entries_of(own.predict(update)).expand_as(kept), (kept != 0).to(kept.dtype)
    return found


def _check_prediction(name: str, predicted: Tensor, shown: Tensor, sent: Tensor) -> None:
    cosine = float(F.cosine_similarity((predicted * shown).mean(0), (sent * shown).mean(0), dim=0))
    if not cosine >= _COSINE:
        raise Broken(
            f"its surrogate's {name} has a cosine of {cosine:.2g} with the mean of {_SEEDS} releases; predict what is "
            "sent, or give no surrogate: unaudited"
        )
    mean = predicted.mean(0)
    scale = float(mean @ sent.mean(0) / mean.square().sum())
    if not 1 / _FACTOR <= scale <= _FACTOR:
        raise Broken(f"what it sends is {scale:.2g} x what its surrogate's {name} says; use the units of the release")


def entries_of(update: Update) -> Tensor:
    """All entries in one row, detached."""
    return torch.cat([u.detach().flatten() for u in update.values()])
