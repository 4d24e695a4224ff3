"""The update on top of a mountain that everybody knows."""

import torch

from leakboard import Defense, Generator, Task, Update

KEY = 2026


class PublicOffset(Defense):
    """Add a public number of deviation 1 to each entry, the same for all clients; a heuristic planted to test ranks.

    Exact for whoever subtracts it again. It has no surrogate, so that no attack is told to.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        public = Generator().manual_seed(KEY)
        return {name: u + torch.randn(u.shape, generator=public, dtype=u.dtype) for name, u in update.items()}
