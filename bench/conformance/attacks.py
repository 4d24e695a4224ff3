"""Rules for attacks: for their answers, and for what they may raise, draw from, look at and touch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attacks.attack import Reconstruction, UnsupportedPair
from attacks.observation import Observation
from bench.conformance.cases import AttackCase, global_state, seed_everything
from bench.conformance.findings import Broken, NotApplicable

_CLAMPED = 0.05
"""Relative rise of an objective that is excused as clamping of the images, before it has to be below its start."""
_AMPLIFIED = 1e-3
"""Largest difference, as a part of a tensor's norm, that a short optimisation makes of rounding."""


def finds_images(case: AttackCase) -> None:
    """Finite images (t b c h w) in [0, 1], of the type of the weights."""
    if not isinstance(case.found, Reconstruction):
        raise Broken(f"reconstruct returned {type(case.found).__name__}; return leakboard.Reconstruction(...)")
    images, shape = case.found.images, (case.seen.trials, case.seen.images, *case.seen.task.input_shape)
    if tuple(images.shape) != shape:
        raise Broken(f"the images have shape {tuple(images.shape)}; trials, images, channels and sides are {shape}")
    if not torch.isfinite(images).all():
        raise Broken("some pixels are infinite or undefined; guard divisions, lower the step size")
    if images.min() < 0 or images.max() > 1:
        raise Broken(f"the pixels lie in [{float(images.min()):.3g}, {float(images.max()):.3g}]; clamp them to [0, 1]")
    dtype = next(iter(case.seen.params.values())).dtype
    if images.dtype != dtype:
        raise Broken(f"the images are {images.dtype}, the weights {dtype}; make tensors by new_zeros, or .to(weights)")


def finds_possible_labels(case: AttackCase) -> None:
    """Labels (t b) of type long that are classes; where they are known, exactly those."""
    labels, shape = case.found.labels, (case.seen.trials, case.seen.images)
    if (tuple(labels.shape), labels.dtype) != (shape, torch.long):
        raise Broken(f"the labels are {tuple(labels.shape)} {labels.dtype}; trials and images are {shape} torch.int64")
    if labels.min() < 0 or labels.max() >= case.seen.task.classes:
        low, high = int(labels.min()), int(labels.max())
        raise Broken(f"the labels lie in [{low}, {high}]; there are classes 0 to {case.seen.task.classes - 1}")
    known = case.seen.labels
    if known is not None and not case.attack.recovers_labels and not torch.equal(labels.sort(dim=1).values, known):
        raise Broken("the labels differ from those that were given; return observation.labels, or set recovers_labels")


def states_its_objective(case: AttackCase) -> None:
    """One finite value per trial at the start, in the trace, at the end, and when asked for its answer."""
    found, shape = case.found, (case.seen.trials,)
    named = {"objective": found.objective, "start": found.start}
    named |= {f"trace[{i}]": value for i, value in found.trace.items()}
    asked = case.attack.objective(case.seen, found.images, found.labels)
    for name, value in {**named, "objective()": asked}.items():
        if value is not None and (tuple(value.shape) != shape or not torch.isfinite(value).all()):
            raise Broken(f"{name} is {value.tolist()}; give one finite number for each of {shape[0]} trials")
    if found.objective is None:
        if asked is not None:
            raise Broken("objective() gives values, but the Reconstruction holds none; fill in its objective and start")
        raise NotApplicable("states no objective, so that nobody can say whether a better optimiser would get more")
    if found.start is None or 0 not in found.trace or not torch.equal(found.trace[0], found.start):
        raise Broken("the Reconstruction lacks the objective's start, or trace[0] is another value; fill in both")


def objective_agrees(case: AttackCase) -> None:
    """`objective` at the answer is the value that was reported, or near it where images were clamped after it.

    Near is within 5%, or no worse than the start; and other images have another objective.
    """
    found = case.found
    asked = case.attack.objective(case.seen, found.images, found.labels)
    if found.objective is None or asked is None:
        raise NotApplicable("has no objective at its answer")
    off = ~torch.isclose(asked, found.objective, rtol=1e-8)
    at_the_border = ((found.images == 0) | (found.images == 1)).flatten(1).any(1)
    assert found.start is not None, "asked of what states its objective"
    near = torch.isclose(asked, found.objective, rtol=_CLAMPED) | (asked <= found.start)
    grey = case.attack.objective(case.seen, torch.full_like(found.images, 0.5), found.labels)
    excused = at_the_border & near & (torch.ones_like(off) if grey is None else asked != grey)
    if (off & ~excused).any():
        raise Broken(
            f"objective() gives {asked.tolist()} at its answer, the Reconstruction says {found.objective.tolist()}; "
            "compute both by the same function"
        )
    if off.any():
        raise NotApplicable("its images end at the border of [0, 1]: they were clamped after the last objective")


def features_are_those_it_names(case: AttackCase) -> None:
    """The recovered inputs of a layer have the shape that `features` gives for images."""
    found = case.found
    if (found.features is not None) != (found.recovered == "features"):
        raise Broken(f"recovered is {found.recovered!r}; it is 'features' exactly where features are returned")
    if found.features is None:
        raise NotApplicable("recovers no features")
    true = case.attack.features(case.seen.task, case.seen.params, found.images.flatten(0, 1))
    shape = (case.seen.trials, case.seen.images, true[0].numel())
    if tuple(found.features.shape) != shape:
        raise Broken(f"the features have shape {tuple(found.features.shape)}, those of features() {shape}")


def trials_do_not_mix(case: AttackCase) -> None:
    """A trial attacked alone equals the same trial in a batch, to 1e-8 in float64.

    Where an optimiser amplifies rounding beyond that: after its first iteration to 1e-8, and after two, beside a trial
    of an update 1e3 times as large, to 1e-3. What mixes the scales of trials may show in the second step alone.
    """
    wrong = _changed_alone(case, _to_rounding)
    if wrong and getattr(case.attack, "iterations", 1) != 1:
        once, twice = (_shortened(case, iterations) for iterations in (1, 2))
        wrong = _changed_alone(once, _to_rounding) or _changed_alone(_beside_a_large_one(twice), _amplified)
    if wrong:
        raise Broken(
            f"{wrong} when it is attacked alone; no mean, norm, sort or random number may reach over trials, the first "
            "dimension: draw from seeds[trial]"
        )


def _shortened(case: AttackCase, iterations: int) -> AttackCase:
    attack: Any = case.attack
    return replace(case, attack=replace(attack, iterations=iterations))


def _beside_a_large_one(case: AttackCase) -> AttackCase:
    """The case with the last trial's update 1e3 times as large."""
    updates = {name: torch.cat([u[:-1], 1e3 * u[-1:]]) for name, u in case.seen.updates.items()}
    return replace(case, seen=replace(case.seen, updates=updates))


def _to_rounding(alone: Tensor, together: Tensor) -> bool:
    return torch.allclose(alone, together, rtol=1e-8, atol=1e-8)


def _amplified(alone: Tensor, together: Tensor) -> bool:
    return bool((alone - together).norm() <= _AMPLIFIED * together.norm())


def _changed_alone(case: AttackCase, equal: Callable[[Tensor, Tensor], bool]) -> str:
    together = tensors_of(case.found)
    for trial, seed in enumerate(case.seeds):
        alone = tensors_of(replace(case, seen=case.seen[trial : trial + 1], seeds=[seed]).reconstruct())
        if alone.keys() != together.keys():
            return f"trial {trial} returns {', '.join(alone)} instead of {', '.join(together)}"
        for name, value in alone.items():
            if not equal(value[0].double(), together[name][trial].double()):
                return f"{name} of trial {trial} differ"
    return ""


def tensors_of(found: Reconstruction) -> dict[str, Tensor]:
    """Every tensor of a reconstruction by name; the first dimension is trials."""
    named = {"images": found.images, "labels": found.labels, "objective": found.objective, "start": found.start}
    named |= {"features": found.features, **{f"trace[{i}]": value for i, value in found.trace.items()}}
    return {name: tensor for name, tensor in named.items() if tensor is not None}


def says_what_is_impossible(case: AttackCase) -> None:
    """`check` returns nothing, or raises `UnsupportedPair` and nothing else."""
    try:
        case.attack.check(case.seen.task, case.seen.threat.labels)
    except UnsupportedPair:
        return
    except Exception as error:
        raise Broken(
            f"check raised {type(error).__name__}: {error}; raise leakboard.UnsupportedPair with the reason"
        ) from error


def depends_on_its_seeds_alone(case: AttackCase) -> None:
    """The same seeds give the same bytes, and the global generators are neither moved nor looked at."""
    seed_everything(0)
    first = tensors_of(case.reconstruct())
    seed_everything(1)
    before = global_state()
    again = tensors_of(case.reconstruct())
    if global_state() != before:
        raise Broken("moved a global random state; draw from torch.Generator().manual_seed(seed), one for each trial")
    if first.keys() != again.keys() or not all(torch.equal(first[name], again[name]) for name in first):
        raise Broken("gives another answer to the same seeds; draw from them alone and keep no state")


def leaves_the_observation(case: AttackCase) -> None:
    """Nothing is written into the observation, and the model keeps its mode, gradients and hooks."""
    case.check_possible()
    seen = deepcopy(case.seen)
    model, before = seen.task.model, watched(case.seen)
    with suppress(UnsupportedPair):
        case.attack.reconstruct(seen, list(case.seeds))
    after = watched(seen)
    for name, tensor in before.items():
        if not torch.equal(tensor, after[name]):
            raise Broken(f"wrote into {name} of the observation; make new tensors instead")
    if model.training or any(m.training for m in model.modules()):
        raise Broken("left the model in train mode; work on copy.deepcopy(observation.task.model)")
    if any(p.grad is not None for p in model.parameters()):
        raise Broken("left gradients in the model's parameters; use torch.autograd.grad or torch.func.grad")
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        raise Broken("left a hook on the model; remove it in a finally")


def control_is_blind(case: AttackCase) -> None:
    """A control does not look at the update."""
    if not case.attack.control:
        raise NotApplicable("no control: it may look at the update")
    nothing = {name: torch.full_like(u, float("nan")) for name, u in case.seen.updates.items()}
    blindly = replace(case, seen=replace(case.seen, updates=nothing)).reconstruct()
    for name in ("images", "labels"):
        if not torch.equal(getattr(case.found, name), getattr(blindly, name)):
            raise Broken(f"its {name} depend on the update; a floor uses no gradient, else drop control = True")


def follows_the_device(case: AttackCase) -> None:
    """On a GPU it works there; not applicable where there is none."""
    if not torch.cuda.is_available():
        raise NotApplicable("no GPU here: what it does on one is not known")
    found = replace(case, seen=case.seen.to("cuda", torch.float32)).reconstruct()
    for name, tensor in tensors_of(found).items():
        if tensor.device.type != "cuda":
            raise Broken(f"{name} came back on {tensor.device}; make new tensors by new_zeros, or .to(like)")


def watched(seen: Observation) -> dict[str, Tensor]:
    """Every tensor of the observation that an attack could write into, by name."""
    named = {f"updates[{name!r}]": u for name, u in seen.updates.items()}
    named |= {f"params[{name!r}]": p for name, p in seen.params.items()}
    named |= {f"buffer {name}": b for name, b in seen.task.model.named_buffers()}
    optional = {"labels": seen.labels, "class_means": seen.class_means}
    if seen.public is not None:
        optional |= {"public images": seen.public.images, "public labels": seen.public.labels}
    return named | {name: tensor for name, tensor in optional.items() if tensor is not None}
