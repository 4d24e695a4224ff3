"""Noise that is none: it comes from few seeds, whatever the generator gives."""

from dataclasses import dataclass

import torch

from leakboard import Defense, Generator, Task, Update

PADS = 256


@dataclass(frozen=True)
class SeedReader(Defense):
    """Add one of 256 public pads, chosen by the generator's seed; a heuristic planted to test conformance.

    Exact for whoever tries the pads. It draws as much as honest noise would and throws it away.
    """

    std: float = 0.1

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        own = Generator().manual_seed(rng.initial_seed() % PADS)
        sent = {}
        for name, u in update.items():
            torch.randn(u.shape, generator=rng, dtype=u.dtype)
            sent[name] = u + self.std * torch.randn(u.shape, generator=own, dtype=u.dtype)
        return sent
