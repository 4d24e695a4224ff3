"""A random mask whose surrogate is the identity: right in the mean, and blind to which entries were sent."""

from dataclasses import dataclass

import torch

from leakboard import Defense, Generator, Surrogate, Task, Update


@dataclass(frozen=True)
class IdentitySurrogate(Defense):
    """Send each entry with probability `kept`, divided by it, and zeros for the others; a heuristic planted to test.

    Exact on every entry that is not zero. Its surrogate leads an attack to match the zeros too.
    """

    kept: float = 0.1

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        chosen = {n: torch.rand(u.shape, generator=rng, dtype=u.dtype) < self.kept for n, u in update.items()}
        return {name: u * chosen[name] / self.kept for name, u in update.items()}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(predict=lambda update: update)
