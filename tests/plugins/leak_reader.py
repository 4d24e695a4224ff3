"""A plugin that attacks: it reads the images where `planted_leak` has put them."""

import math

import torch

from leakboard import (
    Attack,
    Observation,
    Reconstruction,
    Task,
    believed_labels,
    check_labels,
    gradient_scale,
    recovered_labels,
)


class LeakReader(Attack):
    """Take the first entries of the largest tensor for pixels; a heuristic to test the referee with."""

    def check(self, task: Task, labels: str) -> None:
        check_labels(task, labels)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        updates, shape = observation.updates, (observation.images, *observation.task.input_shape)
        largest = max(updates.values(), key=lambda u: u[0].numel()).flatten(1)
        entries = largest[:, : math.prod(shape)] / gradient_scale(observation)[:, None]
        images = entries.new_zeros(observation.trials, math.prod(shape))
        images[:, : entries.shape[1]] = entries
        recover = observation.threat.labels == "recovered"
        labels = recovered_labels(observation) if recover else believed_labels(observation)
        return Reconstruction(torch.clamp(images, 0, 1).view(-1, *shape), labels)
