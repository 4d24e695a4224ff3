"""Recovering the labels of a batch from the gradient of the last layer."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from attacks.attack import UnsupportedPair
from attacks.observation import Observation, gradient_scale
from defenses.task import Task


def classification_layer(task: Task) -> tuple[str, nn.Linear]:
    """Name and module of the last `Linear` with one row per class; raises `UnsupportedPair` without one."""
    linears = [(name, m) for name, m in task.model.named_modules() if isinstance(m, nn.Linear)]
    if not linears or linears[-1][1].out_features != task.classes:
        raise UnsupportedPair(
            "labels can be recovered only where the last layer is a Linear with one row per class; "
            'set threat.labels = "known"'
        )
    return linears[-1]


def recovered_labels(observation: Observation) -> Tensor:
    """The labels (t b) that the update gives away, sorted within each trial.

    One image: the only negative entry of the last bias gradient is the label (Zhao et al., "iDLG", 2020); under a
    defense the most negative one is taken. A batch: class c's entry is (sum of p_c - count_c) / b, with p_c
    estimated on noise images of the attacker's own, so counts follow (after Wainakh et al., "User-Level Label
    Leakage from Gradients", 2022) and are rounded to b by largest remainder. A layer without bias gives its rows'
    sums instead, in units of the mean feature sum.
    """
    task, b = observation.task, observation.images
    name, layer = classification_layer(task)
    probabilities, feature_sum = _probe(observation, layer)
    scale = gradient_scale(observation)[:, None]
    if layer.bias is not None:
        entries = observation.updates[f"{name}.bias"] / scale
    else:
        entries = observation.updates[f"{name}.weight"].sum(-1) / scale / feature_sum
    if b == 1:
        return entries.argmin(dim=1, keepdim=True)
    return torch.stack([_rounded(row, b) for row in b * (probabilities - entries)])


def distinct_labels(observation: Observation) -> Tensor:
    """The labels (t b) of batches in which none is repeated, sorted within each trial.

    A row of the last layer's weight gradient is the mean of (p - y) x feature over the batch: with features of at least
    0 only the row of a class in the batch can hold a negative entry. Taken are the b classes whose smallest entry is
    most negative (Yin et al., CVPR 2021, section 3.1): exact where b labels differ and each shows one. Raises
    `UnsupportedPair` as `classification_layer` does.
    """
    name, _ = classification_layer(observation.task)
    smallest = observation.updates[f"{name}.weight"].amin(-1).nan_to_num(nan=float("inf"))
    return smallest.topk(observation.images, largest=False).indices.sort(dim=1).values


def _rounded(expected: Tensor, b: int) -> Tensor:
    """b sorted labels whose class counts are closest to the expected ones (classes,)."""
    expected = expected.nan_to_num().clamp(0, b)
    counts = expected.floor().long()
    missing = b - int(counts.sum())
    remainder = expected - counts
    # Largest remainders gain the missing labels; where too many were given, the smallest excess loses them.
    while missing:
        step = 1 if missing > 0 else -1
        allowed = remainder if step > 0 else remainder.masked_fill(counts == 0, float("inf"))
        chosen = allowed.argmax() if step > 0 else allowed.argmin()
        counts[chosen] += step
        remainder[chosen] -= step
        missing -= step
    return torch.arange(len(counts), device=expected.device).repeat_interleave(counts)


def _probe(observation: Observation, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Mean class probabilities (classes,) and mean feature sum on uniform noise images."""
    task, caught = observation.task, []
    like = next(iter(observation.params.values()))
    noise = torch.rand((32, *task.input_shape), generator=Generator().manual_seed(0)).to(like)
    handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        with torch.no_grad():
            logits = functional_call(task.model, observation.params, (noise,))
    finally:
        handle.remove()
    return logits.softmax(-1).mean(0), caught[0].sum(-1).mean()


def believed_labels(observation: Observation) -> Tensor:
    """A control's answer for the labels (t b): the known ones, else class 0, since it looks at no gradient."""
    if observation.labels is not None:
        return observation.labels
    shape = (observation.trials, observation.images)
    return torch.zeros(shape, dtype=torch.long, device=observation.device)


def check_labels(task: Task, labels: str) -> None:
    """Raise `UnsupportedPair` where the labels have to be recovered and the network does not allow it."""
    if labels == "recovered":
        classification_layer(task)
