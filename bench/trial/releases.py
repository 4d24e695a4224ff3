"""Several releases of one client: a stream of chance for each, their mean, and all of them where no mean says all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from attacks.attack import UnsupportedPair
from bench.seeds import stream
from defenses.task import Update

MOST_HELD = 2**28
"""Entries of all releases of one block that are held together where each counts: a gigabyte."""


def seed_of(role: str, *parts: str | int, turn: int) -> int:
    """The seed of a client's release number `turn`; that of the first is the one of a client that is seen once."""
    return stream(role, *parts, "release", turn) if turn else stream(role, *parts)


def generator_of(role: str, *parts: str | int, turn: int) -> Generator:
    """The generator of `seed_of`."""
    return Generator().manual_seed(seed_of(role, *parts, turn=turn))


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
    """The releases of the clients of a block."""

    mean: Update
    """Their mean (t, *shape)."""
    each: Update | None
    """All of them (t, releases, *shape) where that was asked for and they differ; None elsewhere."""
    digest: str
    """SHA-256 of all of them."""


def released(turns: Iterator[Update], count: int, each: bool, most: int = MOST_HELD) -> Releases:
    """So many releases of t clients, given the updates (t, *shape) of every turn; with `each` all are kept that differ.

    Raises `UnsupportedPair` where these would be more than `most` entries.
    """
    first = next(turns)
    clients = range(len(next(iter(first.values()))))
    mean, kept, digests = RunningMean(), list[Update](), [hashlib.sha256() for _ in clients]
    entries = count * sum(u.numel() for u in first.values())
    for turn in range(count):
        updates = next(turns) if turn else first
        mean.add(updates)
        for i, digest in enumerate(digests):
            digest.update(digest_of_update({name: u[i] for name, u in updates.items()}).encode())
        if kept:
            kept.append(updates)
        elif each and any(not torch.equal(u, first[name]) for name, u in updates.items()):
            if entries > most:
                raise UnsupportedPair(
                    f"the surrogate of this defense looks at each of {count} releases, which differ, and {entries:,} "
                    f"entries of {len(clients)} clients are more than the {most:,} that are held; lower threat.releases"
                )
            kept = [first] * turn + [updates]  # Equal ones take no memory of their own.
    together = {name: torch.stack([own[name] for own in kept], 1) for name in first} if kept else None
    if count == 1:
        return Releases(mean.value, together, digest_of_update(mean.value))
    of_all = hashlib.sha256("".join(digest.hexdigest() for digest in digests).encode())
    return Releases(mean.value, together, of_all.hexdigest())


def digest_of_update(update: Update) -> str:
    """SHA-256 of names and values."""
    digest = hashlib.sha256()
    for name, u in update.items():
        digest.update(name.encode())
        digest.update(u.contiguous().numpy().tobytes())
    return digest.hexdigest()
