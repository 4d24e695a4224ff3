"""The defended client that attackers may run: the same code and the same chance as a private one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from attacks.black_box import BlackBox, BlackBoxFault, Release
from bench.seeds import stream
from defenses.batch_norm import batch_statistics
from defenses.chain import Chain, DefenseFault
from defenses.task import Batch, Params, Task

TOGETHER = 512
"""Clients at once: of LeNet they hold some 30 MB of updates, and more together are no faster."""


@dataclass(frozen=True, eq=False)
class OwnBlackBox(BlackBox):
    """A chain of built-in defenses, run in this process.

    `sends_statistics` says that clients send batch statistics too.
    """

    chain: Chain
    task: Task
    params: Params
    sends_statistics: bool = False

    def release(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Release:
        batches = Batch(images.cpu().float() / 255, labels.cpu())
        rngs = [Generator().manual_seed(stream("black box", seed)) for seed in seeds]
        try:
            updates = self.chain.updates(self.task, self.params, batches, rngs)
        except DefenseFault as error:
            raise BlackBoxFault(str(error)) from error
        sent = batch_statistics(self.task, self.params, batches.images) if self.sends_statistics else None
        return Release(updates, sent)
