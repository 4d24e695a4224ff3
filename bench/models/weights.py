"""The weights of a setting: untrained, trained here and kept by the hash of their recipe, or from a checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.dataset import Dataset, digest_of
from bench.data.load import load_dataset
from bench.devices import cache_folder
from bench.errors import ConfigurationError
from bench.models import networks, training
from bench.models.training import Progress, Recipe, accuracy, train
from bench.source_digests import digests, file
from bench.store.tensors import (
    StateDict,
    digest_of_state,
    load_state,
    read_checkpoint,
    read_state,
    state_of,
    write_state,
)
from defenses.task import Classifier


def recipe_digest(
    model: Classifier, pixels: Tensor, labels: Tensor, epochs: int, seed: int, recipe: Recipe, device: str
) -> str:
    """SHA-256 of all that determines trained weights."""
    # Sources are part of it: a cache that outlives a changed method is a known mistake.
    facts = {
        "architecture": repr(model),
        "normalisation": [model.normalise.mean.flatten().tolist(), model.normalise.std.flatten().tolist()],
        "initial": digest_of_state(state_of(model)),
        "data": digest_of(pixels, labels),
        "recipe": asdict(recipe),
        "epochs": epochs,
        "seed": seed,
        "device": torch.device(device).type,
        "torch": torch.__version__,
        "sources": digests(file(networks) | file(training)),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_kept(path: Path, model: Classifier) -> float | None:
    """Place kept weights in the model and return their accuracy; None when there are none or they are damaged."""
    if not path.exists():
        return None
    try:
        state, metadata = read_state(path)
        score = float(metadata["accuracy"])
        load_state(model, state, str(path))
    except (ValueError, KeyError) as error:
        warnings.warn(f"the kept weights {path} are damaged ({error}); training again", stacklevel=3)
        return None
    return score


def keep(path: Path, model: Classifier, score: float, label: str) -> None:
    """Keep the weights of the model with their accuracy; warns where that cannot be."""
    try:
        write_state(path, state_of(model), {"accuracy": repr(score), "label": label})
    except OSError as error:
        warnings.warn(
            f"trained weights cannot be kept in {path.parent}: {error}; they will be trained again", stacklevel=3
        )


@dataclass(frozen=True)
class WeightsSpec:
    """A wish for weights: `epochs` of training, a `checkpoint` file, or neither (untrained)."""

    label: str = "untrained"
    """The weights as tables show them."""
    epochs: int | None = None
    """Passes over the training split."""
    checkpoint: Path | None = None
    """The file of the weights."""
    dataset: str | None = None
    """The dataset to train on; None is the attacked one."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The parameters with which that dataset is opened."""


_SCORED_WHEN_TRAINED = 10_000
"""The most images over which the accuracy of weights trained here is measured, once, since it is kept with them."""
_SCORED_OF_A_CHECKPOINT = 1_000
"""The most images over which the accuracy of a checkpoint is measured, in every run anew."""


@dataclass(frozen=True)
class LoadedWeights:
    """Weights as `load_weights` placed them in a model, with their origin and accuracy."""

    label: str
    """The weights as tables show them."""
    recipe_digest: str
    """SHA-256 of all that determines them."""
    accuracy: float | None
    """Fraction classified rightly, in [0, 1], of the attacked split of the dataset trained on; None when untrained.

    Of a checkpoint, over up to 1,000 images of the attacked dataset."""
    epochs: int
    """Epochs trained here; 0 for untrained weights and checkpoints."""
    state: StateDict
    """All parameters and buffers."""


def load_weights(
    model: Classifier,
    wanted: WeightsSpec,
    *,
    dataset: Dataset,
    seed: int,
    recipe: Recipe | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    training_set: Dataset | None = None,
) -> LoadedWeights:
    """Place the `wanted` weights in a fresh `model`, left in eval mode on the CPU.

    `training_set` is what to train on where it is not the one that `wanted` names.
    Training starts from the model's own weights, so that an architecture changed beforehand is trained as it is,
    and is kept by the hash of everything that determines it. Raises `ConfigurationError` when there is nothing to
    train on, a checkpoint does not fit, or training diverges.
    """
    model.eval()
    if wanted.checkpoint is not None:
        return _from_checkpoint(model, wanted, wanted.checkpoint, dataset, device)
    if wanted.epochs is None:
        state = state_of(model)
        return LoadedWeights(wanted.label, digest_of_state(state), None, 0, state)
    source = training_set or _training_set(wanted, dataset)
    pixels, labels = _training_split(source, dataset, wanted)
    recipe = recipe or _recipe(model, wanted, dataset)
    digest = recipe_digest(model, pixels, labels, wanted.epochs, seed, recipe, device)
    path = cache_folder() / f"{digest}.safetensors"
    kept = read_kept(path, model)
    if kept is None:
        train(model, pixels, labels, epochs=wanted.epochs, seed=seed, recipe=recipe, device=device, progress=progress)
        kept = accuracy(model, source, _SCORED_WHEN_TRAINED, device)
        keep(path, model, kept, wanted.label)
    return LoadedWeights(wanted.label, digest, kept, wanted.epochs, state_of(model))


def check_weights(
    model: Classifier, wanted: WeightsSpec, *, dataset: Dataset, training_set: Dataset | None = None
) -> str | None:
    """Raise `ConfigurationError` where `load_weights` would, but train nothing and leave the model as it is.

    Returns a SHA-256 of what a checkpoint holds.
    """
    if wanted.checkpoint is not None:
        state = read_checkpoint(wanted.checkpoint)
        load_state(copy.deepcopy(model), state, str(wanted.checkpoint))
        return digest_of_state(state)
    if wanted.epochs is not None:
        _training_split(training_set or _training_set(wanted, dataset), dataset, wanted)
    return None


def training_seconds(
    model: Classifier, wanted: WeightsSpec, *, dataset: Dataset, seed: int, training_set: Dataset | None = None
) -> float:
    """Seconds that `load_weights` would train, measured on a copy by a few steps; 0 where it need not train."""
    if wanted.epochs is None:
        return 0.0
    pixels, labels = _training_split(training_set or _training_set(wanted, dataset), dataset, wanted)
    recipe = _recipe(model, wanted, dataset)
    digest = recipe_digest(model, pixels, labels, wanted.epochs, seed, recipe, "cpu")
    if (cache_folder() / f"{digest}.safetensors").exists():
        return 0.0
    size = min(recipe.batch_size, len(labels))
    steps = min(4, len(labels) // size)
    some = slice(steps * size)
    started = time.perf_counter()
    train(copy.deepcopy(model), pixels[some], labels[some], epochs=1, seed=seed, recipe=recipe)
    return (time.perf_counter() - started) / steps * wanted.epochs * (len(labels) // size)


def _recipe(model: Classifier, wanted: WeightsSpec, attacked: Dataset) -> Recipe:
    # At the usual rate sigmoids saturate in the first steps: LeNet(Zhu) stayed at chance for 20 epochs.
    rate = 0.01 if any(isinstance(module, nn.Sigmoid) for module in model.modules()) else Recipe.learning_rate
    # A mirrored digit is another digit.
    return Recipe(learning_rate=rate, flips=(wanted.dataset or attacked.name) != "SVHN")


def _from_checkpoint(
    model: Classifier, wanted: WeightsSpec, path: Path, dataset: Dataset, device: str
) -> LoadedWeights:
    load_state(model, read_checkpoint(path), str(path))
    state = state_of(model)
    score = accuracy(model, dataset, _SCORED_OF_A_CHECKPOINT, device)
    return LoadedWeights(wanted.label, digest_of_state(state), score, 0, state)


def _training_set(wanted: WeightsSpec, attacked: Dataset) -> Dataset:
    return attacked if wanted.dataset is None else load_dataset(wanted.dataset, **wanted.parameters)


def _training_split(source: Dataset, attacked: Dataset, wanted: WeightsSpec) -> tuple[Tensor, Tensor]:
    """The images and labels to train on; raises `ConfigurationError` unless shape and classes are the attacked ones."""
    split = source.training()
    if split is None:
        raise ConfigurationError(
            f"weights: {wanted.label}: dataset {source.name} has no training images besides those attacked; name a "
            f'dataset that has, as in weights = [{{ epochs = {wanted.epochs}, dataset = "cifar10-jpeg" }}], give a '
            'checkpoint, or use "untrained"'
        )
    if source.input_shape != attacked.input_shape or source.classes != attacked.classes:
        raise ConfigurationError(
            f"weights: {wanted.label}: {source.name} has {source.classes} classes of shape {source.input_shape}, the "
            f"attacked {attacked.name} has {attacked.classes} of {attacked.input_shape}; choose a dataset that fits"
        )
    if source.class_names != attacked.class_names and {*source.class_names} == {*attacked.class_names}:
        raise ConfigurationError(
            f"weights: {wanted.label}: {source.name} numbers the classes of {attacked.name} in another order; "
            "choose a dataset in the same order"
        )
    return split
