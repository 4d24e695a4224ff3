"""An attack that learns from public images: it shows the first one of the believed label."""

from dataclasses import dataclass

import torch

from attacks.labels import believed_labels
from leakboard import Attack, Observation, Reconstruction


@dataclass(frozen=True)
class NearestPublic(Attack):
    """The first public image of the label, a heuristic."""

    needs_public = True

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        public, labels = observation.public, believed_labels(observation)
        assert public is not None, "who needs public images is skipped without"
        first = torch.stack([(public.labels == label).int().argmax() for label in range(observation.task.classes)])
        like = next(iter(observation.params.values()))
        return Reconstruction((public.images.to(like) / 255)[first[labels]], labels)
