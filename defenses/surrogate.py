"""What an attacker who knows a defense simulates in the client's place, and what it makes of the released update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from defenses.client import Params, Update

Loss = Callable[[Params, Tensor, Tensor], Tensor]
"""Of weights, images (b c h w) in [0, 1] and labels (b,) or probabilities (b classes), the mean cross-entropy."""
Released = Callable[[Update], Update]
"""Of one client's update, another of the same names and shapes."""


@dataclass(frozen=True)
class Surrogate:
    """A defense as its attacker computes it for one client; every function is traceable by torch.func.

    An attack on a client whose defense it knows compares `predict` of the dummy's update with what was released, on the
    coordinates that the release shows to be kept. The default is that of a defense which needs no adapting to.

    - `gradient(loss, params, images, labels)`: what replaces the mean gradient in every local step.
    - `predict(update)`: a differentiable stand-in of what the defense does to an update.
    - `keep(observed)`: 1 for every coordinate of the released update that tells something, else 0. It takes the place
      of `predict` wherever the release still shows what was kept; what a later part does is then predicted from the
      whole update, so that its norm is only nearly right.
    - `penalty(predicted, observed)`: a scalar, in units of the squared distance of updates of norm 1, for what the
      coordinates that are not kept say all the same.
    - `noise_std`: the standard deviation of Gaussian noise on every coordinate of the released update.
    """

    gradient: Callable[[Loss, Params, Tensor, Tensor], Update] | None = None
    predict: Released | None = None
    keep: Released | None = None
    penalty: Callable[[Update, Update], Tensor] | None = None
    noise_std: float = 0.0


def composed(share: Surrogate, transforms: list[Surrogate]) -> Surrogate | None:
    """The surrogate of a chain: of what computes an update, then of what changes it; None where nobody knows one.

    Noise hides which coordinates an earlier part kept, so that part is predicted instead; noise that is changed
    afterwards is no Gaussian any more.
    """
    predictions = [] if share.predict is None else [share.predict]
    keep, penalty, variance = None, None, share.noise_std**2
    noisy_later = [any(later.noise_std for later in transforms[i + 1 :]) for i in range(len(transforms))]
    for part, noisy in zip(transforms, noisy_later, strict=True):
        if part.keep is not None and not noisy:
            if keep is not None:
                return None
            keep, penalty = part.keep, part.penalty
            continue
        if part.predict is not None:
            if variance:
                return None
            predictions.append(part.predict)
        variance += part.noise_std**2

    def predict(update: Update) -> Update:
        for one in predictions:
            update = one(update)
        return update

    return Surrogate(share.gradient, predict if predictions else None, keep, penalty, variance**0.5)
