"""The simplest floor: a grey image."""

from __future__ import annotations

from dataclasses import dataclass

from attacks.attack import Attack, Reconstruction
from attacks.labels import believed_labels
from attacks.observation import Observation


@dataclass(frozen=True)
class GreyImage(Attack):
    """A control: every pixel is .5. Geiping et al., NeurIPS 2020, score reconstructions against it."""

    control = True

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        like = next(iter(observation.params.values()))
        shape = (observation.trials, observation.images, *observation.task.input_shape)
        images = like.new_full(shape, 0.5)
        return Reconstruction(images, believed_labels(observation))
