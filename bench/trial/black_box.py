"""The defended client that attackers may run: the same code and the same chance as a private one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from attacks.black_box import BlackBox, BlackBoxFault, Release
from bench.trial.releases import RunningMean, generator_of
from defenses.batch_norm import batch_statistics
from defenses.chain import Chain, DefenseFault
from defenses.task import Batch, Params, Task

TOGETHER = 512
"""Clients at once: of LeNet they hold some 30 MB of updates, and more together are no faster."""


@dataclass(frozen=True, eq=False)
class OwnBlackBox(BlackBox):
    """A chain of built-in defenses, run in this process.

    `sends_statistics` says that clients send batch statistics too. Of several `releases` of a client, each from a
    generator of its own, the mean is returned, as the server sees it of the attacked ones.
    """

    chain: Chain
    task: Task
    params: Params
    sends_statistics: bool = False
    releases: int = 1

    def release(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Release:
        batches = Batch(images.cpu().float() / 255, labels.cpu())
        mean = RunningMean()
        try:
            for turn in range(self.releases):
                rngs = [generator_of("black box", seed, turn=turn) for seed in seeds]
                mean.add(self.chain.updates(self.task, self.params, batches, rngs))
        except DefenseFault as error:
            raise BlackBoxFault(str(error)) from error
        sent = batch_statistics(self.task, self.params, batches.images) if self.sends_statistics else None
        return Release(mean.value, sent)
