"""Whether a defense's surrogate tells an attack what the defense really sends."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.conformance_cases import DefenseCase
from bench.conformance_claims import simulation_of, surrogate_is_usable, surrogate_of
from bench.conformance_defense import applied
from bench.findings import Broken, NotApplicable
from defenses.client import Update, role_of
from defenses.surrogate import Surrogate

_SEEDS = 16
"""Of the releases over whose mean a defense's own randomness averages out."""
_COSINE = 0.5
"""Below it a prediction points elsewhere; an unbiased quantiser of heavy-tailed gradients stays above it."""
_FACTOR = 10.0
"""By which the scale of a prediction, or of the declared noise, may be off."""


def predicts_what_is_sent(case: DefenseCase) -> None:
    """Of a real gradient, `predict` and `keep` give the direction and scale of the mean release, up to its noise."""
    own = surrogate_of(case)
    if role_of(type(case.defense)) == "schedule":
        raise NotApplicable("a schedule changes no update")
    try:
        surrogate_is_usable(case)
    except Broken:
        raise NotApplicable("asked when the rule surrogate holds") from None
    releases: list[Update] = [applied(case, seed)[0] for seed in range(_SEEDS)]  # pyright: ignore[reportAssignmentType]
    sent = torch.stack([_flat(release) for release in releases])
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
    """What was predicted of each release, (seeds, entries), and 1 for the entries to compare."""
    simulation, task = simulation_of(case), case.task
    update = task.gradient(case.params, case.batch)
    if simulation.gradient is not None:
        update = simulation.gradient(task.loss, case.params, case.batch.images, case.batch.labels)
    used = torch.stack([_flat(simulation.predict(update, release)) for release in releases])
    found = {"keep" if own.keep and not own.noise_std else "predict": (used, torch.ones_like(used))}
    if own.keep and own.predict and not own.noise_std:
        # Where later noise hides what is kept, an attack falls back on predict: the mean over what keep draws.
        kept = torch.stack([_flat(own.keep(release)) for release in releases])
        found["predict"] = _flat(own.predict(update)).expand_as(kept), (kept != 0).to(kept.dtype)
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


def _flat(update: Update) -> Tensor:
    return torch.cat([u.detach().flatten() for u in update.values()])
