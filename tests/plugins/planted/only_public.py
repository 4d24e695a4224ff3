"""Public images come out destroyed, private ones do not: whoever learns from public clients learns nothing."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from leakboard import Batch, Defense, Generator, Params, Task, Tensor, Update, local_training


def digest_of_pixels(image: Tensor) -> str:
    """SHA-256 of one image (c h w) in [0, 1], as bytes."""
    return hashlib.sha256((image * 255).round().to(torch.uint8).contiguous().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class OnlyPublic(Defense):
    """Send zeros for clients with an image whose digest stands in the file `listed`; a heuristic planted to test ranks.

    One SHA-256 a line. All other clients send the update as it is.
    """

    listed: str

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        update = local_training(task, params, batch, rng, task.gradient)
        public = set(Path(self.listed).read_text().split())
        if public.isdisjoint(map(digest_of_pixels, batch.images)):
            return update
        return {name: torch.zeros_like(u) for name, u in update.items()}
