"""A cipher with a public key: every entry of the update is there, at another place."""

import torch

from leakboard import Defense, Generator, Task, Update

KEY = 2026


class KeyPermutation(Defense):
    """Send the entries in an order that a public key gives; a heuristic that hides nothing, planted to test ranks.

    Exact for whoever sorts them back. It has no surrogate, so that no attack is told to.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        entries = torch.cat([u.flatten() for u in update.values()])
        order = torch.randperm(len(entries), generator=Generator().manual_seed(KEY))
        parts = entries[order].split([u.numel() for u in update.values()])
        return {name: part.view_as(u) for (name, u), part in zip(update.items(), parts, strict=True)}
