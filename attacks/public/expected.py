"""The releases of public clients that are to be expected, of a defense that adds noise and says nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.observation import Observation
from attacks.public.clients import PublicClients, PublicReleases, undefended_parts
from attacks.public.clouds import FITTED, principal_axes

AXES = 200
"""Principal directions of undefended gradients along which releases are compared."""
REGRESSION_PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Weights of the ridge penalty on features of variance 1; leaving out one client at a time chooses, for each axis."""
FOLDS = 5
"""Parts of the clients, each foretold by what the others teach."""
LEAST_NOISE = 1e-3
"""Least standard deviation that counts as noise, by that of the releases: the regression knows no more digits."""
_TWICE = 4
"""Clients that are run twice to see whether their draws matter."""


@dataclass(frozen=True, eq=False)
class ExpectedReleases:
    """The expected parts of public clients' releases, by regression of what was sent on undefended gradients.

    A release is a draw: in the principal directions of releases noise drowns a gradient of thousands of entries, and
    averages over draws cost a run of the client each. The server knows what an undefended client would send, so it
    looks along the principal directions d_k of those gradients g: each coordinate of a release there is regressed on
    those of g and of g / |g|, whose factors are what clipping and scaling leave, of the same direction or of all,
    whichever leaves less over on held-out clients. That rest is the noise, of variance 1 in the units of this class.
    """

    clients: PublicClients
    """The clients."""
    axes: Tensor
    """Orthonormal directions (k m)."""
    unit: Tensor
    """Standard deviation of the noise along each, (k,)."""
    sent: Tensor
    """The coordinates (n k) of the releases that were sent, in units of the noise."""
    expected: Tensor
    """The coordinates (n k) that were expected of them, in units of the noise."""
    noise: float = 1.0
    """The variance of the noise that is left out of every expected coordinate; less where hardly any was found."""

    @classmethod
    def of(cls, observation: Observation, sent: PublicReleases, count: int) -> ExpectedReleases:
        """The expectations of the releases that a black box `sent`; the first `count` images are held out."""
        clients = sent.clients
        numbers, behind = torch.arange(len(clients)), clients.behind
        whole = torch.arange(len(clients) // behind)
        fitted = whole[count // behind : (count + FITTED) // behind]
        base = torch.cat([undefended_parts(observation, clients, some) for some in fitted.split(sent.chunk)])
        axes, _ = principal_axes(base - base.mean(0), AXES)
        # Computed again, some at a time: a second table would be as large as that of the releases.
        plain = (undefended_parts(observation, clients, some) for some in whole.split(sent.chunk))
        along = lambda parts: torch.cat([part @ axes.T for part in parts]).double()  # noqa: E731
        seen, gradients = along(sent.parts(numbers)), along(plain)
        features = torch.stack([gradients, gradients / gradients.norm(dim=1, keepdim=True).clamp_min(1e-30)], 2)
        features = (features - features[count:].mean(0)) / features[count:].std(0).clamp_min(1e-30)
        fits = [fit(features, seen, count) for fit in (_by_the_same_axis, _by_all_axes)]
        noises = [(seen[:count] - fit[:count]).square().mean(0) for fit in fits]
        expected, noise = min(zip(fits, noises, strict=True), key=lambda own: float(own[1].sum()))
        noise = noise.sqrt()
        unit = noise.clamp_min(LEAST_NOISE * float(seen.std(0).max())).clamp_min(1e-30)
        return cls(clients, axes, unit, seen / unit, expected / unit)

    @property
    def size(self) -> int:
        """Numbers in the view of an image's part."""
        return len(self.axes)

    def view(self, parts: Tensor) -> Tensor:
        """The coordinates (n k) of parts (n m) of releases."""
        return (parts @ self.axes.T).double() / self.unit

    def parts(self, numbers: Tensor) -> Iterator[Tensor]:
        """The coordinates (n k) that are expected of clients of these images."""
        yield self.expected[numbers.to(self.expected.device)]

    def held(self, numbers: Tensor) -> Tensor:
        """The coordinates (n k) of what clients of these images sent."""
        return self.sent[numbers.to(self.sent.device)]


def draws_matter(sent: PublicReleases) -> bool:
    """True if a client of the same images sends another release with another seed."""
    count = min(_TWICE, len(sent.clients) // sent.clients.behind)
    images, labels = sent.clients.dealt(torch.arange(count))
    first, second = (sent.send(images, labels, range(start, start + count)) for start in (0, count))
    return not torch.equal(first, second)


def _by_the_same_axis(features: Tensor, sent: Tensor, count: int) -> Tensor:
    """The expectation of coordinates (n k) by features (n k 2) of the same axis, learned without the first `count`."""
    middle, known = sent[count:].mean(0), features[count:].transpose(0, 1)
    squares = known.mT @ known + 1e-9 * len(known[0]) * torch.eye(2, dtype=known.dtype, device=known.device)
    along = known.mT @ (sent[count:] - middle).T[..., None]
    weights = torch.cholesky_solve(along, torch.linalg.cholesky(squares))[..., 0]
    return middle + (features * weights).sum(2)


def _by_all_axes(features: Tensor, sent: Tensor, count: int) -> Tensor:
    """The same by the features of all axes, for defenses that mix them; no client helps to foretell its own release."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.model_selection import cross_val_predict

    flat, truth = features.flatten(1).cpu().numpy(), sent[count:].cpu().numpy()
    fit = RidgeCV([own * (len(sent) - count) for own in REGRESSION_PENALTIES], alpha_per_target=True)
    fit.fit(flat[count:], truth)
    again = Ridge().set_params(alpha=np.asarray(fit.alpha_) * (1 - 1 / FOLDS))
    others = np.asarray(cross_val_predict(again, flat[count:], truth, cv=FOLDS))
    return torch.from_numpy(np.concatenate([np.asarray(fit.predict(flat[:count])), others])).to(sent)
