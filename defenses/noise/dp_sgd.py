"""DP-SGD, with Opacus itself doing the per-example gradients, the clipping and the noise."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from opacus.grad_sample.utils import wrap_model
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import Generator, Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from defenses.accounting import Guarantee, gaussian_guarantee
from defenses.defense import Defense
from defenses.noise.norm_clipping import NormClipping
from defenses.schedule import Schedule
from defenses.surrogate import Loss, Surrogate
from defenses.task import Batch, Params, Task, Update, local_training


@dataclass(frozen=True)
class DpSgd(Defense):
    """Clip every example's gradient to `clip_norm`, sum, add noise of deviation noise_multiplier x clip_norm, average.

    Abadi et al., "Deep Learning with Differential Privacy", CCS 2016, algorithm 1. With local epochs every local
    step is clipped and noised. BatchNorm mixes examples, so `prepare` replaces it by Opacus' own fix (GroupNorm).
    """

    clip_norm: float = 1.0
    noise_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm < float("inf"):
            raise ValueError(f"clip_norm must be positive and finite, got {self.clip_norm}")
        if not 0 <= self.noise_multiplier < float("inf"):
            raise ValueError(f"noise_multiplier must be at least 0 and finite, got {self.noise_multiplier}")

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model without BatchNorm and in-place activations; raises ValueError naming a layer Opacus refuses."""
        fixed = ModuleValidator.fix(model)
        for module in fixed.modules():
            if getattr(module, "inplace", False):
                setattr(module, "inplace", False)  # noqa: B010
        for name, module in fixed.named_modules():
            refused = [e for check in [ModuleValidator.VALIDATORS.get(type(module))] if check for e in check(module)]
            has_private_buffers = _owns_parameters(module) and any(True for _ in module.buffers(recurse=False))
            if refused or has_private_buffers:
                why = refused[0] if refused else "it keeps buffers, which would not be private"
                raise ValueError(f"dp_sgd cannot train layer {name!r} ({type(module).__name__}): {why}")
        return fixed.train(model.training)

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        gradient = partial(self._private_gradient, task, rng)
        return local_training(task, params, batch, rng, gradient)

    def share_many(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        """One pass of Opacus over the examples of all clients, then each client's own clipping, noise and mean."""
        if not task.schedule.sends_gradient:  # Every client has weights of its own from the second step on.
            pairs = zip(batches.images, batches.labels, rngs, strict=True)
            sent = [self.share(task, params, Batch(images, labels), rng) for images, labels, rng in pairs]
        else:
            sent = self._gradients(task, params, batches, rngs)
        return {name: torch.stack([update[name] for update in sent]) for name in params}

    def surrogate(self, task: Task) -> Surrogate:
        """The clipping is simulated example by example; the noise of all local steps adds up in the release."""
        schedule = task.schedule
        sizes = [part.stop - part.start for part in schedule.local_batches] * max(1, schedule.epochs)
        per_step = [self.noise_multiplier * self.clip_norm / size for size in sizes]
        rate = 1.0 if schedule.sends_gradient else schedule.learning_rate
        noise_std = rate * sum(std**2 for std in per_step) ** 0.5
        if schedule.sends_gradient and schedule.images == 1:
            return Surrogate(predict=NormClipping(self.clip_norm).clipped, noise_std=noise_std)
        return Surrogate(gradient=self._clipped_gradient, noise_std=noise_std)

    def privacy(self, schedule: Schedule, rounds: int, delta: float) -> Guarantee | None:
        """The guarantee of each image that takes part in `rounds` updates; without noise there is none.

        Sampling rate 1: the server knows when the client takes part, and its local batches are a partition, not drawn
        independently. Opacus' clipping never exceeds `clip_norm`, so an image moves a step's sum by at most that.
        """
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        if self.noise_multiplier == 0:
            return None
        # The order of an epoch is drawn without looking at the images. Whatever it is, an image has one place in it and
        # enters one sum of the epoch; given the weights so far, the other steps are the same with it and without it. So
        # an epoch is one Gaussian mechanism for that image, for every order, hence for their mixture: the divergence
        # behind (epsilon, delta) is jointly convex. The sum of an emptied place is divided by the same batch size.
        found = gaussian_guarantee(self.noise_multiplier, rounds * max(1, schedule.epochs), delta)
        # A later local step depends on the client's own noise of the earlier ones: only a single step is a mere sum.
        return replace(found, summable=schedule.steps == 1)

    def _clipped_gradient(self, loss: Loss, params: Params, images: Tensor, labels: Tensor) -> Update:
        """The mean of the examples' clipped gradients, differentiable; labels (b,) or probabilities (b classes)."""

        def of_one(image: Tensor, label: Tensor) -> Update:
            return NormClipping(self.clip_norm).clipped(grad(loss)(params, image[None], label[None]))

        return {name: g.mean(0) for name, g in vmap(of_one)(images, labels).items()}

    def _private_gradient(self, task: Task, rng: Generator, params: Params, batch: Batch) -> Update:
        return self._gradients(task, params, Batch(batch.images[None], batch.labels[None]), [rng])[0]

    def _gradients(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> list[Update]:
        """The private mean gradient of each of t batches, images (t b c h w), under the same weights."""
        try:
            return self._by_opacus(task, params, batches, rngs, "hooks")
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            # Residual sums in place (torchvision's ResNet, DenseNet) break the hooks; nothing was drawn yet.
            return self._by_opacus(task, params, batches, rngs, "ew")

    def _by_opacus(
        self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator], grad_sample_mode: str
    ) -> list[Update]:
        private = deepcopy(task.model)
        own = dict(private.named_parameters())
        with torch.no_grad():
            for name, p in params.items():
                own[name].copy_(p)
        # Opacus records nothing in eval mode; dropout and the like, which own no weights, stay switched off.
        for module in private.modules():
            module.training = _owns_parameters(module) or module is private
        size = batches.labels.shape[1]
        with warnings.catch_warnings():
            # torch warns of hooks on inputs that need no gradient, Opacus of a generator that is not secure.
            warnings.simplefilter("ignore")
            wrapped: Any = wrap_model(private, grad_sample_mode=grad_sample_mode, loss_reduction="mean")
            optimizer = DPOptimizer(
                torch.optim.SGD(wrapped.parameters(), lr=1.0),
                noise_multiplier=self.noise_multiplier,
                max_grad_norm=self.clip_norm,
                expected_batch_size=size,
                loss_reduction="mean",
            )
            F.cross_entropy(wrapped(batches.images.flatten(0, 1)), batches.labels.flatten(0, 1)).backward()
            found = {name: getattr(p, "grad_sample", None) for name, p in own.items()}
            examples = {name: of_all for name, of_all in found.items() if of_all is not None}
            sent: list[Update] = []
            for client, rng in enumerate(rngs):
                optimizer.zero_grad()
                for name, of_all in examples.items():
                    setattr(own[name], "grad_sample", of_all[client * size : (client + 1) * size])  # noqa: B010
                optimizer.generator = rng
                optimizer.pre_step()
                sent.append({name: own[name].grad.clone() for name in examples})  # pyright: ignore[reportOptionalMemberAccess]
        return sent


def _owns_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
