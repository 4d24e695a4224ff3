"""The mean of public images, each weighed by the likelihood of the release: no optimiser, and no simulated descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from attacks.attack import Attack, Reconstruction
from attacks.labels import classification_layer
from attacks.observation import Observation
from attacks.public.clients import PublicReleases, Source, public_clients
from attacks.public.posterior import Posterior, held_out, learned_posterior
from defenses.task import Task


@dataclass(frozen=True)
class PosteriorMean(Attack):
    """Average public images with the likelihood of the release under each as their weight.

    A client of one image x sends r = g(x) + noise, with g as the surrogate says. The posterior mean has the least
    expected squared error of all answers (Kay, "Estimation Theory", 1993, section 11.4); a prior of public records is
    that of Balle et al., "Reconstructing Training Data with Informed Adversaries", IEEE S&P 2022. Here the prior is a
    kernel estimate around the n public images x_i of the label, of mean m: x = m + sqrt(1 - s) (x_i - m) + sqrt(s) e,
    where e has their covariance, so that mean and covariance are those of the images at every smoothing s (Silverman,
    "Density Estimation", 1986, section 6.4). With a_i and b the coordinates of g(x_i) and r in the principal directions
    of the g(x_i), centred, l their variances, c their covariances with the pixels, and v the variance of the noise,

        w_i ~ exp(-sum_k (b_k - sqrt(1 - s) a_ik)^2 / (2 t_k)),    t_k = v + s l_k,
        answer = m + sum_i w_i (sqrt(1 - s) (x_i - m) + sum_k (s c_k / t_k) (b_k - sqrt(1 - s) a_ik)).

    Half-way between each image and its nearest ones lie further x_i, whose releases are taken to lie half-way too
    (after Chawla et al., "SMOTE", JAIR 2002). s = 0 is the weighted mean alone, s = 1 the linear estimate of a Gaussian
    prior. v is the variance that the surrogate states, times a temperature; where it states none, a part of the squared
    distance from held-out public releases to their nearest neighbours. What the client sends of 500 held-out images
    chooses smoothing and temperature by SSIM (by squared error where a side is under 11 pixels); where the surrogate's
    word for it is wrong that leaves the mean of the label. Where labels are not known,
    the public images of all labels are one cloud, and the label with the largest weight is the answer.

    Of several images behind an update each is told by the row of its label in the last layer, as it is in updates of
    public clients of as many images with different labels; the others' part in the row counts as noise. Where nobody
    has written a surrogate g is what the client's own code sends, draws and all.
    """

    simulates = True
    needs_public: ClassVar[bool] = True

    def check(self, task: Task, labels: str) -> None:
        if task.schedule.images > 1:
            classification_layer(task)

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        posterior = self.posterior(observation)
        images, labels = posterior.answer(observation)
        return Reconstruction(images, labels, choices=posterior.choices)

    def posterior(self, observation: Observation) -> Posterior:
        """The posterior that public images teach of this client, learned once."""
        known = observation.defense
        simulated = not observation.threat.defense_known if known is None else known.sent is not None
        source: Source = "surrogate" if simulated else "black box"

        def learned() -> Posterior:
            # Of several images each needs a label, and gets it by rule where none is given.
            labels_known = observation.labels is not None or observation.images > 1
            clients = public_clients(observation)
            releases = PublicReleases.of(observation, clients, source)
            count = held_out(clients, releases.size)
            return learned_posterior(releases, observation.task.classes, labels_known, count)

        return observation.learn((self, source), learned)
