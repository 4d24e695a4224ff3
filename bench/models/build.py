"""Finding a model by its name, and drawing its initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from bench.errors import ConfigurationError
from bench.models import networks
from bench.models.catalogue import MODELS, TORCHVISION_MODELS, check_model
from defenses.task import Classifier, Normalise

_AUXILIARY = ("googlenet", "inception_v3")


def build_model(
    name: str,
    parameters: Mapping[str, Any],
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Classifier:
    """A freshly initialised classifier of images (b, *input_shape) in [0, 1], in eval mode, on the CPU.

    Weights are drawn from torch's global generator, which the caller seeds. Raises `ConfigurationError` for
    unknown names and parameters, and when the network cannot take this input shape.
    """
    if name in MODELS or not _is_new_in_torchvision(name):
        check_model(name, parameters)
    elif parameters:
        raise ConfigurationError(f"model {name} has no parameter {next(iter(parameters))!r}; it takes none")
    if not len(mean) == len(std) == input_shape[0]:
        raise ConfigurationError(
            f"mean and std must have one entry for each of the {input_shape[0]} channels, got {mean} and {std}"
        )
    model = Classifier(Normalise(tuple(mean), tuple(std)), _network(name, parameters, input_shape, classes)).eval()
    _check_forward(name, model, input_shape, classes)
    return model


def untrained(
    name: str,
    parameters: Mapping[str, Any],
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
) -> Classifier:
    """`build_model` with weights drawn from `seed`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the accelerators too, which this fork does not restore.
        torch.default_generator.manual_seed(seed)
        return build_model(name, parameters, input_shape=input_shape, classes=classes, mean=mean, std=std)


def _network(name: str, parameters: Mapping[str, Any], input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    match name:
        case "lenet-zhu":
            return networks.lenet_zhu(input_shape, classes)
        case "convnet64":
            return networks.convnet(input_shape, classes, **parameters)
        case "mlp":
            hidden = parameters.get("hidden")
            return networks.mlp(input_shape, classes, None if hidden is None else tuple(hidden))
        case "resnet20":
            return networks.resnet(input_shape, classes, **{"blocks": 3, "width": 16, **parameters})
        case "resnet20-4":
            return networks.resnet(input_shape, classes, blocks=3, width=64, **parameters)
        case "resnet32-10":
            return networks.resnet(input_shape, classes, blocks=5, width=160, **parameters)
    from torchvision import models

    # Auxiliary heads are unused in eval mode: their gradients would not exist.
    extra = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
    try:
        return models.get_model(name, weights=None, num_classes=classes, **extra)
    except ValueError as error:
        raise ConfigurationError(f"model {name}: this torchvision does not have it: {error}") from error


def _is_new_in_torchvision(name: str) -> bool:
    """True if an installed torchvision newer than the catalogue knows this classification model."""
    if name in TORCHVISION_MODELS:
        return False
    from torchvision import models

    return name in models.list_models(module=models)


def _check_forward(name: str, model: Classifier, input_shape: tuple[int, int, int], classes: int) -> None:
    # On the meta device shapes are worked out and nothing is computed, so that a large model costs nothing.
    state = {key: value.to("meta") for key, value in [*model.named_parameters(), *model.named_buffers()]}
    sides = f"{input_shape[2]}x{input_shape[1]} with {input_shape[0]} channels"
    try:
        with torch.no_grad():
            logits = functional_call(model, state, (torch.zeros(2, *input_shape, device="meta"),))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, ZeroDivisionError) as error:
        reason = str(error).strip().split("\n")[0]
        hint = "; networks of torchvision take 3 channels" if input_shape[0] != 3 else ""
        raise ConfigurationError(
            f"model {name} cannot take images of {sides}: {reason}; choose another model or dataset, or give the "
            f"dataset a size (224 suits most networks of torchvision){hint}"
        ) from error
    if tuple(logits.shape) != (2, classes):
        raise ConfigurationError(f"model {name} gives outputs of shape {tuple(logits.shape)}, not (2, {classes})")
