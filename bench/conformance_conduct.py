"""What every attack promises of its conduct: what it may raise, draw from, look at and touch."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from attacks.attack import UnsupportedPair
from attacks.observation import Observation
from bench.conformance_attack import tensors_of
from bench.conformance_cases import AttackCase
from bench.findings import Broken, NotApplicable
from bench.random_state import global_state, seed_everything


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
    return named | {name: tensor for name, tensor in optional.items() if tensor is not None}
