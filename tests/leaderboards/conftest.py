"""Results as `bench.store` yields them, made up but plausible: the expected PSNR is a known number per cell."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

ATTACKS = ["inverting_gradients(iterations=600)", "euclidean(iterations=300)", "linear_layer"]
CONTROLS = [
    "grey_image",
    "dataset_mean",
    "class_mean",
    "prior_only",
    "wrong_image(of='inverting_gradients(iterations=600)')",
    "wrong_image(of='euclidean(iterations=300)')",
]
DEFENSES: list[tuple[str, list[dict[str, Any]]]] = [
    ("none", [{}]),
    ("gradient_pruning(ratio=0.5)", [{"ratio": 0.5, "scope": "layer"}]),
    ("gradient_pruning(ratio=0.9)", [{"ratio": 0.9, "scope": "layer"}]),
    ("gradient_pruning(ratio=0.99)", [{"ratio": 0.99, "scope": "layer"}]),
    ("dp_sgd(clip_norm=1.0, noise_multiplier=0.001)", [{"clip_norm": 1.0, "noise_multiplier": 0.001}]),
    ("dp_sgd(clip_norm=1.0, noise_multiplier=0.01)", [{"clip_norm": 1.0, "noise_multiplier": 0.01}]),
    ("dp_sgd(clip_norm=1.0, noise_multiplier=0.1)", [{"clip_norm": 1.0, "noise_multiplier": 0.1}]),
    ("larger_batch(examples=4)", [{"examples": 4}]),
    ("local_epochs(epochs=5, learning_rate=0.001)", [{"epochs": 5, "learning_rate": 0.001}]),
    ("norm_clipping(clip_norm=1.0) | gaussian_noise(std=0.01)", [{"clip_norm": 1.0}, {"std": 0.01}]),
]
FIGURES = [
    "image",
    "trial",
    "true_label",
    "mse",
    "psnr_db",
    "ssim",
    "label_accuracy",
    "identified",
    "identification_pool",
    "identification_chance",
    "recovered",
    "feature_error",
    "objective_start",
    "objective_found",
    "objective_truth",
    "underpowered",
    "update_norm",
    "seconds",
]
LOSS_DB = {label: loss for (label, _), loss in zip(DEFENSES, [0, 1, 3.5, 6, 0.3, 3, 7.5, 4, 2, 3.2], strict=True)}


FEW = [*DEFENSES[:4], *DEFENSES[7:]]


def made_up(
    images: int = 20,
    seeds: int = 1,
    attacks: list[str] = ATTACKS,
    controls: list[str] = CONTROLS[:2],
    defenses: list[tuple[str, list[dict[str, Any]]]] = FEW,
    model: str = "lenet-zhu",
    side: int = 32,
) -> pd.DataFrame:
    """Every cell finished: `mean_psnr` is each cell's expectation, with an SD of 3 dB over images."""
    rows = []
    for order, (defense, parameters) in enumerate(defenses):
        for attack_order, attack in enumerate(attacks + controls):
            for seed in range(seeds):
                cell = f"{zlib.crc32(f'{model} {defense} {attack} {seed}'.encode()):08x}"
                rng = np.random.default_rng(int(cell, 16))
                batch = 4 if "larger_batch" in defense else 1
                spread = np.random.default_rng(7).normal(0, 3, images)
                for image in range(images):
                    psnr = mean_psnr(attack, defense) + spread[image] - spread.mean() + rng.normal(0, 0.5)
                    ssim = float(np.clip((psnr - 8) / 16, -0.1, 1))
                    rows.append(
                        {
                            "cell": cell,
                            "status": "ok",
                            "reason": "",
                            "dataset": "cifar10-samples",
                            "model": model,
                            "weights": "untrained",
                            "attack": attack,
                            "attack_name": attack.split("(")[0],
                            "attack_parameters": "{}",
                            "attack_order": attack_order,
                            "control": attack in controls,
                            "defense": defense,
                            "defense_name": " | ".join(part.split("(")[0] for part in defense.split(" | ")),
                            "defense_order": order,
                            "audited": True,
                            "adapts": False,
                            "defense_parameters": json.dumps(parameters),
                            "labels": "known",
                            "schedule_known": True,
                            "defense_known": False,
                            "batch_norm": "running",
                            "threat_class": "C" if "local_epochs" in defense else "B",
                            "seed": seed,
                            "images_per_update": batch,
                            "local_steps": 5 if "local_epochs" in defense else 0,
                            "image": image,
                            "trial": image // batch,
                            "true_label": image % 10,
                            "mse": 10 ** (-psnr / 10),
                            "psnr_db": psnr,
                            "ssim": ssim if side >= 11 else np.nan,
                            "lpips": np.nan,
                            "label_accuracy": 1.0,
                            "identified": float(psnr > 14),
                            "identification_pool": 100,
                            "identification_chance": 0.01,
                            "recovered": float(psnr > 20 and ssim > 0.5),
                            "feature_error": 1e-6 if attack == "linear_layer" else np.nan,
                            "objective_start": 0.9,
                            "objective_found": 0.01,
                            "objective_truth": 0.008,
                            "underpowered": 1.0,
                            "update_norm": 1.234 / (1 + order),
                            "seconds": 1.5,
                            "device": "cpu",
                            "chunk": 0,
                        }
                    )
    return pd.DataFrame(rows)


def mean_psnr(attack: str, defense: str) -> float:
    """In dB; the strongest floor is dataset_mean at 13.5."""
    floors = {"grey_image": 13.0, "dataset_mean": 13.5, "class_mean": 13.2, "prior_only": 11.0, "wrong_image": 9.5}
    reach = {"inverting_gradients": 20.0, "euclidean": 17.0}
    name = attack.split("(")[0]
    return floors[name] if name in floors else reach.get(name, 15.0) - LOSS_DB.get(defense, 0.0)


@pytest.fixture
def results() -> Callable[..., pd.DataFrame]:
    """Makes a frame; see `made_up`."""
    return made_up


@pytest.fixture
def fail() -> Callable[..., pd.DataFrame]:
    """Takes one cell's results out of a frame; see `without`."""
    return without


def without(
    frame: pd.DataFrame, attack: str, defense: str, status: str, reason: str = "", seed: int = 0
) -> pd.DataFrame:
    """The frame with one cell without results: a single row, its figures null."""
    attacked = frame["attack"].str.startswith(attack)
    chosen = attacked & (frame["defense"] == defense) & (frame["seed"] == seed)
    row = frame[chosen].iloc[:1].copy()
    assert len(row) == 1
    row[FIGURES] = np.nan
    row[["status", "reason"]] = status, reason
    return pd.DataFrame(pd.concat([frame[~chosen], row], ignore_index=True))
