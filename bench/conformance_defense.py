"""What every defense promises of one call of it, rule by rule: each is asked of a client of two images."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import Module

from bench.conformance_cases import DefenseCase
from bench.findings import Broken, NotApplicable
from bench.random_state import global_state, seed_everything
from defenses.client import Batch, Update, role_of
from defenses.schedule import Schedule

Given = dict[str, tuple[Any, Any]]
"""Argument, or part of the task's model -> its value before and after the call."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def applied(case: DefenseCase, seed: int = 0, generator: Generator | None = None) -> tuple[Update | Schedule, Given]:
    """What the defense makes of copies of the case's arguments, by its own method, and these arguments."""
    rng = Generator().manual_seed(seed) if generator is None else generator
    role = role_of(type(case.defense))
    if role == "schedule":
        return case.defense.schedule(case.task.schedule), {}
    task = deepcopy(case.task)
    mode = _state(task.model)
    params = {name: p.clone() for name, p in case.params.items()}
    batch = Batch(case.batch.images.clone(), case.batch.labels.clone())
    if role == "share":
        given = {**params, "images": batch.images, "labels": batch.labels}
        before = {name: value.clone() for name, value in given.items()}
        update = case.defense.share(task, params, batch, rng)
    else:
        given = task.gradient(params, batch)
        before = {name: value.clone() for name, value in given.items()}
        update = case.defense.transform(task, given, rng)
    after = _state(task.model)
    watched = {name: (before[name], given[name]) for name in before}
    return update, watched | {part: (mode[part], after[part]) for part in mode}


def _state(model: Module) -> dict[str, Any]:
    """What a defense could leave behind in the model of its task, by a name for each part."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    hooks = [getattr(m, kind) for m in model.modules() for kind in _HOOKS]
    return {
        "the mode of task.model": [m.training for m in model.modules()],
        "the hooks of task.model": [list(hook) for hook in hooks],
        "the gradients of task.model": [p.grad is not None for p in model.parameters()],
    } | {f"{name} of task.model": tensor.detach().clone() for name, tensor in tensors.items()}


def keeps_shapes(case: DefenseCase) -> None:
    """Names, shapes and types of the parameters, finite and detached; a schedule is a `Schedule`."""
    update, _ = applied(case)
    if role_of(type(case.defense)) == "schedule":
        if not isinstance(update, Schedule):
            raise Broken(f"schedule returned {type(update).__name__}; return dataclasses.replace(schedule, ...)")
        return
    check_update(update, case)


def check_update(update: Any, case: DefenseCase) -> None:
    """Raise `Broken` unless this is an update of the case's parameters, detached and finite."""
    if not isinstance(update, dict):
        raise Broken(f"returned {type(update).__name__}; return a dict of parameter names to tensors")
    if list(update) != list(case.params):
        odd = ", ".join(sorted(set(update) ^ set(case.params))) or "their order"
        raise Broken(f"the update differs from the parameters in {odd}; return each of them, in their order")
    for name, p in case.params.items():
        u = update[name]
        if not isinstance(u, Tensor) or (u.shape, u.dtype) != (p.shape, p.dtype):
            got = f"{tuple(u.shape)} {u.dtype}" if isinstance(u, Tensor) else type(u).__name__
            raise Broken(f"returned {got} for {name!r}, which is {tuple(p.shape)} {p.dtype}; keep shape and type")
        if not torch.isfinite(u).all():
            raise Broken(f"returned infinite or undefined values for {name!r}; guard divisions and logarithms")
        if u.requires_grad:
            raise Broken(f"returned {name!r} with a graph of its gradient; detach it")


def draws_from_its_generator(case: DefenseCase) -> None:
    """The global generators are neither moved nor looked at."""
    found = []
    for state in (0, 0, 1):
        seed_everything(state)
        before = global_state()
        found.append(applied(case, seed=5)[0])
        if global_state() != before:
            raise Broken("moved a global random state; draw from rng: torch.randn(u.shape, generator=rng)")
    if same(found[0], found[1]) and not same(found[0], found[2]):
        raise Broken("depends on a global random state; draw from rng alone")


def leaves_its_arguments(case: DefenseCase) -> None:
    """Nothing is written into the update, the weights or the batch, and the task's model stays as it is."""
    for name, (before, after) in applied(case)[1].items():
        if not (torch.equal(before, after) if isinstance(before, Tensor) else before == after):
            if name.endswith(" of task.model"):
                raise Broken(f"changed {name}; call task.gradient, or work on copy.deepcopy(task.model)")
            raise Broken(f"wrote into {name!r}; return new tensors: u * 2, not u.mul_(2)")


def repeats_itself(case: DefenseCase) -> None:
    """The same seed gives the same bytes; another seed changes something only where the generator was drawn from."""
    rng = Generator().manual_seed(5)
    untouched = rng.get_state()
    seed_everything(0)
    first, _ = applied(case, generator=rng)
    seed_everything(0)
    again, _ = applied(case, seed=5)
    if not same(first, again):
        raise Broken("gives other values when called again with the same seed; keep no state, draw from rng alone")
    seed_everything(0)
    other, _ = applied(case, seed=6)
    if torch.equal(rng.get_state(), untouched) and not same(first, other):
        raise Broken("changes with the seed of rng without drawing from it; draw from rng, do not read its seed")


def bears_extremes(case: DefenseCase) -> None:
    """Finite on updates of zeros and huge ones; a share on black and on white images."""
    role, rng = role_of(type(case.defense)), Generator()
    if role == "schedule":
        raise NotApplicable("a schedule changes no update")
    for extreme in (0.0, 1.0):
        if role == "share":
            images = torch.full_like(case.batch.images, extreme)
            where = f"images of {extreme:g}"
            update = case.defense.share(case.task, case.params, Batch(images, case.batch.labels), rng.manual_seed(0))
        else:
            gradient = case.task.gradient(case.params, case.batch)
            where = "zeros" if extreme == 0 else "a gradient times 1e6"
            huge = {name: u * (extreme * 1e6) for name, u in gradient.items()}
            update = case.defense.transform(case.task, huge, rng.manual_seed(0))
        for name, u in update.items():
            if not torch.isfinite(u).all():
                raise Broken(f"given {where}, {name!r} is infinite or undefined; clamp_min what you divide by")


def same(first: Update | Schedule, again: Update | Schedule) -> bool:
    """Whether two answers of a defense are equal, to the byte."""
    if isinstance(first, dict) and isinstance(again, dict):
        return first.keys() == again.keys() and all(torch.equal(u, again[name]) for name, u in first.items())
    return first == again
