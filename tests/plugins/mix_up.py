"""A plugin that computes an update: from blends of the private images."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from leakboard import Batch, Defense, Generator, Params, Task, Update, local_training


@dataclass(frozen=True)
class MixUp(Defense):
    """Train on blends of random pairs of images and of their labels (Zhang et al., ICLR 2018)."""

    weight: float = 0.5
    neutral: ClassVar[dict[str, object]] = {"weight": 1.0}

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], got {self.weight}; 1 leaves the images as they are")

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        partner = batch[torch.randperm(len(batch), generator=rng)]
        certain = torch.eye(task.classes)
        images = self.weight * batch.images + (1 - self.weight) * partner.images
        labels = self.weight * certain[batch.labels] + (1 - self.weight) * certain[partner.labels]
        return local_training(task, params, Batch(images, labels), rng, task.gradient)
