"""Every entry in a unit of its own: the units are public."""

import torch

from leakboard import Defense, Generator, Task, Update

KEY = 2026


class PublicFactors(Defense):
    """Multiply each entry by a public factor, of either sign, from .01 to 100; a heuristic planted to test ranks.

    Exact for whoever divides again. It has no surrogate, so that no attack is told to.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        public = Generator().manual_seed(KEY)
        sent = {}
        for name, u in update.items():
            size = 10 ** (4 * torch.rand(u.shape, generator=public, dtype=u.dtype) - 2)
            sign = torch.randn(u.shape, generator=public, dtype=u.dtype).sign()
            sent[name] = u * size * sign
        return sent
