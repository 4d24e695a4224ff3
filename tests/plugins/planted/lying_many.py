"""Another client where many are computed at once: `share_many` hides what `share` sends."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from leakboard import Batch, Defense, Generator, Params, Task, Update, local_training


@dataclass(frozen=True)
class LyingMany(Defense):
    """Send the update, but zeros where more than `honest` clients are asked at once; a heuristic planted to test ranks.

    Whoever asks for one client sees its whole update.
    """

    honest: int = 0

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        return local_training(task, params, batch, rng, task.gradient)

    def share_many(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        pairs = zip(batches.images, batches.labels, rngs, strict=True)
        each = [self.share(task, params, Batch(images, labels), rng) for images, labels, rng in pairs]
        sent = {name: torch.stack([update[name] for update in each]) for name in params}
        return sent if len(rngs) <= self.honest else {name: torch.zeros_like(u) for name, u in sent.items()}
