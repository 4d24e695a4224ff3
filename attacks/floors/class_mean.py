"""A floor from public data and known labels: the mean training image of each class."""

from __future__ import annotations

from dataclasses import dataclass

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.labels import believed_labels
from attacks.observation import Observation


@dataclass(frozen=True)
class ClassMean(Attack):
    """A control: each label's mean image, from training images that are none of the attacked ones."""

    control = True

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        if observation.class_means is None:
            raise UnsupportedPair("class_mean needs training images beside the attacked ones")
        labels = believed_labels(observation)
        return Reconstruction(observation.class_means[labels], labels)
