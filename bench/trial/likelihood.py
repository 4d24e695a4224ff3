"""Identification by likelihood: a private image is picked out of a pool by the release itself, without an attack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.matching.candidates import candidate_updates, mismatches
from attacks.observation import Observation
from bench.data.dataset import Dataset
from defenses.task import Batch, Update

MOST_KEPT = 2**26
"""Entries of the updates of a pool that are kept for the next block: 256 MB, of 100 images of ResNet20 a third."""


@dataclass(frozen=True)
class LikelihoodIdentification:
    """The private images of a block that the likelihood of the release picks out of the pool."""

    found: Tensor | None
    """True for each client's image that was picked: bool (t,); None where that says nothing."""
    reason: str = ""
    """The reason for which there is none."""


class PoolLikelihood:
    """Picks private images out of a dataset's pool, whose updates it keeps while client and defense stay."""

    def __init__(self) -> None:
        self._client, self._updates = "", list[Update]()
        self._found: dict[str, LikelihoodIdentification] = {}

    def identified(
        self,
        seen: Observation,
        dataset: Dataset,
        truth: Tensor,
        labels: Tensor,
        image_ids: Tensor,
        client: str,
        key: str,
    ) -> LikelihoodIdentification:
        """The images `truth` (t 1 c h w), with their labels and numbers (t 1), that an observation picks.

        `client` tells one client with its defense and weights from another, `key` one release and its observer.
        """
        if client != self._client:
            self._client, self._updates, self._found = client, [], {}
        if key not in self._found:
            try:
                self._found[key] = self._identified(seen, dataset, truth, labels, image_ids)
            except RuntimeError as error:  # A surrogate that vmap cannot trace must not cost an attack its result.
                self._found[key] = LikelihoodIdentification(None, f"the surrogate cannot be run over a pool: {error}")
        return self._found[key]

    def _identified(
        self, seen: Observation, dataset: Dataset, truth: Tensor, labels: Tensor, image_ids: Tensor
    ) -> LikelihoodIdentification:
        pool = dataset.pool()
        if why := no_likelihood(seen, len(pool)):
            return LikelihoodIdentification(None, why)
        updates = candidate_updates(seen, Batch(dataset.images(pool), dataset.labels[pool]))
        if len(pool) * sum(p.numel() for p in seen.params.values()) <= MOST_KEPT:
            self._updates = updates = self._updates or list(updates)
        place = {image: i for i, image in enumerate(pool)}
        own = torch.tensor([place.get(image, -1) for [image] in image_ids.tolist()])
        return LikelihoodIdentification(identify_by_likelihood(seen, truth, labels, updates, own))


def no_likelihood(seen: Observation, pool: int) -> str:
    """The reason for which an observation picks nothing out of so many images; "" where it does."""
    if seen.images > 1:
        return f"an update of {seen.images} images has no likelihood under one of them alone"
    if pool < 2:
        return "the pool holds no other image"
    if not seen.threat.defense_known:
        return "without knowledge of the defense a release has no likelihood"
    if seen.defense is None:
        return "nobody says how to simulate this defense, or its schedule is not known"
    return ""


def identify_by_likelihood(
    seen: Observation, truth: Tensor, labels: Tensor, pool: Iterable[Update], own: Tensor
) -> Tensor:
    """True for each client whose image explains its release better than any other one of the pool: bool (t,).

    `truth` uint8 (t 1 c h w) with `labels` (t 1) is what the clients hold, `pool` what the m images of the pool would
    have sent, and `own` (t,) each private image's position in it, -1 when it is not there: then it takes the place of
    the last, as in `bench.trial.identification.identify_in_pool`. No label rules a candidate out. Ties fail.
    """
    others = mismatches(seen, pool)
    others[torch.arange(len(own)), own] = torch.inf
    held = [Batch(images.float() / 255, names) for images, names in zip(truth, labels, strict=True)]
    mine = [mismatches(seen[i : i + 1], candidate_updates(seen, batch))[0, 0] for i, batch in enumerate(held)]
    return torch.stack(mine) < others.amin(1)
