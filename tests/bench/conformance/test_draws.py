"""The count of a generator's numbers, and what counts as noise and what does not."""

import pytest
import torch

from bench.conformance.cases import defense_case
from bench.conformance.defenses import draws_what_it_adds, numbers_drawn
from bench.conformance.findings import Broken, NotApplicable
from defenses.defense import Defense


def seeded(seed=5):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("before", [0, 1, 623, 624, 700])
@pytest.mark.parametrize("count", [0, 1, 5, 623, 624, 625, 5000])
def test_the_numbers_between_two_states_are_counted(before, count):
    rng = seeded()
    torch.rand(before, generator=rng)
    state = rng.get_state()
    torch.rand(count, generator=rng)
    assert numbers_drawn(state, rng.get_state(), most=10_000) == count


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (lambda rng: torch.rand(1000, generator=rng, dtype=torch.float64), 2000),
        (lambda rng: torch.randperm(1000, generator=rng), 999),
        (lambda rng: torch.randint(10, (1000,), generator=rng), 1000),
    ],
)
def test_each_entry_takes_a_number_in_single_precision_and_two_in_double(draw, count):
    rng, state = seeded(), seeded().get_state()
    draw(rng)
    assert numbers_drawn(state, rng.get_state(), most=10_000) == count
    assert numbers_drawn(state, rng.get_state(), most=100) == 100


def asked(change):
    """The answer of the rule on draws to a transform."""

    class Changing(Defense):
        def transform(self, task, update, rng):
            return {name: change(u, rng) for name, u in update.items()}

    try:
        draws_what_it_adds(defense_case(Changing(), torch.float64))
    except Broken:
        return "broken"
    except NotApplicable as reason:
        return str(reason)
    return "passed"


def own(rng):
    return seeded(int(torch.randint(2**30, (), generator=rng)))


def normal(u, rng):
    return torch.randn(u.shape, generator=rng, dtype=u.dtype)


def half_its_own(u, rng):
    """Half of the noise from rng, in double precision, and the other half from a generator that rng has seeded."""
    half = u.numel() // 2
    drawn = torch.randn(half, generator=rng, dtype=torch.float64)
    rest = torch.randn(u.numel() - half, generator=own(rng), dtype=torch.float64)
    return u + torch.cat([drawn, rest]).view_as(u).to(u.dtype)


def half_of_a_clone(u, rng):
    """The same, with the second half from a copy of rng that has gone on: nothing new was drawn."""
    half = u.numel() // 2
    drawn = torch.randn(half, generator=rng, dtype=torch.float64)
    copy = torch.Generator().set_state(rng.get_state())
    torch.rand((), generator=copy)
    return u + torch.cat([drawn, torch.randn(u.numel() - half, generator=copy, dtype=torch.float64)]).view_as(u)


def chosen(u, rng):
    kept = torch.multinomial(torch.ones(u.numel()), max(1, u.numel() // 10), generator=rng)
    return u * torch.zeros(u.numel(), dtype=u.dtype).index_fill(0, kept, 1).view_as(u)


def low_rank(u, rng):
    if u.dim() < 2:
        return u
    basis, _ = torch.linalg.qr(u.flatten(1) @ torch.randn(u[0].numel(), 2, generator=rng, dtype=u.dtype))
    return (basis @ (basis.T @ u.flatten(1))).view_as(u)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda u, rng: u + normal(u, rng), "passed"),
        (lambda u, rng: u + normal(u.float(), rng), "passed"),
        (lambda u, rng: u + normal(u, own(rng)), "broken"),
        (half_its_own, "broken"),
        (half_of_a_clone, "broken"),
        (lambda u, rng: torch.normal(u, 1.0, generator=rng), "passed"),
        (lambda u, rng: u * torch.bernoulli(torch.full_like(u, 0.1), generator=rng), "passed"),
        (lambda u, rng: u + torch.empty_like(u).uniform_(-1, 1, generator=rng), "passed"),
        (chosen, "passed"),
        (lambda u, rng: u * (torch.rand(u.shape, generator=rng) < 0.1), "passed"),
        (lambda u, rng: u * (torch.rand(u.shape, generator=own(rng)) < 0.1), "broken"),
        (lambda u, rng: u.flatten()[torch.randperm(u.numel(), generator=rng)].view_as(u), "passed"),
        (lambda u, rng: u.flatten()[torch.randperm(u.numel(), generator=own(rng))].view_as(u), "broken"),
        (lambda u, rng: u * torch.rand((), generator=rng, dtype=u.dtype), "passed"),
        (low_rank, "adds no noise to its entries"),
        (lambda u, rng: u + normal(u, seeded()), "adds no noise to its entries"),
        (lambda u, rng: u / 2, "adds no noise to its entries"),
    ],
)
def test_noise_is_what_each_entry_has_of_its_own(change, answer):
    assert asked(change) == answer
