"""Weights and the state of a federated training in files: strict about names and shapes, atomic when written."""

from __future__ import annotations

import os
import pickle
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.data.dataset import digest_of
from bench.errors import ConfigurationError
from defenses.task import Classifier, Params, Update

StateDict = dict[str, Tensor]
"""Name of a parameter or buffer -> tensor on the CPU."""


def read_checkpoint(path: Path) -> StateDict:
    """The tensors of a .safetensors file, or of a state dict saved by torch (also under "state_dict").

    Raises `ConfigurationError` when the file is missing, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise ConfigurationError(
            f'weights: no checkpoint file {path}; give an existing path, "untrained" or a number of epochs'
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ConfigurationError(
            f"weights: cannot read the checkpoint {path}: {reason}; save model.state_dict() with "
            "torch.save, or as safetensors"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigurationError(f"weights: the checkpoint {path} is no dictionary of tensors; save model.state_dict()")
    return dict(content)


def load_state(model: Classifier, state: StateDict, source: str) -> None:
    """Copy `state` into the model; every name and shape must fit, with or without the prefix "network.".

    Only BatchNorm's count of batches may be absent: old checkpoints do not have it.
    """
    own = model.state_dict()
    if not any(name.startswith("network.") for name in state):
        state = {f"network.{name}": value for name, value in state.items()}
    wrong = [f"{n}: missing" for n in own if n not in state and not n.endswith("num_batches_tracked")]
    wrong += [f"{n}: not in the model" for n in state if n not in own]
    wrong += [
        f"{n}: {tuple(state[n].shape)} in the file, {tuple(own[n].shape)} in the model"
        for n in own
        if n in state and state[n].shape != own[n].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ConfigurationError(
            f"weights: {source} does not fit the model: {'; '.join(wrong[:3])}{more}; "
            "choose the model, its parameters and the number of classes that it was made for"
        )
    infinite = next((name for name, value in state.items() if not value.isfinite().all()), None)
    if infinite is not None:
        raise ConfigurationError(f"weights: {infinite} of {source} is not finite; give another checkpoint")
    model.load_state_dict({**own, **state})


def state_of(model: Classifier) -> StateDict:
    """Copies of all parameters and buffers, each with its own memory."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}


def digest_of_state(state: StateDict) -> str:
    """SHA-256 of names and values."""
    names = torch.tensor(list("\n".join(state).encode()), dtype=torch.uint8)
    return digest_of(names, *state.values())


def write_state(path: Path, state: StateDict, metadata: dict[str, str]) -> None:
    """Write safetensors in one step: a reader sees the whole file or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    os.close(handle)
    try:
        save_file(state, temporary, {**metadata, "digest": digest_of_state(dict(sorted(state.items())))})
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_state(path: Path) -> tuple[StateDict, dict[str, str]]:
    """The tensors and the metadata that `write_state` wrote; raises ValueError when the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(str(error)) from error
    if metadata.get("digest") != digest_of_state(dict(sorted(state.items()))):
        raise ValueError("its contents have changed since it was written")
    return state, metadata


def keep_training(
    path: Path, weights: Params, optimiser: torch.optim.Optimizer, done: int, early: Params | None = None
) -> None:
    """Write weights, those of an earlier round, optimiser and the rounds done in one step; warns where it cannot."""
    state = {f"weights.{name}": w.detach().clone() for name, w in weights.items()}
    state |= {f"early.{name}": w.clone() for name, w in (early or {}).items()}
    for i, own in optimiser.state_dict()["state"].items():
        state |= {f"{i}.{key}": torch.as_tensor(value).clone() for key, value in own.items() if value is not None}
    try:
        write_state(path, state, {"rounds": str(done)})
    except OSError as error:
        warnings.warn(f"an unfinished training cannot be kept in {path.parent}: {error}; it goes on", stacklevel=3)


def resume_training(path: Path, weights: Params, optimiser: torch.optim.Optimizer) -> tuple[int, Params | None]:
    """Place what is kept, and return the rounds that it stands for and the weights of an earlier round.

    They are 0 and None where nothing whole is kept.
    """
    try:
        state, metadata = read_state(path)
        done = int(metadata["rounds"])
        placed: Update = {name: state[f"weights.{name}"] for name in weights}
    except (ValueError, KeyError):
        return 0, None
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(placed[name])
    own: dict[int, dict[str, Tensor]] = {i: {} for i in range(len(weights))}
    for name, value in state.items():
        number, _, key = name.partition(".")
        if number not in ("weights", "early"):
            own[int(number)][key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": {i: s for i, s in own.items() if s}})
    early: Update = {name: state[f"early.{name}"] for name in weights if f"early.{name}" in state}
    return done, early or None
