"""The simplest floor: a grey image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attacks.attack import Attack, Reconstruction
from attacks.labels import believed_labels
from attacks.observation import Observation


@dataclass(frozen=True)
class GreyImage(Attack):
    """A control: every pixel is .5. Geiping et al., NeurIPS 2020, score reconstructions against it."""

    control = True

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        shape = (observation.trials, observation.images, *observation.task.input_shape)
        images = torch.full(shape, 0.5, device=observation.device)
        return Reconstruction(images, believed_labels(observation))
