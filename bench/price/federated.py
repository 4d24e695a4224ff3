"""Federated training: rounds in which clients send what their defense makes of their images, and a server averages."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor

from bench.data.dataset import digest_of
from bench.devices import clients_at_once
from bench.models.training import Progress
from bench.seeds import stream
from bench.store.tensors import keep_training, resume_training
from defenses.chain import Chain, DefenseFault, NotFinite
from defenses.task import Batch, Params, Task

KEEP_SECONDS = 60.0
"""Seconds between two times that the state of a training is kept: a kill costs no more than that."""
PROBED = 4
"""Clients of the first round that also compute their update alone: the slow way is the oracle of the fast one."""


class TrainingDiverged(RuntimeError):
    """Federated training left the real numbers; the message says in which round."""


def round_of_equal_images(rounds: int, images: int, undefended: int) -> int | None:
    """The round by which clients of so many images see what clients of `undefended` images see in all rounds.

    Images seen are those dealt to clients: local epochs over them add none. It is the last round by which no more
    have been seen; None unless it lies between the first round and the last.
    """
    round_of_equal = rounds * undefended // images
    return round_of_equal if 0 < round_of_equal < rounds else None


@dataclass(frozen=True)
class Rounds:
    """Rounds of federated training, and the population from which each draws its clients.

    The clients take part in passes: each pass is a new order of all of them, cut into rounds, its remainder left out.
    So a client takes part at most once a pass, `participations` times in all, and never twice in a round.
    """

    rounds: int
    """Updates of the server's weights."""
    clients: int
    """Clients of one round."""
    population: int
    """Clients that there are."""
    images: int
    """Images of each client."""

    def __post_init__(self) -> None:
        if self.clients > self.population:
            raise ValueError(
                f"clients must be at most {self.population}, got {self.clients}: the training images make "
                f"{self.population} clients of {self.images}; take fewer a round"
            )

    @property
    def participations(self) -> int:
        """The most rounds in which one client takes part."""
        return -(-self.rounds // (self.population // self.clients))

    def at_equal_images(self, undefended: int) -> int | None:
        """The round of `round_of_equal_images`, beside clients of `undefended` images."""
        return round_of_equal_images(self.rounds, self.images, undefended)

    def chosen(self, number: int, seed: int) -> Tensor:
        """The clients (clients,) of a round, from the seed alone."""
        a_pass, position = divmod(number, self.population // self.clients)
        order = torch.randperm(self.population, generator=Generator().manual_seed(stream("pass", seed, a_pass)))
        return order[position * self.clients : (position + 1) * self.clients]


@dataclass(frozen=True)
class FederatedWeights:
    """The weights that a federated training has made."""

    last: Params
    """Those after all rounds."""
    early: Params | None
    """Those after an earlier round that was asked for."""


@dataclass(frozen=True)
class Server:
    """A server that takes the mean update for a step of its optimiser.

    "adam" is FedAdam (Reddi et al., "Adaptive Federated Optimization", ICLR 2021), which takes steps of the same length
    whatever the update's scale, so that a defense that clips or works locally needs no learning rate of its own; "sgd"
    averages (McMahan et al., AISTATS 2017). The mean is first divided by local learning rate x steps: both move along
    it in units of a gradient.
    """

    optimizer: str = "adam"
    """Either "adam" or "sgd"."""
    learning_rate: float = 0.01
    """The rate of the first round, falling to 0 in half a cosine."""
    momentum: float = 0.9
    """Adam's first decay, or SGD's momentum."""

    def optimiser(self, params: list[Tensor]) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(params, self.learning_rate, betas=(self.momentum, 0.999))
        return torch.optim.SGD(params, self.learning_rate, self.momentum)


def train_federated(
    task: Task,
    params: Params,
    chain: Chain,
    data: tuple[Tensor, Tensor],
    rounds: Rounds,
    server: Server,
    *,
    seed: int,
    early: int | None = None,
    kept: Path | None = None,
    progress: Progress | None = None,
) -> FederatedWeights:
    """The weights after all rounds, and after the round `early`; `params` are left as they are.

    `data` are uint8 images (m c h w) and labels (m,), dealt to clients by the seed. Every client runs `chain` as an
    attacked client does, with its own generator from images, seed and round. The state is kept now and then in the
    file `kept`, from which the next call goes on, to the same weights; it is removed at the end. Raises
    `TrainingDiverged` and `DefenseFault`.
    """
    weights = {name: p.detach().clone().requires_grad_(True) for name, p in params.items()}
    optimiser = server.optimiser(list(weights.values()))
    first, midway = (0, None) if kept is None else resume_training(kept, weights, optimiser)
    deal = _dealt(data, seed)
    at_once = clients_at_once(task, params)
    saved = time.perf_counter()
    for number in range(first, rounds.rounds):
        members = rounds.chosen(number, seed)
        fixed = {name: w.detach() for name, w in weights.items()}
        if number == 0:
            probe(task, fixed, chain, *_clients(data, deal, members[:PROBED], rounds.images, seed, number))
        total = {name: torch.zeros_like(w) for name, w in fixed.items()}
        for some in members.split(at_once):
            try:
                sent = chain.updates(task, fixed, *_clients(data, deal, some, rounds.images, seed, number))
            except NotFinite as error:
                raise TrainingDiverged(f"in round {number + 1} of {rounds.rounds}: {error}") from error
            total = {name: t + sent[name].sum(0) for name, t in total.items()}
        for group in optimiser.param_groups:
            group["lr"] = server.learning_rate * (1 + math.cos(math.pi * number / rounds.rounds)) / 2
        for name, w in weights.items():
            w.grad = total[name] / (len(members) * task.schedule.update_scale)
        optimiser.step()
        if not all(w.detach().isfinite().all() for w in weights.values()):
            raise TrainingDiverged(f"the weights are not finite after round {number + 1} of {rounds.rounds}")
        if number + 1 == early:
            midway = {name: w.detach().clone() for name, w in weights.items()}
        if progress is not None:
            progress(number + 1, rounds.rounds)
        if kept is not None and time.perf_counter() - saved > KEEP_SECONDS and number + 1 < rounds.rounds:
            keep_training(kept, weights, optimiser, number + 1, midway)
            saved = time.perf_counter()
    if kept is not None:
        with suppress(OSError):  # It would be swept away by the next version of the method.
            kept.unlink(missing_ok=True)
    return FederatedWeights({name: w.detach() for name, w in weights.items()}, midway)


def first_clients(data: tuple[Tensor, Tensor], rounds: Rounds, seed: int, most: int) -> tuple[Batch, list[Generator]]:
    """Up to `most` clients of the first round: their images (t b c h w) and labels (t b), and their generators."""
    return _clients(data, _dealt(data, seed), rounds.chosen(0, seed)[:most], rounds.images, seed, 0)


def probe(task: Task, params: Params, chain: Chain, batches: Batch, rngs: list[Generator]) -> None:
    """Raise `DefenseFault` unless clients computed at once send what each of them sends alone."""
    name = chain.disagreement(task, params, batches, rngs)
    if name is not None:
        raise DefenseFault(
            f"many clients at once send another {name!r} than each alone: what is attacked would not be what "
            "is trained; mend share_many or transform_many, or remove it"
        )


def _dealt(data: tuple[Tensor, Tensor], seed: int) -> Tensor:
    """The numbers of the training images (m,) in the order in which clients get them."""
    return torch.randperm(len(data[1]), generator=Generator().manual_seed(stream("deal", seed)))


def _clients(
    data: tuple[Tensor, Tensor], deal: Tensor, members: Tensor, images: int, seed: int, number: int
) -> tuple[Batch, list[Generator]]:
    """The batches of some clients, images (t b c h w) and labels (t b), and their generators of this round."""
    numbers = torch.stack([deal[k * images : (k + 1) * images] for k in members.tolist()])
    pixels, labels = data[0][numbers], data[1][numbers]
    digests = [digest_of(own, own_labels) for own, own_labels in zip(pixels, labels, strict=True)]
    rngs = [Generator().manual_seed(stream("client", seed, digest, number)) for digest in digests]
    return Batch(pixels.float() / 255, labels), rngs
