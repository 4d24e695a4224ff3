"""Trained weights that are kept, by the hash of everything that determines them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from bench import networks, training
from bench.checkpoints import digest_of_state, place, read_state, state_of, write_state
from bench.dataset import digest_of
from bench.training import Recipe
from defenses.client import Classifier


def cache_folder() -> Path:
    """Where trained weights are kept: `weights` in $LEAKBOARD_CACHE or in ~/.cache/leakboard."""
    return Path(os.environ.get("LEAKBOARD_CACHE") or "~/.cache/leakboard").expanduser() / "weights"


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
        "sources": [hashlib.sha256(inspect.getsource(m).encode()).hexdigest() for m in (networks, training)],
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
