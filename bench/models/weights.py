"""The weights of a setting: untrained, trained here and kept by the hash of their recipe, or from a checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.catalogue import check_dataset
from bench.data.dataset import Dataset, digest_of
from bench.data.load import load_dataset
from bench.devices import cache_folder
from bench.errors import ConfigurationError, suggest
from bench.models import networks, training
from bench.models.training import Progress, Recipe, accuracy, train
from bench.source_digests import digests, file
from bench.store.tensors import State, digest_of_state, place, read_checkpoint, read_state, state_of, write_state
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
        place(model, state, str(path))
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


UNTRAINED = "untrained"


@dataclass(frozen=True)
class WeightsSpec:
    """One of three: neither field set (untrained), `epochs` of training, or a `checkpoint` file.

    With `dataset` the network is trained on that dataset's training split, opened with `parameters`, instead
    of the attacked dataset's own. `label` is what tables show.
    """

    label: str
    epochs: int | None = None
    checkpoint: Path | None = None
    dataset: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def parse_weights(spec: str | int | Mapping[str, Any] | os.PathLike[str]) -> WeightsSpec:
    """What `spec` asks for: "untrained", a number of epochs, a checkpoint's path, or
    {epochs = 20, dataset = "cifar10-jpeg", ...the parameters of that dataset}.

    Raises `ConfigurationError` for anything else; files are not looked at.
    """
    if isinstance(spec, Mapping):
        return _parse_table(dict(spec))
    if isinstance(spec, int):
        return _of_epochs(spec)
    if spec == UNTRAINED:
        return WeightsSpec(UNTRAINED)
    if isinstance(spec, str | os.PathLike) and os.fspath(spec):
        path = Path(spec).expanduser()
        return WeightsSpec(path.name, checkpoint=path)
    raise _refusal(spec)


def _parse_table(table: dict[str, Any]) -> WeightsSpec:
    if "epochs" not in table:
        near = f" ({suggest(next(iter(table)), ['epochs', 'dataset'])})" if table else ""
        raise ConfigurationError(f"weights {table!r}: epochs is missing{near}; write {{ epochs = 20, ... }}")
    epochs, name = table.pop("epochs"), table.pop("dataset", None)
    plain = _of_epochs(epochs)
    if name is None:
        if table:
            key = next(iter(table))
            raise ConfigurationError(f"weights: unknown key {key!r}; {suggest(key, ['epochs', 'dataset'])}")
        return plain
    if not isinstance(name, str):
        raise ConfigurationError(f"weights: dataset must be the name of a dataset, got {name!r}")
    check_dataset(name, table)
    return WeightsSpec(f"{plain.label} on {name}", epochs=epochs, dataset=name, parameters=table)


def _of_epochs(epochs: object) -> WeightsSpec:
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise _refusal(epochs)
    return WeightsSpec(f"{epochs} epoch{'s' if epochs > 1 else ''}", epochs=epochs)


def _refusal(value: object) -> ConfigurationError:
    return ConfigurationError(
        f'weights must be "untrained", a whole number of training epochs from 1 on, the path of a checkpoint, or '
        f'{{ epochs = 20, dataset = "cifar10-jpeg" }}; got {value!r}'
    )


_SCORED_WHEN_TRAINED = 10_000
_SCORED_OF_A_CHECKPOINT = 1_000


@dataclass(frozen=True)
class Weights:
    """What was placed in the model, and how it was made.

    `state` holds parameters and buffers; `recipe_digest` is a SHA-256 of all that determines them; `accuracy`,
    in [0, 1], is over the attacked split of the dataset trained on (None when untrained; for a checkpoint over up
    to 1,000 images of the attacked dataset).
    """

    label: str
    recipe_digest: str
    accuracy: float | None
    epochs: int
    state: State


def load_weights(
    model: Classifier,
    spec: str | int | Mapping[str, Any] | os.PathLike[str],
    *,
    dataset: Dataset,
    seed: int,
    recipe: Recipe | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    training_set: Dataset | None = None,
) -> Weights:
    """Place the weights that `spec` asks for (see `parse_weights`) in a fresh `model`, left in eval mode on the CPU.

    `training_set` is what to train on where it is not the one that `spec` names.
    Training starts from the model's own weights, so that an architecture changed beforehand is trained as it is,
    and is kept by the hash of everything that determines it. Raises `ConfigurationError` when there is nothing to
    train on, a checkpoint does not fit, or training diverges.
    """
    wanted = parse_weights(spec)
    model.eval()
    if wanted.checkpoint is not None:
        return _from_checkpoint(model, wanted, wanted.checkpoint, dataset, device)
    if wanted.epochs is None:
        state = state_of(model)
        return Weights(wanted.label, digest_of_state(state), None, 0, state)
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
    return Weights(wanted.label, digest, kept, wanted.epochs, state_of(model))


def check_weights(
    model: Classifier,
    spec: str | int | Mapping[str, Any] | os.PathLike[str],
    *,
    dataset: Dataset,
    training_set: Dataset | None = None,
) -> str | None:
    """Raise `ConfigurationError` where `load_weights` would, but train nothing and leave the model as it is.

    Returns a SHA-256 of what a checkpoint holds.
    """
    wanted = parse_weights(spec)
    if wanted.checkpoint is not None:
        state = read_checkpoint(wanted.checkpoint)
        place(copy.deepcopy(model), state, str(wanted.checkpoint))
        return digest_of_state(state)
    if wanted.epochs is not None:
        _training_split(training_set or _training_set(wanted, dataset), dataset, wanted)
    return None


def training_seconds(
    model: Classifier,
    spec: str | int | Mapping[str, Any] | os.PathLike[str],
    *,
    dataset: Dataset,
    seed: int,
    training_set: Dataset | None = None,
) -> float:
    """What `load_weights` would spend on training, measured on a copy by a few steps; 0 where it need not train."""
    wanted = parse_weights(spec)
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


def _from_checkpoint(model: Classifier, wanted: WeightsSpec, path: Path, dataset: Dataset, device: str) -> Weights:
    place(model, read_checkpoint(path), str(path))
    state = state_of(model)
    score = accuracy(model, dataset, _SCORED_OF_A_CHECKPOINT, device)
    return Weights(wanted.label, digest_of_state(state), score, 0, state)


def _training_set(wanted: WeightsSpec, attacked: Dataset) -> Dataset:
    return attacked if wanted.dataset is None else load_dataset(wanted.dataset, **wanted.parameters)


def _training_split(source: Dataset, attacked: Dataset, wanted: WeightsSpec) -> tuple[Tensor, Tensor]:
    """What to train on; raises `ConfigurationError` unless it has the classes and the shape of what is attacked."""
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
