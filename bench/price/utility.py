"""The price of a defense and its proof: accuracy after federated training, bytes, time and epsilon."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Generator, Tensor

from bench.data.dataset import Dataset
from bench.errors import ConfigurationError
from bench.grid.sections import Utility
from bench.models.training import Progress, accuracy
from bench.price.federated import Rounds, Server, first_clients, train_federated
from defenses.accounting import prv_epsilon, rdp_epsilon, summed
from defenses.batch_norm import RUNNING, batch_norms, in_mode
from defenses.chain import Chain
from defenses.schedule import Mode, Schedule
from defenses.task import Batch, Classifier, Params, Task

COUNTED = 16
"""Clients of the first round whose bytes and milliseconds are counted."""
STATISTICS = 5_000
"""Training images from which batch norm's statistics are taken for the test of a network trained in train mode."""
MOST_EPSILON_BY_PRV = 50.0
"""Beyond it Opacus' PRV accountant takes gigabytes, and no epsilon that large protects anybody."""


def rounds_of(section: Utility, dataset: Dataset, schedule: Schedule) -> Rounds:
    """The rounds of a training; raises ConfigurationError where there is nothing to train on, or too few clients."""
    training = dataset.training()
    if training is None:
        raise ConfigurationError(
            f"utility: dataset {dataset.name} has no training images besides those attacked; leave [utility] out, or "
            "choose one that has, as fashion-mnist or digits"
        )
    try:
        return Rounds(section.rounds, section.clients, len(training[1]) // schedule.images, schedule.images)
    except ValueError as error:
        raise ConfigurationError(f"utility.{error}") from error


def server_of(section: Utility) -> Server:
    """The server that a section asks for."""
    return Server(section.optimizer, section.learning_rate, section.momentum)


def trained_figures(
    model: Classifier,
    mode: Mode,
    chain: Chain,
    schedule: Schedule,
    undefended: Schedule,
    dataset: Dataset,
    section: Utility,
    seed: int,
    kept: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train `model`, which is changed, by clients in a mode under a defense; its test accuracy and the update's cost.

    Clients in train mode send no statistics of their batches; for the test those of training images are taken.

    Where the schedule takes more images than that of `undefended` clients, `accuracy_at_equal_images` is that of the
    same training after as many images as undefended training sees in all its rounds.

    `bytes_sent` is the mean size of an update, float32 and deflated; `update_ms` the time of one client's update,
    computed alone: the shortest of a few, since other work on the machine only adds. Raises `TrainingDiverged` and
    `DefenseFault`.
    """
    data = dataset.training()
    assert data is not None, "the plan has checked this"
    task = Task(in_mode(model, mode), dataset.classes, dataset.input_shape, schedule)
    params = {name: p.detach().clone() for name, p in model.named_parameters()}
    rounds = rounds_of(section, dataset, schedule)
    server = server_of(section)
    resumed, started = kept.exists(), time.perf_counter()
    batches, rngs = first_clients(data, rounds, seed, COUNTED)
    sizes, times = [], []
    for images, labels, rng in zip(batches.images, batches.labels, rngs, strict=True):
        began = time.perf_counter()
        update = chain.update(task, params, Batch(images, labels), rng)
        times.append(1e3 * (time.perf_counter() - began))
        flat = torch.cat([u.flatten() for u in update.values()]).float()
        sizes.append(len(zlib.compress(flat.numpy().tobytes())))
    trained = train_federated(
        task,
        params,
        chain,
        data,
        rounds,
        server,
        seed=seed,
        early=rounds.at_equal_images(undefended.images),
        kept=kept,
        progress=progress,
    )
    reached = lambda weights: _accuracy_with(weights, model, mode, dataset, data[0], seed)  # noqa: E731
    counts = torch.bincount(dataset.labels, minlength=dataset.classes)
    return {
        **({} if trained.early is None else {"accuracy_at_equal_images": reached(trained.early)}),
        "accuracy": reached(trained.last),
        "chance": int(counts.max()) / len(dataset),
        "test_images": len(dataset),
        "bytes_sent": fmean(sizes),
        "update_ms": min(times),
        # What an earlier process spent is not known.
        "seconds": None if resumed else time.perf_counter() - started,
    }


def _accuracy_with(
    weights: Params, model: Classifier, mode: Mode, dataset: Dataset, pixels: Tensor, seed: int
) -> float:
    """The accuracy of the model, which is changed, with these weights on all test images."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights[name])
    if mode == "train":
        _take_statistics(model, pixels, seed)
    return accuracy(model, dataset, len(dataset))


def _take_statistics(model: Classifier, pixels: Tensor, seed: int) -> None:
    """Give the batch norms of a model the mean statistics of batches of training images; nothing else leaves eval."""
    norms = [module for module in batch_norms(model).values() if isinstance(module, RUNNING)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    some = torch.randperm(len(pixels), generator=Generator().manual_seed(seed))[:STATISTICS]
    with torch.no_grad():
        for part in some.tensor_split(max(1, len(some) // 250)):
            model(pixels[part].float() / 255)
    model.eval()


def proven(chain: Chain, client: Schedule, rounds: Rounds, delta: float) -> dict[str, Any]:
    """The guarantee of an image of a client that takes part as often as in `rounds`, as columns; nulls with a reason.

    Against this server, which sees the client's own updates, and in `epsilon_central` against whoever sees the sum of
    all clients of a round alone.
    """
    about = {"population": rounds.population, "participations": rounds.participations}
    found = chain.privacy(client, rounds.participations, delta)
    if found is None:
        return {**about, "no_epsilon": "heuristic: nothing is proven of an image"}
    about |= {"epsilon": found.epsilon, "accountant": found.accountant, "guarantee_steps": found.steps}
    about |= {"guarantee_unit": found.unit, "guarantee_relation": found.relation}
    if found.mechanism != "gaussian":
        return about
    central = summed(found, rounds.clients)
    settings = found.noise_multiplier, found.steps, delta, found.sampling_rate
    return {
        **about,
        "noise_multiplier": found.noise_multiplier,
        "epsilon_rdp": rdp_epsilon(*settings),
        "epsilon_prv": prv_epsilon(*settings) if found.epsilon <= MOST_EPSILON_BY_PRV else None,
        "epsilon_central": None if central is None else central.epsilon,
    }
