"""A pad that is another one at every call, so that no client is like the one before."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class CallCounter(Defense):
    """Add a public pad that is numbered by the calls so far; a heuristic planted to test the black box.

    Exact for whoever tries the pads of the first calls. Its class keeps the count for as long as the process lives.
    """

    std: float = 0.1
    calls: ClassVar[list[int]] = []

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        pad = Generator().manual_seed(len(self.calls))
        self.calls.append(1)
        return {name: u + self.std * torch.randn(u.shape, generator=pad, dtype=u.dtype) for name, u in update.items()}
