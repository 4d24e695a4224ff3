"""Rules for one call of a defense: its update, its neutral strength, and the schedule it says it follows."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.utils._python_dispatch import TorchDispatchMode

from bench.conformance.cases import DefenseCase, global_state, seed_everything
from bench.conformance.findings import Broken, NotApplicable
from bench.registry.signatures import parameters_of
from defenses.defense import Defense, role_of
from defenses.none import NoDefense
from defenses.schedule import Schedule
from defenses.task import Batch, Update

Given = dict[str, tuple[Any, Any]]
"""Argument, or part of the task's model -> its value before and after the call."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def applied(case: DefenseCase, seed: int = 0, generator: Generator | None = None) -> tuple[Update | Schedule, Given]:
    """The answer of the defense's own method to copies of the case's arguments, and these arguments."""
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
    """The traces that a defense could leave in the model of its task, by a name for each part."""
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


_RELEASES = 16
"""Releases by which entries that vary alike are told from such as vary each in its own way."""
_DRAWN = 0.9
"""The least part of a number for each entry that varies: a permutation of n entries takes n - 1."""
_NUDGE = 1e-9
"""Relative change of the images, above the rounding of float64 and below what a client could tell apart."""


def draws_what_it_adds(case: DefenseCase) -> None:
    """Noise on n entries takes n numbers of `rng`, and comes from nowhere else; asked in float64.

    Two counts have to reach the number of entries. One is of the 32-bit numbers that the generator gave, by its state
    before and after: one an entry in single precision, two in double. So the other is of entries, by the sizes of the
    tensors that are drawn: half of them in double precision would be enough for the first. Entries that vary from seed
    to seed in proportion, as under one random factor, count as one. A tensor, as a matrix, counts where it has over
    half of its full rank: sketches are no noise, nor are gradients of images that a share changes at random. Of a share
    matrices alone are asked, whose rank shows that.

    A generator of the same state and another seed has to give the same release, and images that change by 1e-9 nearly
    the same: else there is noise of the seed, or of the update. A generator of the defense's own that a draw has seeded
    is seen by the count, unless the defense also draws what it would need and throws it away. Nothing sees what hides
    in real noise, such as a nonce or an image in its low bits: that takes a reader.
    """
    role = role_of(type(case.defense))
    if role == "schedule":
        raise NotApplicable("a schedule changes no update")
    rng = Generator().manual_seed(0)
    fresh = rng.get_state()
    with _DrawnEntries(rng) as counted:
        releases = [_released(case, rng)]
    releases += [_released(case, Generator().manual_seed(seed)) for seed in range(1, _RELEASES)]
    if not same(releases[0], _released(case, Generator().manual_seed(0))):
        raise NotApplicable("asked when the rule seeds holds")
    if not same(releases[0], _released(case, Generator().set_state(_under_another_seed(fresh)))):
        raise Broken("gives another release to a generator of the same state and another seed; draw from rng alone")
    nudged = replace(case, batch=Batch(case.batch.images * (1 - _NUDGE), case.batch.labels))
    if _changed_by_much(releases[0], _released(nudged, Generator().manual_seed(0))):
        raise Broken(
            "adds other noise when the images change by 1e-9; draw noise from rng alone, never from the update"
        )
    varying = sum(_ways_to_vary([release[name] for release in releases], role) for name in releases[0])
    if not varying:
        raise NotApplicable("adds no noise to its entries")
    drawn = min(counted.entries, numbers_drawn(fresh, rng.get_state(), most=varying))
    if drawn < _DRAWN * varying:
        raise Broken(
            f"{varying} entries vary with the seed, each in its own way, but rng gave {drawn} numbers; draw one for "
            "each entry: torch.randn(u.shape, generator=rng), and make no generator of your own"
        )


class _DrawnEntries(TorchDispatchMode):
    """Counts the entries of tensors that are drawn from a generator while the mode is on.

    Of a draw, the largest tensor that goes in or comes out: a choice among n entries draws a number for each of them.
    """

    def __init__(self, rng: Generator) -> None:
        super().__init__()
        self.rng = rng
        self.entries = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        found = func(*args, **(kwargs or {}))
        # Operations get the generator as another object: it is known by its state.
        if any(isinstance(own, Generator) and torch.equal(own.get_state(), self.rng.get_state()) for own in given):
            self.entries += max(own.numel() for own in (*given, found) if isinstance(own, Tensor))
        return found


def numbers_drawn(before: Tensor, after: Tensor, most: int) -> int:
    """The 32-bit numbers that a generator of torch on the CPU gave between two states; `most` where they are more.

    The Mersenne Twister makes its numbers in blocks of 624, and the state holds the block and the place in it.
    """
    again = Generator().set_state(before)
    full = 0
    while not torch.equal(_block(again.get_state()), _block(after)):
        if full > most:
            return most
        full += 624
        torch.empty(624, dtype=torch.int32).random_(generator=again)
    return min(most, full + _place(after) - _place(before))


def _place(state: Tensor) -> int:
    """Numbers of the block that are given; a fresh state, which has none yet, counts as the end of a block before."""
    left, place = state[8:12].view(torch.int32), int(state[16:24].view(torch.int64))
    return 624 if int(left) == 1 and place == 0 else place


def _block(state: Tensor) -> Tensor:
    return state[24 : 24 + 8 * 624]


def _under_another_seed(state: Tensor) -> Tensor:
    """The state, as if another seed had led to it: the seed stands in its first 8 bytes and nothing is made of it."""
    changed = state.clone()
    changed[:8] = torch.tensor([987654321]).view(torch.uint8)
    return changed


def _released(case: DefenseCase, rng: Generator) -> Update:
    seed_everything(0)
    update, _ = applied(case, generator=rng)
    try:
        check_update(update, case)
    except Broken:
        raise NotApplicable("asked when the rule shapes holds") from None
    assert isinstance(update, dict)
    return update


def _changed_by_much(first: Update, other: Update) -> bool:
    """True if over 1% of the entries differ by over 1e-3 of their usual size."""
    before, after = (torch.cat([u.flatten() for u in update.values()]) for update in (first, other))
    return bool(((before - after).abs() > 1e-3 * before.square().mean().sqrt()).double().mean() > 0.01)


def _ways_to_vary(releases: list[Tensor], role: str) -> int:
    """The number of entries of a tensor that vary over its releases, those in proportion counted once."""
    one = releases[0]
    if role == "share" and one.dim() != 2:
        return 0
    if one.dim() > 1:
        matrix = one.flatten(1)
        if 2 * int(torch.linalg.matrix_rank(matrix, rtol=1e-10)) <= min(matrix.shape):
            return 0
    each = torch.stack(releases).flatten(1)
    off = each - each.mean(0)
    length = off.norm(dim=0)
    off, length = off[:, length > 1e-9 * each.abs().amax(0)], length[length > 1e-9 * each.abs().amax(0)]
    unit = off / length
    unit = unit * unit[unit.abs().argmax(0), torch.arange(unit.shape[1])].sign()
    return len(torch.unique((1e3 * unit).round().long().T, dim=0))


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
    """True if two answers of a defense are equal, to the byte."""
    if isinstance(first, dict) and isinstance(again, dict):
        return first.keys() == again.keys() and all(torch.equal(u, again[name]) for name, u in first.items())
    return first == again


NEUTRAL: dict[str, dict[str, Any]] = {
    "defenses.none": {},
    "defenses.noise.dp_sgd": {"clip_norm": 1e9, "noise_multiplier": 0.0},
    "defenses.noise.gaussian_noise": {"std": 0.0},
    "defenses.compression.gradient_pruning": {"ratio": 0.0},
    "defenses.aggregation.larger_batch": {"examples": 2},
    "defenses.noise.norm_clipping": {"clip_norm": 1e9},
}
"""Module of a built-in -> the parameters at which it leaves a client of two images as it is.

Others say it themselves, in a class attribute `neutral: ClassVar[dict[str, object]]`.
"""
_RATE = 1e-5
"""Learning rate of local steps so small that the gradient hardly changes between them."""


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
