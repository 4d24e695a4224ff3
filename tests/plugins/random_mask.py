"""A random part of the update: every release shows other entries."""

from dataclasses import dataclass

import torch

from leakboard import Defense, Generator, Surrogate, Task, Update


@dataclass(frozen=True)
class RandomMask(Defense):
    """Send each entry with probability `kept`, and zeros for the others (a heuristic).

    `told`: False has no surrogate, so that attacks are left to run it.
    """

    kept: float = 0.2
    told: bool = True

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u * (torch.rand(u.shape, generator=rng) < self.kept) for name, u in update.items()}

    def surrogate(self, task: Task) -> Surrogate | None:
        if not self.told:
            return None
        return Surrogate(keep=lambda sent: {name: (s != 0).to(s.dtype) for name, s in sent.items()})
