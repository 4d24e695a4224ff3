"""A decoder of releases into images, learned on public images on which the client itself is run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.labels import classification_layer
from attacks.observation import Observation
from attacks.public.clients import PublicReleases, attacked_parts, label_rows, public_clients, undefended_parts
from attacks.public.expected import ExpectedReleases, draws_matter
from attacks.public.last_layer import last_layer_found
from attacks.public.posterior import Comparable, Posterior, held_out, learned_posterior, likeness
from defenses.task import Task

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)
"""Weights of ridge regression on features of variance 1, of which held-out images choose."""
SHARES = (0.25, 0.5, 0.75)
"""Shares of a further decoder in the mixture."""


@dataclass(frozen=True)
class BlackBoxDecoder(Attack):
    """Decode the release by what the client sends of public images: the defense is run, never read.

    Up to five decoders are learned and mixed, all choices made on 500 held-out public images:

    - the kernel posterior mean of `posterior_mean` over releases as the client sends them, noise and all, in their
      principal directions;
    - the same over entries in units of the undefended update, by a line that is fitted to each entry: a defense that
      gives every entry a public factor hides nothing;
    - the same over signs and magnitudes of their entries, which say more where a defense distorts or drops entries;
    - the same over coordinates of releases along the principal directions of undefended gradients, each public one
      replaced by its expectation given that gradient, where the client's draws matter (`attacks.public.expected`);
    - ridge regression (Hoerl & Kennard, Technometrics 1970) from the row of the label in the last layer, which is a
      multiple of the image's features, over the images of all labels at once; left out where the network has no such
      layer or the labels are not known. Each entry of that layer is looked for in the release wherever it went.

    A mixture is the best decoder by SSIM with a share of each of the others, one after the other, where that is better
    still. Learned inversion of a client that is only run is that of Wu et al., "Learning to Invert: Simple Adaptive
    Attacks for Gradient Inversion in Federated Learning", UAI 2023, here with closed forms in place of a network.
    Several images behind an update are told apart as in `posterior_mean`.
    """

    simulates = True
    needs_public: ClassVar[bool] = True

    def check(self, task: Task, labels: str) -> None:
        if task.schedule.images > 1:
            classification_layer(task)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        decoder = self.decoder(observation)
        images, labels = decoder.answer(observation)
        return Reconstruction(images, labels, choices=decoder.choices)

    def decoder(self, observation: Observation) -> Decoder:
        """The decoder that public images teach of this client, learned once."""
        return observation.learn((self, "decoder"), lambda: _learned(observation))


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map of rows of the last layer, scaled to length 1, to images (p,)."""

    task: Task
    view: Callable[[Tensor], Tensor]
    """The function of parts of releases in whose rows it looks."""
    weights: Tensor
    """(m p), of rows from which `centre` (m,) was taken and that were divided by `spread` (m,)."""
    offset: Tensor
    centre: Tensor
    spread: Tensor
    penalty: float
    held: Tensor
    found: Tensor
    """The answers to held-out images, (q p)."""

    @property
    def choices(self) -> dict[str, float]:
        """The penalty that was chosen."""
        return {"penalty": self.penalty}

    def answer(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Images (t b c h w) in [0, 1], and the known labels (t b), of the attacked releases."""
        parts, labels = attacked_parts(observation)
        assert labels is not None, "learned for known labels alone"
        rows = label_rows(self.task, self.view(parts.flatten(0, 1)), labels.flatten())
        images = self.of(rows).view(*parts.shape[:2], *self.task.input_shape)
        return images.to(parts.dtype), labels

    def score(self, shape: tuple[int, ...]) -> float:
        """The mean likeness of the answers to held-out images of this shape."""
        return float(likeness(self.found, self.held, shape).mean())

    def of(self, rows: Tensor) -> Tensor:
        """Images (n p) of rows (n m)."""
        scaled = (_unit(rows.double()) - self.centre) / self.spread
        return (scaled @ self.weights + self.offset).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Decoder:
    """A mixture of decoders: from the first on, a share of each further one is put in the place of what was there."""

    members: tuple[tuple[str, float, Posterior | Ridge], ...]
    """Name, share and decoder."""
    held: Tensor
    """Held-out images, (q p) in [0, 1]."""
    found: Tensor
    """The mixture's answers to them, (q p)."""
    shape: tuple[int, ...]

    @property
    def score(self) -> float:
        """The mean likeness of the held-out images' answers."""
        return float(likeness(self.found, self.held, self.shape).mean())

    @property
    def choices(self) -> dict[str, float]:
        """The figures that were chosen on held-out images, and the score that they got there."""
        chosen = {f"{name}_share": share for name, share, _ in self.members}
        for name, _, member in self.members:
            own = {key: value for key, value in member.choices.items() if key != "held_out_score"}
            chosen |= {f"{name}_{key}": value for key, value in own.items()}
        return chosen | {"held_out_score": self.score}

    def answer(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Images (t b c h w) in [0, 1], and believed labels (t b), of the attacked releases."""
        (_, _, first), *others = self.members
        images, labels = first.answer(observation)
        for _, share, member in others:
            images = (1 - share) * images + share * member.answer(observation)[0]
        return images, labels


def _learned(observation: Observation) -> Decoder:
    clients, task = public_clients(observation), observation.task
    labels_known = observation.labels is not None or observation.images > 1
    sent = PublicReleases.of(observation, clients, "black box")
    found: dict[str, Posterior | Ridge] = {}
    count = held_out(clients, 2 * sent.size)
    units = _in_undefended_units(observation, sent, count)
    views: dict[str, Comparable] = {
        "entries": sent,
        "units": replace(sent, view=units),
        "signs": replace(sent, view=_signs_and_magnitudes),
    }
    if draws_matter(sent):
        views["expected"] = ExpectedReleases.of(observation, sent, count)
    for name, releases in views.items():
        found[name] = learned_posterior(releases, task.classes, labels_known, count)
    if labels_known:
        with suppress(UnsupportedPair):
            found["ridge"] = _ridge(task, replace(sent, view=last_layer_found(observation, sent, count)), count)
    truth, shape = clients.pixels(torch.arange(count)), tuple(task.input_shape)
    worth = lambda images: float(likeness(images, truth, shape).mean())  # noqa: E731
    first, *others = sorted(found, key=lambda name: worth(found[name].found), reverse=True)
    members, mixed = [(first, 1.0, found[first])], found[first].found
    for name in others:
        own = found[name].found
        tried = {share: (1 - share) * mixed + share * own for share in SHARES}
        share = max(tried, key=lambda share: worth(tried[share]))
        if worth(tried[share]) > worth(mixed):
            members.append((name, share, found[name]))
            mixed = tried[share]
    return Decoder(tuple(members), truth, mixed, shape)


def _ridge(task: Task, releases: PublicReleases, count: int) -> Ridge:
    """Ridge regression of the images on the rows of their labels; raises `UnsupportedPair` without such rows."""
    from sklearn.linear_model import Ridge as Regression

    clients, view = releases.clients, releases.view
    numbers, labels = torch.arange(len(clients)), clients.labels
    rows = torch.cat(
        [label_rows(task, view(releases.whole(some)), labels[some]) for some in numbers.split(releases.chunk)]
    )
    rows = _unit(rows.double())
    centre, spread = rows[count:].mean(0), rows[count:].std(0).clamp_min(1e-12)
    features = ((rows - centre) / spread).cpu().numpy()
    truth = clients.pixels(numbers)
    shape = tuple(task.input_shape)
    best: Ridge | None = None
    for penalty in PENALTIES:
        fit = Regression(penalty * (len(rows) - count)).fit(features[count:], truth[count:].cpu().numpy())
        weights, offset = (torch.from_numpy(own).to(rows) for own in (fit.coef_.T.copy(), fit.intercept_))
        found = (torch.from_numpy(features[:count]).to(rows) @ weights + offset).clamp(0, 1)
        own = Ridge(task, view, weights, offset, centre, spread, penalty, truth[:count], found)
        if best is None or own.score(shape) > best.score(shape):
            best = own
    assert best is not None
    return best


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1: the factor before an image's features depends on the label and on how sure the network is."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)


def _in_undefended_units(observation: Observation, releases: PublicReleases, count: int) -> Callable[[Tensor], Tensor]:
    """A view of parts (n m): of each entry the least-squares line to the same entry of the undefended part.

    A public factor of every entry's own would else decide which entries are compared at all: of factors from .01 to 100
    the decoder gained .068 SSIM where it gains .160 undefended (24 digits, 240 public ones), and with this view .160.
    """
    clients, behind = releases.clients, releases.clients.behind
    # Entries on top of a large constant would lose their digits in sums of squares.
    origin, moments = releases.whole(torch.arange(count, count + behind)).double().mean(0), []
    for some in torch.arange(count // behind, len(clients) // behind).split(releases.chunk):
        images = (some[:, None] * behind + torch.arange(behind)).flatten()
        sent, truth = releases.whole(images).double(), undefended_parts(observation, clients, some).double()
        sent = sent - origin
        moments.append(torch.stack([sent.sum(0), truth.sum(0), sent.square().sum(0), (sent * truth).sum(0)]))
    mean, its_mean, square, product = torch.stack(moments).sum(0) / (len(clients) - count)
    slopes = (product - mean * its_mean) / (square - mean.square()).clamp_min(1e-300)
    return lambda parts: ((parts.double() - origin) * slopes).to(parts)


def _signs_and_magnitudes(parts: Tensor) -> Tensor:
    """The signs of entries, and their magnitudes by the mean magnitude, side by side."""
    size = parts.abs()
    return torch.cat([parts.sign(), size / size.mean(1, keepdim=True).clamp_min(1e-30)], 1)
