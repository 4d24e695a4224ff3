"""Held-out public images, which no server is granted, and the clients that they are dealt to by label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from attacks.attack import UnsupportedPair
from bench.grid.cells import HELD_OUT_CLIENTS


@dataclass(frozen=True, eq=False)
class HeldOutImages:
    """Public images of the referee: uint8 `pixels` (m c h w), int64 `labels` (m,), and the SHA-256 of both."""

    pixels: Tensor
    labels: Tensor
    digest: str


def counterparts(labels: Tensor, before: Tensor, held_out: Tensor, rng: Generator) -> Tensor:
    """Positions (t k b) among the held-out images: of each attacked image its k counterparts, of the same label.

    `labels` (t b) are of the attacked images, `before` (n,) of all images of earlier blocks, `held_out` (m,) of the
    held-out images. Each label's images, in an order that `rng` draws, are dealt one after the other, and again from
    the first where they are used up: none is used twice before all of its label are.
    Raises `UnsupportedPair` for a label without any.
    """
    order = torch.randperm(len(held_out), generator=rng)
    stacks = {kind: order[held_out[order] == kind].tolist() for kind in labels.unique().tolist()}
    bare = [kind for kind, stack in stacks.items() if not stack]
    if bare:
        raise UnsupportedPair(f"same_class has no held-out public image of class {bare[0]}; grant a larger public set")
    dealt = Counter({kind: HELD_OUT_CLIENTS * count for kind, count in Counter(before.tolist()).items()})
    return torch.tensor([[_next(trial, stacks, dealt) for _ in range(HELD_OUT_CLIENTS)] for trial in labels.tolist()])


def _next(labels: Sequence[int], stacks: dict[int, list[int]], dealt: Counter[int]) -> list[int]:
    positions = []
    for kind in labels:
        positions.append(stacks[kind][dealt[kind] % len(stacks[kind])])
        dealt[kind] += 1
    return positions
