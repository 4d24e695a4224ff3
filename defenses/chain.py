"""Defenses applied one after the other, each step's result checked: what a client really runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from defenses.accounting import Guarantee
from defenses.defense import ROLES, Defense, role_of
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.surrogate import Simulation, Surrogate, composed
from defenses.task import Batch, Classifier, Params, Task, Update


class DefenseFault(RuntimeError):
    """A defense broke its contract while it ran; the message names it and the rule."""


class NotFinite(DefenseFault):
    """An update left the real numbers: by a fault, or because the weights of the training did."""


@dataclass(frozen=True)
class Chain:
    """Schedules, at most one share, then transforms; without a share the client trains undefended.

    Raises ValueError for any other order.
    """

    parts: tuple[Defense, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a chain needs at least one defense; use 'none' for an undefended client")
        roles = [role_of(type(part)) for part in self.parts]
        if roles != sorted(roles, key=ROLES.index) or roles.count("share") > 1:
            names = " | ".join(f"{type(p).__name__} ({r})" for p, r in zip(self.parts, roles, strict=True))
            raise ValueError(
                f"a chain is schedules, then at most one share, then transforms; got {names}: reorder or drop one"
            )

    def schedule(self, schedule: Schedule) -> Schedule:
        """The published work after every schedule of the chain."""
        for part in self._with_role("schedule"):
            schedule = part.schedule(schedule)
            if not isinstance(schedule, Schedule):
                raise DefenseFault(f"{_name(part)}.schedule returned {type(schedule).__name__}, not a Schedule")
        return schedule

    def prepare(self, model: nn.Module) -> nn.Module:
        """The architecture after every part has prepared it."""
        for part in self.parts:
            model = part.prepare(model)
        return model

    def update(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        """The update that leaves the device. Raises `DefenseFault` when a part breaks its contract.

        The client works on its own copy of the model and the weights, and on a fork of the global generator: neither a
        gradient that a part leaves behind, nor a mode that it switches, nor a fault reaches the next client.
        """
        task = replace(task, model=_own_copy(task.model))
        params = {name: p.detach().clone() for name, p in params.items()}
        with torch.random.fork_rng(devices=[]):
            # Of the CPU alone: `torch.manual_seed` also notes a call stack for a GPU, a tenth of a small client's time.
            torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=rng)))
            share = next(self._with_role("share"), NoDefense())
            with _untouched(share, {**params, "images": batch.images, "labels": batch.labels}):
                update = share.share(task, params, batch, rng)
            update = _checked(share, update, params)
            for part in self._with_role("transform"):
                with _untouched(part, update):
                    changed = part.transform(task, update, rng)
                update = _checked(part, changed, params)
        return update

    def updates(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        """The updates of t clients, (t, *shape), of images (t b c h w) and labels (t b), each with its own generator.

        `update` of one after the other, to rounding; at once where every part says how. Raises `DefenseFault`.
        """
        share = next(self._with_role("share"), NoDefense())
        changing = list(self._with_role("transform"))
        if not (_takes_many(share) and all(map(_takes_many, changing))):
            each = zip(batches.images, batches.labels, rngs, strict=True)
            sent = [self.update(task, params, Batch(images, labels), rng) for images, labels, rng in each]
            return {name: torch.stack([update[name] for update in sent]) for name in params}
        task = replace(task, model=_own_copy(task.model))
        params = {name: p.detach().clone() for name, p in params.items()}
        with torch.random.fork_rng(devices=[]):
            for rng in rngs:  # Each client alone would seed the global generator from its own.
                torch.randint(2**62, (), generator=rng)
            expected = {name: p.expand(len(rngs), *p.shape) for name, p in params.items()}
            updates = _checked(share, share.share_many(task, params, batches, rngs), expected)
            for part in changing:
                updates = _checked(part, part.transform_many(task, updates, rngs), expected)
        return updates

    def disagreement(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> str | None:
        """The name of a parameter of which clients at once send another value than each alone, beyond rounding.

        None where they agree. Arguments and faults are those of `updates`.
        """
        states = [rng.get_state() for rng in rngs]
        together = self.updates(task, params, batches, rngs)
        for i, state in enumerate(states):
            one = Batch(batches.images[i], batches.labels[i])
            alone = self.update(task, params, one, Generator().set_state(state))
            largest = max(float(u.abs().max()) for u in alone.values())
            for name, mine in alone.items():
                if _differ(mine, together[name][i], largest):
                    return name
        return None

    def simulation(self, task: Task) -> Simulation | None:
        """The simulation of an attacker who knows all parts; None where a part, or this order of parts, has none."""
        computing = next(self._with_role("share"), NoDefense())
        parts = [computing, *self._with_role("transform")]
        found = {part: part.surrogate(task) for part in [*self._with_role("schedule"), *parts]}
        for part, surrogate in found.items():
            if surrogate is not None and not isinstance(surrogate, Surrogate):
                raise DefenseFault(f"{_name(part)}.surrogate returned {type(surrogate).__name__}, not a Surrogate")
            if surrogate not in (None, Surrogate()) and role_of(type(part)) == "schedule":
                raise DefenseFault(f"{_name(part)}.surrogate says more than Surrogate(), but a schedule is public")
        if None in found.values():
            return None
        return composed([surrogate for part in parts if (surrogate := found[part]) is not None])

    def privacy(self, schedule: Schedule, rounds: int, delta: float) -> Guarantee | None:
        """The guarantee of the chain's share after `rounds` updates, under `schedule` as the chain changes it.

        Transforms see nothing of the images but the share's update: they keep its guarantee and add none. None says
        that nothing is stated, not that nothing holds: `norm_clipping | gaussian_noise` is a Gaussian mechanism for the
        update as a whole (Geyer et al., 2017), whose unit is the client, and stands in no column of images.
        """
        share = next(self._with_role("share"), NoDefense())
        found = share.privacy(self.schedule(schedule), rounds, delta)
        if found is not None and not isinstance(found, Guarantee):
            raise DefenseFault(f"{_name(share)}.privacy returned {type(found).__name__}, not a Guarantee")
        if found is not None and any(self._with_role("transform")):
            return replace(found, summable=False)
        return found

    def is_public(self, task: Task) -> bool:
        """True if its published schedule says all: an attacker who knows the parts has nothing to add."""
        return all(part.surrogate(task) == Surrogate() for part in self.parts)

    def _with_role(self, role: str) -> Iterator[Defense]:
        return (part for part in self.parts if role_of(type(part)) == role)


def _takes_many(part: Defense) -> bool:
    method = f"{role_of(type(part))}_many"
    return getattr(type(part), method) is not getattr(Defense, method)


def _own_copy(model: Classifier) -> Classifier:
    """The model in eval mode, its weights trainable and without gradients."""
    copy = deepcopy(model).eval().requires_grad_(True)
    copy.zero_grad(set_to_none=True)
    return copy


def _differ(mine: Tensor, theirs: Tensor, largest: float) -> bool:
    """True if two tensors differ by more than rounding; `largest` is the largest entry of their update."""
    other = (mine - theirs).abs() > 1e-4 * mine.abs().max() + 1e-6 * largest
    # Rounding may swap the last entry that is kept with the first that is pruned, both as small as any kept one: as
    # many come as go. Or a level of a quantiser flips, but not in a small tensor, where it would be all that is there.
    kept = torch.minimum(*(u.abs().where(u != 0, math.inf).min() for u in (mine, theirs)))
    small = other & (torch.maximum(mine.abs(), theirs.abs()) <= kept * 1.001)
    come, gone = int((small & (mine == 0)).sum()), int((small & (theirs == 0)).sum())
    few = max(1, mine.numel() // 1000)
    swapped = 2 * come if come == gone <= few else 0
    return int(other.sum()) - swapped > mine.numel() // 1000


@contextmanager
def _untouched(part: Defense, arguments: dict[str, Tensor]) -> Iterator[None]:
    """Fail when the block writes into one of the tensors."""
    before = {name: tensor.clone() for name, tensor in arguments.items()}
    yield
    for name, tensor in before.items():
        if not torch.equal(tensor.nan_to_num(), arguments[name].nan_to_num()):
            raise DefenseFault(f"{_name(part)} wrote into its argument {name!r}; return new tensors instead")


def _checked(part: Defense, update: Update, params: Params) -> Update:
    """The update, detached; raises unless names, shapes and types are those of the parameters and all is finite."""
    if not isinstance(update, dict):
        raise DefenseFault(f"{_name(part)} returned {type(update).__name__}; return a dict of name to tensor")
    if update.keys() != params.keys():
        odd = ", ".join(sorted(update.keys() ^ params.keys()))
        raise DefenseFault(f"{_name(part)} returned other parameter names than the model has: {odd}")
    for name, p in params.items():
        u = update[name]
        if not isinstance(u, Tensor) or u.shape != p.shape or not u.is_floating_point():
            got = f"{tuple(u.shape)} {u.dtype}" if isinstance(u, Tensor) else type(u).__name__
            raise DefenseFault(
                f"{_name(part)} returned {got} for {name!r}; the parameter is {tuple(p.shape)} {p.dtype}"
            )
        if not torch.isfinite(u).all():
            raise NotFinite(f"{_name(part)} returned infinite or undefined values for {name!r}")
    return {name: update[name].detach().to(p.dtype) for name, p in params.items()}


def _name(part: Defense) -> str:
    return f"defense {type(part).__name__}"
