"""Measures how often the private image is picked out of candidates, by the client and the adversary that a run has."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Generator, Tensor

from attacks.matching.candidates import most_likely
from attacks.observation import Observation
from attacks.threat import ThreatModel
from bench.data.dataset import Dataset, digest_of
from bench.price.certificates import Identification
from bench.seeds import stream
from bench.store.tensors import digest_of_state
from defenses.accounting import Guarantee
from defenses.chain import Chain
from defenses.task import Batch, Params, Task

CERTIFICATE_THREAT = ThreatModel(labels="recovered", defense_known=True)
"""The private label is not granted: candidates of other labels would be out at once, which the proof does not allow."""
POOL = 10_000
"""The most images of the attacked split among which an adversary's candidates are drawn."""
_ENTRIES = 2**22
"""Entries of releases and pixels of candidates that are in memory at once."""


@dataclass(frozen=True)
class Pool:
    """The public images of which candidates are drawn."""

    pixels: Tensor
    """The images as the dataset stores them: uint8 (m c h w)."""
    labels: Tensor
    """Their labels (m,)."""

    def __post_init__(self) -> None:
        if self.pixels.dim() != 4 or self.pixels.dtype != torch.uint8:
            got = f"{tuple(self.pixels.shape)} {self.pixels.dtype}"
            raise ValueError(f"pixels must be uint8 (m c h w), got {got}; give them as the dataset stores them")
        if tuple(self.labels.shape) != (len(self.pixels),):
            raise ValueError(f"labels must be ({len(self.pixels)},), one an image, got {tuple(self.labels.shape)}")

    @classmethod
    def of(cls, dataset: Dataset) -> Pool:
        """The first `POOL` images of the attacked split."""
        shown = range(min(len(dataset), POOL))
        return cls(dataset.pixels(shown), dataset.labels[: len(shown)])

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels and labels."""
        return digest_of(self.pixels, self.labels)

    def batch(self, indices: Tensor) -> Batch:
        """These images in [0, 1], with their labels; `indices` (k,)."""
        return Batch(self.pixels[indices].float() / 255, self.labels[indices])


@dataclass(frozen=True)
class Draw:
    """All that is random in one trial; of it the adversary gets candidates and others, and the release."""

    candidates: Tensor
    """Positions in the pool (n,) of the images among which the adversary picks."""
    others: Tensor
    """Positions in the pool (b-1,) of the rest of the client's batch; none of them is a candidate."""
    private: int
    """The index in `candidates` of the image that the client holds."""
    noise: int
    """The seed of the client's generator."""

    @property
    def held(self) -> Tensor:
        """The client's batch (b,), the private image first."""
        return torch.cat([self.candidates[self.private, None], self.others])


def draw_trial(pool: Pool, candidates: int, others: int, seed: int, trial: int) -> Draw:
    """Fresh candidates, each as likely as any other to be the private one, and fresh noise."""
    if candidates < 2:
        raise ValueError(f"candidates must be at least 2, got {candidates}; one candidate is always right")
    if len(pool) < candidates + others:
        raise ValueError(
            f"the pool has {len(pool)} images; {candidates} candidates and {others} others of the client's batch "
            f"need {candidates + others}: give more images, or fewer candidates"
        )
    rng = Generator().manual_seed(stream("candidates", pool.digest, seed, trial))
    chosen = torch.randperm(len(pool), generator=rng)[: candidates + others]
    private = int(torch.randint(candidates, (), generator=rng))
    drawn = Draw(chosen[:candidates], chosen[candidates:], private, noise=0)
    # As in a run, the stream holds the private images: who knows choices alone cannot rebuild the client's noise.
    own = digest_of(pool.pixels[drawn.held], pool.labels[drawn.held])
    return replace(drawn, noise=stream("client", seed, own, trial))


def observe_clients(chain: Chain, task: Task, params: Params, pool: Pool, drawn: list[Draw]) -> Observation:
    """The observation of each trial's client by the server; a defense that it knows has still to be added."""
    sent = [chain.update(task, params, pool.batch(trial.held), Generator().manual_seed(trial.noise)) for trial in drawn]
    updates = {name: torch.stack([u[name] for u in sent]) for name in params}
    return Observation(task, params, updates, None, CERTIFICATE_THREAT, task.schedule.update_scale)


def answers(observation: Observation, pool: Pool, drawn: list[Draw]) -> Tensor:
    """The candidates (t,) that the adversary names; of the draws it is shown candidates and others."""
    candidates = [pool.batch(trial.candidates) for trial in drawn]
    others = [pool.batch(trial.others) for trial in drawn]
    images, labels = torch.stack([own.images for own in candidates]), torch.stack([own.labels for own in candidates])
    known = Batch(torch.stack([own.images for own in others]), torch.stack([own.labels for own in others]))
    return most_likely(observation, images, labels, known)


def measure(
    chain: Chain,
    task: Task,
    params: Params,
    pool: Pool,
    guarantee: Guarantee | None,
    *,
    candidates: int = 20,
    trials: int = 200,
    seed: int = 0,
) -> Identification:
    """Let `most_likely` guess in `trials` trials, independent given the pool: each with its own images and noise.

    `task` has the schedule as the chain changes it, `guarantee` is `chain.privacy(..., rounds=1, ...)`: of one update
    that is released under `params`. The proof covers any pool; images that the weights were trained on would have other
    gradients than a client's. Raises ValueError for impossible numbers.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, got {trials}")
    # The simulation comes from an object that sees no batch: what a plugin remembers must not reach the adversary.
    defense = deepcopy(chain).simulation(task)
    pixels = (candidates + task.schedule.images) * math.prod(task.input_shape)
    at_once = max(1, _ENTRIES // (sum(p.numel() for p in params.values()) + pixels))
    successes = 0
    for first in range(0, trials, at_once):
        numbers = range(first, min(first + at_once, trials))
        drawn = [draw_trial(pool, candidates, task.schedule.images - 1, seed, trial) for trial in numbers]
        seen = replace(observe_clients(chain, task, params, pool, drawn), defense=defense)
        private = torch.tensor([trial.private for trial in drawn])
        successes += int((answers(seen, pool, drawn) == private).sum())
    return Identification(
        candidates=candidates,
        trials=trials,
        successes=successes,
        images=task.schedule.images,
        noise_multiplier=None if guarantee is None else guarantee.noise_multiplier,
        steps=None if guarantee is None else guarantee.steps,
        seed=seed,
        pool=len(pool),
        pool_digest=pool.digest,
        weights_digest=digest_of_state(params),
    )
