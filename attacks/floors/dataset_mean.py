"""A floor from public statistics: the dataset's mean colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.attack import Attack, Reconstruction
from attacks.labels import believed_labels
from attacks.observation import Observation


@dataclass(frozen=True)
class DatasetMean(Attack):
    """A control: every pixel is its channel's published mean, which the model's normalisation states."""

    control = True

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        task = observation.task
        shape = (observation.trials, observation.images, *task.input_shape)
        images = task.denormalise(torch.zeros(shape, device=observation.device)).clamp(0, 1)
        return Reconstruction(images, believed_labels(observation))
