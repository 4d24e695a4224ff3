"""Several releases of one client: a stream of chance for each, their mean, and all of them where no mean says all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from attacks.attack import UnsupportedPair
from attacks.observation import as_often
from bench.seeds import stream
from defenses.task import Update

MOST_HELD = 2**28
"""Entries of all releases of one block that are held together where each counts: a gigabyte."""


def generator_of(role: str, *parts: str | int, turn: int) -> Generator:
    """The generator of a client's release number `turn`; that of the first is the one of a client that is seen once."""
    return Generator().manual_seed(stream(role, *parts, "release", turn) if turn else stream(role, *parts))


class RunningMean:
    """The mean of updates that are added one after the other, of which one at a time is in memory.

    It is summed in double precision: equal updates have exactly their own mean.
    """

    def __init__(self) -> None:
        self._first: Update | None = None
        self._sum: dict[str, Tensor] = {}
        self._count = 0

    def add(self, update: Update) -> None:
        """One more update."""
        self._count += 1
        if self._first is None:
            self._first = update
        elif self._sum:
            self._sum = {name: total + update[name] for name, total in self._sum.items()}
        else:
            self._sum = {name: u.double() + update[name] for name, u in self._first.items()}

    @property
    def value(self) -> Update:
        """The mean, in the type of the updates."""
        assert self._first is not None, "there is no mean of nothing"
        if not self._sum:
            return self._first
        return {name: (self._sum[name] / self._count).to(u.dtype) for name, u in self._first.items()}


@dataclass(frozen=True)
class Releases:
    """The releases of one client, or, with t in front of every shape, of the clients of a block."""

    mean: Update
    """Their mean (*shape)."""
    each: Update | None
    """All of them (releases, *shape) where that was asked for and they differ; None elsewhere."""
    digest: str
    """SHA-256 of all of them."""


def released(
    send: Callable[[Generator], Update], rng: Callable[..., Generator], count: int, each: bool, most: int = MOST_HELD
) -> Releases:
    """So many releases of a client, `send(rng(turn=...))`; with `each` all are kept where they differ.

    Raises `UnsupportedPair` where that would be more than `most` entries.
    """
    first = send(rng(turn=0))
    mean, digest, kept = RunningMean(), hashlib.sha256(), list[Update]()
    entries = count * sum(u.numel() for u in first.values())
    for turn in range(count):
        update = send(rng(turn=turn)) if turn else first
        mean.add(update)
        digest.update(digest_of_update(update).encode())
        if kept:
            kept.append(update)
        elif each and any(not torch.equal(u, first[name]) for name, u in update.items()):
            if entries > most:
                raise UnsupportedPair(
                    f"the surrogate of this defense looks at each of {count} releases, which differ, and {entries:,} "
                    f"entries of a client are more than the {most:,} that are held; lower threat.releases"
                )
            kept = [first] * turn + [update]  # Equal ones take no memory of their own.
    together = {name: torch.stack([own[name] for own in kept]) for name in first} if kept else None
    return Releases(mean.value, together, digest.hexdigest())


def of_block(clients: list[Releases], count: int) -> Releases:
    """The releases of a block's clients as one, `count` of each."""
    mean = {name: torch.stack([own.mean[name] for own in clients]) for name in clients[0].mean}
    digest = digest_of_update(mean)
    if count > 1:
        digest = hashlib.sha256("".join(own.digest for own in clients).encode()).hexdigest()
    if all(own.each is None for own in clients):
        return Releases(mean, None, digest)
    every = as_often(mean, count)
    every = [own.each or {name: u[i] for name, u in every.items()} for i, own in enumerate(clients)]
    return Releases(mean, {name: torch.stack([own[name] for own in every]) for name in mean}, digest)


def digest_of_update(update: Update) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name, u in update.items():
        digest.update(name.encode())
        digest.update(u.contiguous().numpy().tobytes())
    return digest.hexdigest()
