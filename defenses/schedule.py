"""The client's published local work; torch-free, so that planning a grid stays cheap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["eval", "train"]
"""By which statistics the client's batch-norm layers normalise: running ones, or those of the batch at hand.

In both, dropout is off.
"""


@dataclass(frozen=True)
class Schedule:
    """The client's published work behind one update.

    `images` per update, `epochs` over them (0: FedSGD, one gradient is sent; 1 or more: FedAvg, the
    difference of weights is sent), `batch_size` of a local step (None: all images at once) and the local
    `learning_rate` of plain SGD (McMahan et al., AISTATS 2017).
    """

    images: int = 1
    epochs: int = 0
    batch_size: int | None = None
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images must be at least 1, got {self.images}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be at least 0, got {self.epochs}; 0 sends one gradient")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate}")

    @property
    def sends_gradient(self) -> bool:
        """True for FedSGD; false when a weight difference is sent."""
        return self.epochs == 0

    @property
    def local_batches(self) -> list[slice]:
        """The positions of each local step of one epoch, the last one possibly shorter; all images for FedSGD."""
        size = self.images if self.sends_gradient else self.batch_size or self.images
        return [slice(i, min(i + size, self.images)) for i in range(0, self.images, size)]

    @property
    def steps(self) -> int:
        """Local SGD steps behind one update; 1 for FedSGD."""
        return max(1, self.epochs * len(self.local_batches))

    @property
    def update_scale(self) -> float:
        """The divisor that brings the update to the scale of a mean gradient: learning rate x steps, or 1."""
        return 1.0 if self.sends_gradient else self.learning_rate * self.steps
