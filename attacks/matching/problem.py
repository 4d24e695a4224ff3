"""Gradient matching: the objective, its variables, the search from several starts, and the restart that is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vmap
from torch.nn import functional as F

from attacks.attack import Reconstruction
from attacks.engine.descent import Adam, LaneGradient, descend
from attacks.engine.execution import current, known_chunk
from attacks.engine.lanes import Lanes, normal_starts
from attacks.engine.solve import Descended
from attacks.labels import recovered_labels
from attacks.matching.distances import Distance, Measure, adapted, noise_prior_weight
from attacks.matching.priors import ImagePrior, total_variation
from attacks.matching.simulation import (
    ORDERS,
    GradientRule,
    drawn_orders,
    is_drawn,
    loss_of,
    pulled_back,
    simulated_update,
    slots,
)
from attacks.observation import Observation, gradient_scale
from defenses.surrogate import Loss
from defenses.task import Params, Update


def descended(
    problem: MatchingProblem, seeds: list[int], restarts: int, adam: Adam, *, signed: bool, boxed: bool
) -> Reconstruction:
    """The answer to every trial of a descent from `restarts` starts each, `boxed` in the valid pixels."""
    start, evidence = problem.start(seeds, restarts), problem.evidence(restarts)
    box = problem.box() if boxed else None
    found = descend(problem.objective, start, evidence, adam, signed=signed, box=box, gradients=problem.gradients)
    return problem.best(found, evidence, restarts)


def best_restart(observation: Observation, found: Descended, evidence: Lanes, restarts: int) -> Reconstruction:
    """Each trial's restart with the lowest objective of the attack; the truth has no say.

    `found` and `evidence` are of the descent, its lanes trials x restarts, trial by trial.
    """
    trials = observation.trials
    # A restart that left the real numbers must never win by comparing as smallest.
    ranked = found.objective.nan_to_num(nan=float("inf")).view(trials, restarts)
    lane = ranked.argmin(dim=1) + torch.arange(trials, device=ranked.device) * restarts
    images = observation.task.denormalise(found.variables["images"][lane]).clamp(0, 1)
    logits = found.variables.get("logits")
    labels = evidence["labels"][lane] if logits is None else logits[lane].argmax(-1)
    trace = {i: value[lane] for i, value in found.trace.items()}
    return Reconstruction(images, labels, found.objective[lane], found.start[lane], trace)


@dataclass(frozen=True)
class MatchingProblem:
    """The search for images whose simulated update is close to the observed one.

    Where the observation knows the defense, the update is simulated as its surrogate says.
    """

    observation: Observation
    """Everything that the attacker knows."""
    distance: Distance | Measure | None
    """Compares a simulated with the observed update; None leaves the update out (the prior alone)."""
    tv_weight: float = 0.0
    """Weight of the `variation`; above 0, known noise of the defense adds to it."""
    image_prior: ImagePrior | None = None
    """A term of the objective beside the variation."""
    variation: Callable[[Tensor], Tensor] = total_variation
    """Roughness of images (b c h w) in normalised space, a scalar."""
    orders: int = ORDERS
    """Orders of local batches over which the predicted update is averaged where the client's is not known; 1 keeps the
    dummy's own."""

    def objective(self, variables: Lanes, evidence: Lanes) -> Tensor:
        """The variables of one lane: "images" (b c h w) in normalised space and, when joint, "logits" (b classes)."""
        if self.distance is None:
            return self._prior(variables, evidence)
        images, labels = self._dummy(variables, evidence)
        task, orders = self.observation.task, evidence.get("orders")
        update = simulated_update(task, self._weights(evidence), images, labels, self._rule, orders)
        return self._mismatch(update, evidence) + self._prior(variables, evidence)

    @property
    def gradients(self) -> dict[str, LaneGradient]:
        """The exact forms of the objective's gradient that this problem has, the plain one first."""
        forms: dict[str, LaneGradient] = {"double_backward": grad_and_value(self.objective)}
        if self.distance is None:
            return forms
        if self.observation.task.schedule.sends_gradient:
            known = self.observation.defense
            by_example = known is not None and known.gradient is not None
            return forms if by_example else forms | {"forward_over_reverse": self._forward_over_reverse}
        return forms | {"checkpointed": self._checkpointed}

    def _forward_over_reverse(self, variables: Lanes, evidence: Lanes) -> tuple[Lanes, Tensor]:
        """The gradient through the directional derivative of the loss along the mismatch's slope.

        With g the gradient of the loss by the weights and v = dD/dg, the chain rule gives dD/dx = d/dx (g . v), and
        g . v is the derivative of the loss when the weights move along v (Pearlmutter, "Fast Exact Multiplication by
        the Hessian", 1994): no graph of a backward pass is kept.
        """

        def loss(weights: Params, variables: Lanes) -> Tensor:
            images, labels = self._dummy(variables, evidence)
            return self._loss(weights, images, labels)

        weights = self._weights(evidence)
        slope, value = grad_and_value(self._mismatch)(grad(loss)(weights, variables), evidence)
        along = lambda variables: jvp(lambda w: loss(w, variables), (weights,), (slope,))[1]  # noqa: E731
        return self._with_prior(grad(along)(variables), value, variables, evidence)

    def _checkpointed(self, variables: Lanes, evidence: Lanes) -> tuple[Lanes, Tensor]:
        task, weights = self.observation.task, self._weights(evidence)
        slope = lambda update: grad_and_value(self._mismatch)(update, evidence)  # noqa: E731
        dummy = lambda variables: self._dummy(variables, evidence)  # noqa: E731
        slopes, value = pulled_back(task, self._rule, weights, dummy, variables, slope, evidence.get("orders"))
        return self._with_prior(slopes, value, variables, evidence)

    def _with_prior(self, slopes: Lanes, value: Tensor, variables: Lanes, evidence: Lanes) -> tuple[Lanes, Tensor]:
        own, prior = grad_and_value(self._prior)(variables, evidence)
        return {name: slopes[name] + own[name] for name in slopes}, value + prior

    def _prior(self, variables: Lanes, evidence: Lanes) -> Tensor:
        images, weight, seen = variables["images"], self.tv_weight, self.observation
        if seen.defense is not None and seen.defense.noise_std and weight and self.distance is not None:
            observed, scale = _observed(evidence), seen.task.schedule.update_scale
            weight = weight + noise_prior_weight(self.distance, seen.defense, observed, scale, images.numel())
        value = weight * self.variation(images)
        own = self.image_prior
        return value if own is None else value + own(self._weights(evidence), images, evidence)

    def _dummy(self, variables: Lanes, evidence: Lanes) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and the labels that go with them."""
        labels = variables["logits"].softmax(-1) if "logits" in variables else evidence["labels"]
        return self.observation.task.denormalise(variables["images"]), labels

    def _mismatch(self, update: Update, evidence: Lanes) -> Tensor:
        """The distance to the release; the mean over all where each says something of its own."""
        each = _observed(evidence, "each")
        if not each:
            return self._mismatch_of(update, _observed(evidence))
        return vmap(partial(self._mismatch_of, update))(each).mean()

    def _mismatch_of(self, update: Update, observed: Update) -> Tensor:
        assert self.distance is not None, "the prior alone has nothing to match"
        known = self.observation.defense
        scale = self.observation.task.schedule.update_scale
        in_gradients = lambda update: {n: u / scale for n, u in update.items()} if scale != 1 else update  # noqa: E731
        if known is None:
            return self.distance(in_gradients(update), observed)
        released = {name: o * scale for name, o in observed.items()} if scale != 1 else observed
        value = self.distance(in_gradients(known.predict(update, released)), observed)
        if known.penalty is None:
            return value
        return adapted(self.distance).penalised(value, known.penalty(update, released), observed)

    def _weights(self, evidence: Lanes) -> Params:
        """The lane's own weights where every trial has some, else those of all."""
        params = self.observation.params
        return {name: evidence[f"params.{name}"] for name in params} if self.observation.own_weights else params

    @property
    def _loss(self) -> Loss:
        return loss_of(self.observation.task, current().precision)

    @property
    def _rule(self) -> GradientRule:
        known = self.observation.defense
        return grad(self._loss) if known is None or known.gradient is None else partial(known.gradient, self._loss)

    def evidence(self, restarts: int) -> Lanes:
        """The evidence that the objective of each lane is judged by, updates in the scale of a mean gradient.

        Lanes are trials x restarts, trial by trial.
        """
        seen = self.observation
        scale = gradient_scale(seen)
        told = {"update": seen.updates, "each": seen.each or {}}
        lanes = {
            f"{kind}.{name}": u / scale.view(-1, *[1] * (u.dim() - 1))
            for kind in told
            for name, u in told[kind].items()
        }
        if seen.own_weights:
            lanes |= {f"params.{name}": p for name, p in seen.params.items()}
        if self.image_prior is not None:
            lanes |= seen.batch_statistics or {}
        if seen.threat.labels != "joint":
            labels = recovered_labels(seen) if seen.labels is None else seen.labels
            lanes["labels"] = labels[:, slots(seen.task)]
        if is_drawn(seen.task) and self.orders != 1:
            lanes["orders"] = drawn_orders(seen.task, self.orders).to(seen.device).expand(seen.trials, -1, -1, -1)
        return {name: v.repeat_interleave(restarts, dim=0) for name, v in lanes.items()}

    def start(self, seeds: list[int], restarts: int) -> Lanes:
        """Standard normal images in normalised space and, when joint, standard normal label logits."""
        seen = self.observation
        shapes: dict[str, tuple[int, ...]] = {"images": (seen.images, *seen.task.input_shape)}
        if seen.threat.labels == "joint":
            shapes["logits"] = (seen.images, seen.task.classes)
        like = next(iter(seen.params.values()))
        return normal_starts(shapes, seeds, restarts, like)

    def box(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest valid pixel in normalised space, each (c 1 1)."""
        normalise = self.observation.task.normalise
        pixel = next(iter(self.observation.params.values())).new_zeros(self.observation.task.input_shape[0], 1, 1)
        return normalise(pixel), normalise(pixel + 1)

    def best(self, found: Descended, evidence: Lanes, restarts: int) -> Reconstruction:
        """Each trial's restart with the lowest objective of the attack; the truth has no say.

        `evidence` is that of the descent.
        """
        return best_restart(self.observation, found, evidence, restarts)

    def at(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """The objective (t,) at images (t b c h w) in [0, 1] and labels (t b).

        None where several local batches were drawn in an order that nobody knows: then no order is the truth's.
        """
        if is_drawn(self.observation.task):
            return None
        variables = {"images": self.observation.task.normalise(images)}
        evidence = self.evidence(1)
        if self.observation.threat.labels == "joint":
            certain = F.one_hot(labels, self.observation.task.classes).to(images.dtype)
            variables["logits"] = certain.clamp_min(1e-12).log()
        else:
            evidence["labels"] = labels
        return vmap(self.objective, chunk_size=known_chunk())(variables, evidence)


def _observed(evidence: Lanes, kind: str = "update") -> Update:
    return {name.removeprefix(f"{kind}."): o for name, o in evidence.items() if name.startswith(f"{kind}.")}
