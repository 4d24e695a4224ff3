"""Where a defense does nothing, and whether it computes what the schedule says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from bench.conformance_cases import DefenseCase
from bench.conformance_defense import applied, check_update, same
from bench.findings import Broken, NotApplicable
from bench.signatures import parameters_of
from defenses.client import Defense, role_of
from defenses.none import NoDefense
from defenses.schedule import Schedule

NEUTRAL: dict[str, dict[str, Any]] = {
    "defenses.none": {},
    "defenses.dp_sgd": {"clip_norm": 1e9, "noise_multiplier": 0.0},
    "defenses.gaussian_noise": {"std": 0.0},
    "defenses.gradient_pruning": {"ratio": 0.0},
    "defenses.larger_batch": {"examples": 2},
    "defenses.norm_clipping": {"clip_norm": 1e9},
}
"""Module of a built-in -> the parameters at which it leaves a client of two images as it is.

Others say it themselves, in a class attribute `neutral: ClassVar[dict[str, object]]`.
"""
_RATE = 1e-5
"""Of local steps so small that the gradient hardly changes between them."""


def is_neutral(case: DefenseCase) -> None:
    """At its neutral parameters it is `none`."""
    declared = neutral_parameters(type(case.defense))
    if declared is None:
        raise NotApplicable("declares no neutral parameters; where there are some: neutral: ClassVar = {'std': 0.0}")
    if unknown := sorted(set(declared) - parameters(case.defense)):
        raise Broken(f"neutral names {', '.join(unknown)}, which is no parameter; mend its spelling")
    found, _ = applied(changed(case, declared))
    if role_of(type(case.defense)) == "schedule":
        if found != case.task.schedule:
            raise Broken(
                f"with {declared} the schedule is {found}, not {case.task.schedule}; mend it or the attribute neutral"
            )
        return
    expected, _ = applied(replace(case, defense=NoDefense()))
    check_update(found, case)
    assert isinstance(found, dict)
    assert isinstance(expected, dict)
    for name, e in expected.items():
        if not torch.allclose(found[name], e, rtol=1e-4, atol=1e-6 * float(e.abs().max())):
            far = float((found[name] - e).abs().max())
            raise Broken(f"with {declared} {name!r} is {far:.2g} off what none sends; mend it or the attribute neutral")


def neutral_parameters(cls: type[Defense]) -> Mapping[str, Any] | None:
    """The parameters at which a defense does nothing, as it declares them or a built-in is known for; else None."""
    return getattr(cls, "neutral", None) if hasattr(cls, "neutral") else NEUTRAL.get(cls.__module__)


def honours_the_schedule(case: DefenseCase) -> None:
    """Two local steps of a tiny learning rate move twice as far as one gradient times that rate.

    Asked without noise: at a noise_multiplier of 0, else at the neutral parameters of what draws some.
    """
    if role_of(type(case.defense)) != "share":
        raise NotApplicable("only a share computes an update")
    if case.batch.images.dtype != torch.float64:
        raise NotApplicable("asked in float64")
    case = changed(case, {"noise_multiplier": 0.0} if "noise_multiplier" in parameters(case.defense) else {})
    wrong = _parameter_that_moves_otherwise(case)
    if wrong and not same(applied(case, seed=1)[0], applied(case, seed=2)[0]):
        at_rest = neutral_parameters(type(case.defense))
        if at_rest is None:
            raise NotApplicable("what it draws hides it; declare neutral parameters, at which it can be asked")
        wrong = _parameter_that_moves_otherwise(changed(case, at_rest))
    if wrong:
        raise Broken(
            f"of two local epochs at a rate of {_RATE:g}, {wrong!r} is not 2 x rate x gradient; let local_training("
            "task, params, batch, rng, gradient) take the steps of task.schedule"
        )


def _parameter_that_moves_otherwise(case: DefenseCase) -> str | None:
    pair = Schedule(images=2), Schedule(images=2, epochs=2, learning_rate=_RATE)
    gradient, moved = (applied(replace(case, task=replace(case.task, schedule=own)))[0] for own in pair)
    for found in (gradient, moved):
        check_update(found, case)
    assert isinstance(gradient, dict)
    assert isinstance(moved, dict)
    near = lambda name, g: torch.allclose(moved[name] / (2 * _RATE), g, rtol=1e-2, atol=1e-2)  # noqa: E731
    return next((name for name, g in gradient.items() if not near(name, g)), None)


def parameters(defense: Defense) -> set[str]:
    """The names of its parameters."""
    return {parameter.name for parameter in parameters_of(type(defense))}


def changed(case: DefenseCase, parameters: Mapping[str, Any]) -> DefenseCase:
    """The case of the same defense with some parameters changed."""
    if not parameters:
        return case
    return replace(case, defense=replace(case.defense, **parameters))  # pyright: ignore[reportArgumentType]
