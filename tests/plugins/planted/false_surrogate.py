"""A cipher with a public key that claims to be none: it tells attacks that there is nothing to adapt to."""

import torch

from leakboard import Defense, Generator, Surrogate, Task, Update

KEY = 2026


class FalseSurrogate(Defense):
    """Send the entries in an order that a public key gives, and deny it; a heuristic planted to test ranks.

    Exact for whoever sorts them back. Its surrogate says that the update is sent as it is.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        entries = torch.cat([u.flatten() for u in update.values()])
        order = torch.randperm(len(entries), generator=Generator().manual_seed(KEY))
        parts = entries[order].split([u.numel() for u in update.values()])
        return {name: part.view_as(u) for (name, u), part in zip(update.items(), parts, strict=True)}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()
