"""Gradient matching that begins at the posterior mean and keeps to what public images near it look like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.func import vjp, vmap

from attacks.attack import Attack, Reconstruction, UnsupportedPair
from attacks.engine.descent import Adam, LaneGradient, descend
from attacks.engine.execution import known_chunk
from attacks.engine.lanes import Lanes
from attacks.engine.solve import Descended
from attacks.labels import classification_layer
from attacks.learned.black_box_decoder import BlackBoxDecoder, Decoder
from attacks.learned.posterior_mean import PosteriorMean
from attacks.matching.distances import cosine_distance, gaussian_likelihood
from attacks.matching.problem import MatchingProblem
from attacks.matching.simulation import is_drawn, slots
from attacks.observation import Observation
from attacks.public.clients import CHOSEN_ON, public_clients
from attacks.public.posterior import Posterior, likeness
from attacks.public.prior import PARTS_OF_ALL, Neighbourhoods, energy
from defenses.task import Task

COSINE_SCALE = 2e-6
"""Cosine distance that is worth a nat where no noise is stated: about what rounding and the descent leave over."""
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the way from the start to the end of the descent of which held-out public clients choose one."""
TRIED = 40
"""Images of held-out public clients by which that and the prior's part of all images are chosen."""
APART = 0.5
"""Standard deviations by which starts of equal labels in a batch are drawn apart."""


@dataclass(frozen=True)
class InformedMatching(Attack):
    """Refine the posterior mean by the likelihood of the release and a Gaussian prior of public images near it.

    The start x_0 is the answer of `posterior_mean` or of `black_box_decoder`, whichever held-out public images find
    better. Around each image the prior is Gaussian, with mean and covariance of the public images of its label nearest
    to x_0, the covariance mixed with that of the label and that of all (`attacks.public.prior`). The search moves in
    coordinates z in which that prior is standard normal, x = mean + B z:

        minimise -log p(release | x) + |z|^2 / 2    by Adam, its rate falling from `learning_rate` by half a cosine.

    Where the defense states its noise, log p is that of the Gaussian; elsewhere it is the cosine distance of the
    updates over 2e-6, with what the surrogate says of the release beside it. A maximum a posteriori estimate as in
    Balunovic et al., "Bayesian Framework for Gradient Leakage", ICLR 2022; whitened coordinates for such a search are
    those of Kaipio & Somersalo, "Statistical and Computational Inverse Problems", 2005, section 3.

    Where nobody has written a surrogate the search compares undefended updates; a defense that is none then leaves the
    start as the answer.

    The answer lies on the way from the start to the end of the descent, as far along as helps held-out public clients:
    under strong noise that is the start itself, where a mode says less than a mean. They also choose the part of the
    covariance that is that of all images: the more a release tells, the more a wide prior leaves to it.
    """

    simulates = True
    needs_public: ClassVar[bool] = True

    iterations: int = 300
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        _ = self._adam

    def check(self, task: Task, labels: str) -> None:
        if task.schedule.images > 1:
            classification_layer(task)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        start, (part_of_all, blend) = self._start(observation), self._choice(observation)
        images, labels = start.answer(observation)
        choices = {f"start_{name}": value for name, value in start.choices.items()}
        choices |= {"part_of_all": part_of_all, "blend": blend}
        if not blend:
            return Reconstruction(images, labels, choices=choices)
        search = _Search.around(observation, images, labels, part_of_all)
        found, descent = search.run(self._adam)
        if blend < 1:
            # On the way no objective is at its least, by choice: none is told.
            return Reconstruction(images + blend * (found - images), labels, choices=choices)
        return Reconstruction(found, labels, search.at(found), descent.start, descent.trace, choices=choices)

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        part_of_all, blend = self._choice(observation)
        if blend < 1:
            return None
        start = self._start(observation).answer(observation)
        return _Search.around(observation, *start, part_of_all).at(images, labels)

    @property
    def _adam(self) -> Adam:
        return Adam(self.iterations, self.learning_rate, betas=(0.9, 0.99), annealed=True)

    def _start(self, observation: Observation) -> Posterior | Decoder:
        """The better of the learned starts on held-out public images; the first of equal ones."""
        starts: list[Posterior | Decoder] = []
        reasons: list[str] = []
        for learned in (PosteriorMean().posterior, BlackBoxDecoder().decoder):
            try:
                starts.append(learned(observation))
            except UnsupportedPair as reason:
                reasons.append(str(reason))
        if not starts:
            raise UnsupportedPair("; ".join(dict.fromkeys(reasons)))
        return max(starts, key=lambda start: start.score)

    def _choice(self, observation: Observation) -> tuple[float, float]:
        """The prior's part of all images, and the part of the way, that are best for held-out public clients."""
        return observation.learn((self, "choice"), lambda: self._best(observation))

    def _best(self, observation: Observation) -> tuple[float, float]:
        start, clients = self._start(observation), public_clients(observation)
        # None of those that the start has learned from: it would know them too well for the search to help.
        count = max(1, min(TRIED, len(start.held)) // clients.behind)
        seen, truth = clients.observed(observation, count)
        images, labels = start.answer(seen)
        shape, worth = tuple(truth.shape[2:]), dict[tuple[float, float], float]()
        for part_of_all in PARTS_OF_ALL:
            found = _Search.around(seen, images, labels, part_of_all).run(self._adam)[0]
            for blend in BLENDS:
                worth[part_of_all, blend] = float(likeness(images + blend * (found - images), truth, shape).mean())
        return max(worth, key=worth.__getitem__)


@dataclass(frozen=True, eq=False)
class _Search:
    """The descent of an observation's images in the coordinates of the prior around where they start."""

    problem: MatchingProblem
    nats: float
    """Nats that a unit of the problem's distance is worth."""
    prior: Neighbourhoods
    start: Tensor
    """Images (t b p), slot by slot."""
    labels: Tensor
    """The slots' labels (t b)."""

    @classmethod
    def around(cls, observation: Observation, images: Tensor, labels: Tensor, part_of_all: float) -> _Search:
        """The search that begins at images (t b c h w) of labels (t b), with this part of all images in its prior."""
        task, known = observation.task, observation.defense
        std = 0.0 if known is None else known.noise_std / task.schedule.update_scale
        numbers = sum(p.numel() for p in task.model.parameters())
        distance, nats = (gaussian_likelihood(std**2), float(numbers)) if std else (cosine_distance, 1 / COSINE_SCALE)
        if observation.each is not None:
            nats *= observation.threat.releases  # The objectives of all releases add; the problem averages them.
        # Whatever the threat model says of labels, here they are taken for known.
        seen = replace(observation, labels=labels, threat=replace(observation.threat, labels="known"))
        order = slots(task).to(labels.device)
        prior = observation.learn("neighbourhoods", lambda: _neighbourhoods(observation))
        prior = replace(prior, part_of_all=part_of_all)
        return cls(MatchingProblem(seen, distance), nats, prior, images.flatten(2)[:, order], labels[:, order])

    def run(self, adam: Adam) -> tuple[Tensor, Descended]:
        """The images (t b c h w) at the end, in the order of the labels, and the descent."""
        around = self.prior.evidence(self.start, self.labels)
        coordinates = self._apart(self.prior.coordinates(self.start, around))
        forms = {name: self._whitened(form) for name, form in self.problem.gradients.items()}
        evidence = self.problem.evidence(1) | around
        found = descend(self.objective, coordinates, evidence, adam, signed=False, box=None, gradients=forms)
        images = vmap(self.prior.image)(found.variables, around)[:, slots(self._task).argsort().to(self.start.device)]
        return images.unflatten(2, self._task.input_shape).clamp(0, 1), found

    def at(self, images: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """The objective (t,) at images (t b c h w) in [0, 1] of labels (t b), those of the search unless told.

        None where several local batches were drawn in an order that nobody knows: then no order is the truth's.
        """
        if is_drawn(self._task):
            return None
        if labels is not None:
            # In the order of the search, whose slots are sorted by label.
            order = labels.argsort(dim=1, stable=True)
            images = images.gather(1, order[..., None, None, None].expand_as(images))
            labels = labels.gather(1, order)
        around = self.prior.evidence(self.start, self.labels)
        evidence = self.problem.evidence(1) | around | ({} if labels is None else {"labels": labels})
        return vmap(self.objective, chunk_size=known_chunk())(
            self.prior.coordinates(images.flatten(2), around), evidence
        )

    def objective(self, coordinates: Lanes, evidence: Lanes) -> Tensor:
        """The negative log posterior of one lane's coordinates, a scalar in nats up to a constant."""
        return self.nats * self.problem.objective(self._normalised(coordinates, evidence), evidence) + energy(
            coordinates
        )

    def _whitened(self, form: LaneGradient) -> LaneGradient:
        """The same form of the gradient, by coordinates instead of images."""

        def gradient(coordinates: Lanes, evidence: Lanes) -> tuple[Lanes, Tensor]:
            images, back, *_ = vjp(lambda coordinates: self._normalised(coordinates, evidence), coordinates)
            slopes, value = form(images, evidence)
            along = back(slopes)[0]
            return {name: self.nats * along[name] + z for name, z in coordinates.items()}, self.nats * value + energy(
                coordinates
            )

        return gradient

    def _normalised(self, coordinates: Lanes, evidence: Lanes) -> Lanes:
        images = self.prior.image(coordinates, evidence).unflatten(1, self._task.input_shape)
        return {"images": self._task.normalise(images)}

    def _apart(self, coordinates: Lanes) -> Lanes:
        """Coordinates of images of one label, which start alike, drawn apart: else they would stay alike."""
        earlier = self.labels[:, :, None] == self.labels[:, None, :]
        repeated = earlier.tril(-1).any(2)[..., None]
        rng = Generator().manual_seed(2)
        draws = {name: torch.randn(z.shape[1:], generator=rng).to(z) for name, z in coordinates.items()}
        return {name: torch.where(repeated, z + APART * draws[name], z) for name, z in coordinates.items()}

    @property
    def _task(self) -> Task:
        return self.problem.observation.task


def _neighbourhoods(observation: Observation) -> Neighbourhoods:
    """The neighbourhoods of the public images on which nothing is tried."""
    clients, like = public_clients(observation), next(iter(observation.params.values()))
    tried = min(CHOSEN_ON, len(clients) // 4)
    return Neighbourhoods.of(clients.images[tried:].flatten(1).to(like) / 255, clients.labels[tried:])
