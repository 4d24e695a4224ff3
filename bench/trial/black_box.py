"""The client that attackers may run: the code of a private one, with a chance of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from attacks.black_box import BlackBox, BlackBoxFault, Release
from bench.devices import clients_at_once
from bench.seeds import stream
from bench.trial.forked_clients import ForkedClients
from bench.trial.releases import RunningMean, generator_of, seed_of
from defenses.batch_norm import batch_statistics
from defenses.chain import Chain, DefenseFault
from defenses.task import Batch, Params, Task, Update

TOGETHER = 512
"""Clients at once: of LeNet they hold some 30 MB of updates, and more together are no faster."""
COMPARED = 20
"""Attacked clients by which computing many at once is held to the single one."""


@dataclass(frozen=True, eq=False)
class OwnBlackBox(BlackBox):
    """A chain of built-in defenses, run in this process.

    `sends_statistics` says that clients send batch statistics too. Of several `releases` of a client, each from a
    generator of its own, the mean is returned, as the server sees it of the attacked ones. `together` clients are
    computed at once, fewer where they do not fit into memory; 1 takes one after the other, as private clients are.
    """

    chain: Chain
    task: Task
    params: Params
    sends_statistics: bool = False
    releases: int = 1
    together: int = TOGETHER

    def release(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Release:
        batches = Batch(images.cpu().float() / 255, labels.cpu())
        updates = {name: p.new_empty(len(seeds), *p.shape) for name, p in self.params.items()}
        size = min(self.together, clients_at_once(self.task, self.params))
        for first in range(0, len(seeds), size):
            some, mean = slice(first, first + size), RunningMean()
            for turn in range(self.releases):
                rngs = [generator_of("black box", seed, turn=turn) for seed in seeds[some]]
                try:
                    mean.add(self._sent(batches[some], rngs))
                except DefenseFault as error:
                    raise BlackBoxFault(str(error)) from error
            for name, u in mean.value.items():
                updates[name][some] = u
        statistics = batch_statistics(self.task, self.params, batches.images) if self.sends_statistics else None
        return Release(updates, statistics)

    def _sent(self, batches: Batch, rngs: Sequence[Generator]) -> Update:
        if self.together > 1:
            return self.chain.updates(self.task, self.params, batches, rngs)
        one = Batch(batches.images[0], batches.labels[0])
        alone = self.chain.update(self.task, self.params, one, rngs[0])
        return {name: u[None] for name, u in alone.items()}


@dataclass(frozen=True, eq=False)
class ForkedBlackBox(BlackBox):
    """A chain with a plugin, run as private clients of it are: one after the other, in processes forked for them.

    `sends_statistics` and `releases` are those of `OwnBlackBox`.
    """

    clients: ForkedClients
    sends_statistics: bool = False
    releases: int = 1

    def release(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Release:
        images, labels, mean = images.cpu(), labels.cpu(), RunningMean()
        for turn in range(self.releases):
            try:
                mean.add(
                    self.clients.updates(images, labels, [seed_of("black box", seed, turn=turn) for seed in seeds])
                )
            except DefenseFault as error:
                raise BlackBoxFault(str(error)) from error
        if not self.sends_statistics:
            return Release(mean.value)
        return Release(mean.value, batch_statistics(self.clients.task, self.clients.params, images.float() / 255))


def most_together(chain: Chain, task: Task, params: Params, private: Tensor, labels: Tensor) -> int:
    """Clients that a black box may compute at once, given the attacked ones, uint8 (t b c h w) with labels (t b).

    1 unless up to `COMPARED` of these send at once, to rounding, what each of them sends alone.
    """
    size = min(COMPARED, len(private), clients_at_once(task, params))
    for first in range(0, min(COMPARED, len(private)), size):
        some = slice(first, min(first + size, COMPARED))
        batches = Batch(private[some].float() / 255, labels[some])
        rngs = [Generator().manual_seed(stream("comparison", i)) for i in range(len(batches))]
        try:
            if chain.disagreement(task, params, batches, rngs) is not None:
                return 1
        except RuntimeError:  # Some layers cannot be computed for several clients at once.
            return 1
    return TOGETHER
