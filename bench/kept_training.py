"""The state of a federated training on disk: a kill costs no more than the rounds since."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from bench.checkpoints import read_state, write_state
from defenses.client import Params, Update


def keep_training(path: Path, weights: Params, optimiser: torch.optim.Optimizer, done: int) -> None:
    """Write weights, optimiser and the rounds done in one step; warns where that cannot be."""
    state = {f"weights.{name}": w.detach().clone() for name, w in weights.items()}
    for i, own in optimiser.state_dict()["state"].items():
        state |= {f"{i}.{key}": torch.as_tensor(value).clone() for key, value in own.items() if value is not None}
    try:
        write_state(path, state, {"rounds": str(done)})
    except OSError as error:
        warnings.warn(f"an unfinished training cannot be kept in {path.parent}: {error}; it goes on", stacklevel=3)


def resume_training(path: Path, weights: Params, optimiser: torch.optim.Optimizer) -> int:
    """Place what is kept, and return the rounds that it stands for; 0 where nothing whole is kept."""
    try:
        state, metadata = read_state(path)
        done = int(metadata["rounds"])
        placed: Update = {name: state[f"weights.{name}"] for name in weights}
    except (ValueError, KeyError):
        return 0
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(placed[name])
    own: dict[int, dict[str, Tensor]] = {i: {} for i in range(len(weights))}
    for name, value in state.items():
        number, _, key = name.partition(".")
        if number != "weights":
            own[int(number)][key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": {i: s for i, s in own.items() if s}})
    return done
