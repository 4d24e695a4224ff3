"""Recovering the labels of a client alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attacks.attack import Attack, Reconstruction
from attacks.labels import classification_layer, recovered_labels
from attacks.observation import Observation
from defenses.task import Task


@dataclass(frozen=True)
class LabelRule(Attack):
    """Read the labels off the last layer's gradient, and show a grey image: no pixel is recovered.

    One image: Zhao et al., "iDLG", 2020; batches: after Wainakh et al., 2022 (see `attacks.labels.recovered_labels`).
    Labels that the threat model grants are not looked at.
    """

    recovers_labels = True

    def check(self, task: Task, labels: str) -> None:
        classification_layer(task)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        like = next(iter(observation.params.values()))
        shape = (observation.trials, observation.images, *observation.task.input_shape)
        return Reconstruction(like.new_full(shape, 0.5), recovered_labels(replace(observation, labels=None)))
