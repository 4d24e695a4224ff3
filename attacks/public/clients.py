"""Clients that the server makes of its public images, and the part of a release that tells of one image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.func import grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from attacks.attack import UnsupportedPair
from attacks.labels import classification_layer, recovered_labels
from attacks.matching.simulation import simulated_update
from attacks.observation import Observation, gradient_scale
from defenses.task import Batch, Task, Update

Source = Literal["surrogate", "black box"]
"""The origin of public clients' releases: a surrogate predicts them, before noise, or the client's code sends them."""
CHOSEN_ON = 500
"""The first public images, on which choices are made and by which nothing is learned."""
MOST_WORK = 1e13
"""Floating-point operations that the gradients of all public images may take, some ten minutes of one CPU core: of a
larger network fewer images are used, so that no attack is given up for its cost."""
LEAST_IMAGES = 200
"""Public images that are used whatever they cost."""
MOST_ENTRIES = 2**28
"""Numbers in the releases that are held at once, 1 GiB of them: with larger networks fewer are held."""
CHUNK_ENTRIES = 2**21
"""Numbers in the releases that are computed at once: 2**26 were slower, by half of the time for fresh memory."""


def _unchanged(parts: Tensor) -> Tensor:
    return parts


@dataclass(frozen=True, eq=False)
class PublicClients:
    """Public images, dealt to clients of b: number i is in slot i % b of client i // b.

    The order is the attack's own: neither the attacked images nor their number have a say. As far as classes suffice a
    client's labels differ, so that each image has a row of the last layer for itself; within a client they are sorted.
    """

    images: Tensor
    """Uint8 (n c h w)."""
    labels: Tensor
    """Int64 (n,), on the CPU."""
    behind: int
    """Images behind each update: b."""

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, numbers: Tensor) -> Tensor:
        """The images as float64 (n p) in [0, 1]."""
        return self.images[numbers.to(self.images.device)].flatten(1).double() / 255

    def dealt(self, clients: Tensor) -> tuple[Tensor, Tensor]:
        """Images (t b c h w) and labels (t b) of clients by their numbers."""
        images, labels = (own.unflatten(0, (-1, self.behind)) for own in (self.images, self.labels))
        return images[clients.to(images.device)], labels[clients]

    def observed(self, observation: Observation, count: int) -> tuple[Observation, Tensor]:
        """The observation of the first `count` clients, and their images (t b c h w) in [0, 1].

        Raises `UnsupportedPair` without a black box.
        """
        if observation.black_box is None:
            raise UnsupportedPair("it tries itself on public clients, and the observation holds no black box to run")
        numbers = torch.arange(count)
        images, labels = self.dealt(numbers)
        sent = observation.black_box.release(images, labels, numbers.tolist())
        like = next(iter(observation.params.values()))
        moved = lambda fields: fields and {name: value.to(like) for name, value in fields.items()}  # noqa: E731
        seen = replace(
            observation,
            updates=moved(sent.updates),
            labels=None if observation.labels is None else labels.to(like.device),
            batch_statistics=moved(sent.batch_statistics),
            each=None,
        )
        return seen, images.to(like) / 255


def public_clients(observation: Observation) -> PublicClients:
    """The public images of an observation, dealt to clients of as many images; `UnsupportedPair` for too few."""
    public, behind = observation.public, observation.images
    if public is None:
        raise UnsupportedPair("it learns from public images, and none are granted; set threat.public = true")
    labels = public.labels.cpu()
    order = _dealt(labels, behind, observation.task.classes)[: _affordable(observation)]
    order = order[: len(order) // behind * behind].view(-1, behind)
    if len(order) < 4:
        raise UnsupportedPair(
            f"it needs 4 public clients of {behind} images, as many as can be with different labels, and {len(public)} "
            f"granted images make {len(order)}; raise grid.public.count"
        )
    order = order.gather(1, labels[order].argsort(dim=1, stable=True)).flatten()
    return PublicClients(public.images[order.to(public.images.device)], labels[order], behind)


@dataclass(frozen=True, eq=False)
class PublicReleases:
    """The parts of public clients' releases that tell of each of their images."""

    clients: PublicClients
    """The clients."""
    noise: float
    """The variance of the noise that is left out of every number of a part; 0 for a black box."""
    send: Callable[[Tensor, Tensor, Sequence[int]], Tensor]
    """The parts (t b m) of the releases of clients of images (t b c h w) with labels (t b), one seed a client."""
    chunk: int
    """Clients that are computed at once."""
    table: Tensor | None = None
    """The parts (n m) of all images; None where they are too large to be held, and computed each time."""
    view: Callable[[Tensor], Tensor] = _unchanged
    """A function of parts (n m) by which they are compared."""
    tried: Callable[[Tensor, Tensor, Sequence[int]], Tensor] | None = None
    """As `send`, by the client's own code, where a surrogate's word for what it sends can be tried; None elsewhere."""

    @classmethod
    def of(cls, observation: Observation, clients: PublicClients, source: Source) -> PublicReleases:
        """The releases of public clients from a source; raises `UnsupportedPair` where there is none."""
        if source == "black box" and observation.black_box is None:
            raise UnsupportedPair(
                "it needs a surrogate with `predict`, or a black box to run, and the observation has neither"
            )
        task, known, behind = observation.task, observation.defense, clients.behind
        coordinates, noise = sum(p.numel() for p in task.model.parameters()), 0.0
        if source == "surrogate" and known is not None:
            noise = (known.noise_std / task.schedule.update_scale * behind) ** 2
        send = partial(_predicted if source == "surrogate" else _run, observation)
        chunk = max(1, min(512, CHUNK_ENTRIES // coordinates))
        if source == "black box":
            # A plugin's clients run fifty at a time whether all are asked for or not.
            chunk = max(chunk, min(50, MOST_ENTRIES // coordinates))
        tried = partial(_run, observation) if source == "surrogate" and observation.black_box is not None else None
        if behind == 1 and len(clients) * coordinates > MOST_ENTRIES:
            return cls(clients, noise, send, chunk, tried=tried)
        numbers = torch.arange(len(clients) // behind)
        table = torch.cat([send(*clients.dealt(some), some.tolist()).flatten(0, 1) for some in numbers.split(chunk)])
        return cls(clients, noise, send, chunk, table, tried=tried)

    @property
    def size(self) -> int:
        """Numbers in the view of an image's part."""
        return next(self.parts(torch.arange(1))).shape[1]

    def held(self, numbers: Tensor) -> Tensor:
        """The views (n m) of the parts that tell of the images of whole clients, as the server would see them.

        They are those of the client's own releases, and where there is no such client those predicted, with noise of a
        fixed seed.
        """
        if self.tried is not None:
            clients = numbers[:: self.clients.behind] // self.clients.behind
            sent = [self.tried(*self.clients.dealt(some), some.tolist()) for some in clients.split(self.chunk)]
            return torch.cat([self.view(part.flatten(0, 1)) for part in sent])
        parts = torch.cat(list(self.parts(numbers)))
        if not self.noise:
            return parts
        noise = torch.randn(parts.shape, generator=Generator().manual_seed(1), dtype=parts.dtype).to(parts)
        return parts + self.noise**0.5 * noise

    def parts(self, numbers: Tensor) -> Iterator[Tensor]:
        """The views (n m) of the parts that tell of these images, some at a time."""
        for some in numbers.split(self.chunk):
            yield self.view(self.whole(some))

    def whole(self, numbers: Tensor) -> Tensor:
        """The parts (n m) that tell of these images, as they are."""
        if self.table is not None:
            return self.table[numbers]
        return self.send(*self.clients.dealt(numbers), numbers.tolist())[:, 0]


def _affordable(observation: Observation) -> int:
    """The number of public images whose gradients stay within `MOST_WORK`."""

    def counted() -> int:
        task, params = observation.task, observation.params
        image = next(iter(params.values())).new_zeros(1, *task.input_shape)
        with FlopCounterMode(display=False) as counter:
            task.gradient(params, Batch(image, torch.zeros(1, dtype=torch.long, device=image.device)))
        steps = max(1, task.schedule.epochs)
        return max(LEAST_IMAGES, int(MOST_WORK / max(1, counter.get_total_flops() * steps)))

    return observation.learn("affordable", counted)


def attacked_parts(observation: Observation) -> tuple[Tensor, Tensor | None]:
    """The parts (t b m) of the attacked releases that tell of each image, and the labels (t b) that they are read by.

    Labels that are not known are recovered by rule where several images are behind an update; else they are None.
    """
    labels = observation.labels
    if labels is None and observation.images > 1:
        labels = recovered_labels(observation)
    scale = gradient_scale(observation)
    updates = {name: u / scale.view(-1, *[1] * (u.dim() - 1)) for name, u in observation.updates.items()}
    return _parts(observation.task, updates, labels), labels


def _dealt(labels: Tensor, behind: int, classes: int) -> Tensor:
    """Numbers of public images in the order in which clients get them."""
    order = torch.randperm(len(labels), generator=Generator().manual_seed(0))
    if behind == 1:
        return order
    # By turns of the classes, the rarest last: within a turn no label comes twice.
    ranks = torch.zeros(len(order), dtype=torch.long)
    for kind in range(classes):
        own = (labels[order] == kind).nonzero().flatten()
        ranks[own] = torch.arange(len(own))
    turns = [order[ranks == turn] for turn in range(int(ranks.max()) + 1)]
    size = min(behind, len(labels.unique()))
    # Clients cross no turn, so that what a turn leaves over is left out.
    kept = [turn[: len(turn) // size * size] for turn in turns]
    return torch.cat(kept)


def _parts(task: Task, updates: Update, labels: Tensor | None) -> Tensor:
    """The parts (t b m) of updates (t, *shape) in the scale of a mean gradient that tell of each image."""
    if task.schedule.images == 1:
        return torch.cat([updates[name].flatten(1) for name, _ in task.model.named_parameters()], 1)[:, None]
    assert labels is not None, "of several images each is told by its label"
    name, layer = classification_layer(task)
    rows = updates[f"{name}.weight"]
    if layer.bias is not None:
        rows = torch.cat([rows, updates[f"{name}.bias"][..., None]], -1)
    labels = labels.to(rows.device)
    own = rows.gather(1, labels[..., None].expand(-1, -1, rows.shape[-1]))
    shared = (labels[:, :, None] == labels[:, None, :]).sum(-1)
    # The gradient is a mean over the client's images; what a label's images share is dealt out evenly.
    return own * (labels.shape[1] / shared[..., None])


def label_rows(task: Task, parts: Tensor, labels: Tensor) -> Tensor:
    """The rows (n m) of the labels (n,) in the last layer, of parts of releases (n m) that tell of an image each.

    Raises `UnsupportedPair` where the network has no such layer.
    """
    name, layer = classification_layer(task)
    if task.schedule.images > 1:
        return parts
    sizes = {own: p.numel() for own, p in task.model.named_parameters()}
    update = dict(zip(sizes, parts.split(list(sizes.values()), 1), strict=True))
    own = torch.arange(len(parts), device=parts.device), labels.to(parts.device)
    rows = update[f"{name}.weight"].unflatten(1, (task.classes, -1))[own]
    return rows if layer.bias is None else torch.cat([rows, update[f"{name}.bias"][own][:, None]], 1)


def _predicted(observation: Observation, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Tensor:
    """The parts of the releases that the surrogate predicts, before noise."""
    task, params, known = observation.task, observation.params, observation.defense
    rule = grad(task.loss) if known is None or known.gradient is None else partial(known.gradient, task.loss)
    scale = task.schedule.update_scale

    def of_one(images: Tensor, labels: Tensor) -> Update:
        update = simulated_update(task, params, images, labels, rule)
        if known is not None and known.sent is not None:
            update = known.sent(update)
        return {name: u / scale for name, u in update.items()}

    like = next(iter(params.values()))
    with torch.no_grad():
        updates = vmap(of_one)(images.to(like) / 255, labels.to(like.device))
    return _parts(task, updates, labels)


def undefended_parts(observation: Observation, clients: PublicClients, numbers: Tensor) -> Tensor:
    """The parts (n m) of what undefended clients send, of all images of public clients by their numbers."""
    plain = replace(observation, defense=None)
    return _predicted(plain, *clients.dealt(numbers), numbers.tolist()).flatten(0, 1)


def _run(observation: Observation, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Tensor:
    """The parts of the releases that the client itself sends."""
    assert observation.black_box is not None, "checked before"
    scale, like = observation.task.schedule.update_scale, next(iter(observation.params.values()))
    sent = observation.black_box.release(images, labels, seeds)
    return _parts(observation.task, {name: u.to(like) / scale for name, u in sent.updates.items()}, labels)
