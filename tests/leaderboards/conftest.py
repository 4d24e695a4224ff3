"""Results as `bench.store.store` yields them, made up but plausible: the expected PSNR is a known number per cell."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_entries import board_of, make_published

from attacks.threat import ThreatModel

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
    "identified_by_likelihood",
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
JOB_COLUMNS = [
    "kind", "job", "dataset", "model", "defense", "defense_name", "defense_parameters", "defense_order",
    "images_per_update", "local_steps", "weights", "seed", "status", "reason", "accuracy", "chance", "test_images",
    "rounds", "clients", "population", "participations", "optimizer", "learning_rate", "least_accuracy", "epsilon",
    "delta", "accountant", "epsilon_rdp", "epsilon_prv", "epsilon_central", "guarantee_unit", "guarantee_relation",
    "guarantee_steps", "noise_multiplier", "no_epsilon", "bytes_sent", "update_ms", "seconds", "candidates", "trials",
    "successes", "bound", "steps", "accuracy_at_equal_images",
]  # fmt: skip


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
                            "recovers_labels": False,
                            "defense_parameters": json.dumps(parameters),
                            **asdict(ThreatModel()),
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
                            "identified_by_likelihood": np.nan,
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


@pytest.fixture(scope="session")
def made_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up `boards` and `published` entries under two weights, and their `site`."""
    from leaderboards.site.build import write_site

    folder = tmp_path_factory.mktemp("made")
    with board_of(folder / "boards"):
        make_published(folder / "published", weights=("untrained", "epochs=1"))
        write_site(folder / "site", folder / "published")
    return folder


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


def training(defense: str, accuracies: list[float], **changes: Any) -> list[dict[str, Any]]:
    """A training job per seed, as `Store.jobs_frame` yields them: finished, of the frames that `made_up` makes."""
    row: dict[str, Any] = dict.fromkeys(JOB_COLUMNS)
    row |= {
        "kind": "training", "dataset": "cifar10-samples", "model": "lenet-zhu", "defense": defense,
        "defense_name": defense.split("(")[0], "defense_parameters": "[{}]", "defense_order": 0, "images_per_update": 1,
        "local_steps": 0, "status": "ok", "reason": "", "chance": 0.1, "test_images": 3000, "rounds": 400,
        "clients": 32, "population": 2000, "participations": 7, "optimizer": "adam", "learning_rate": 0.001,
        "delta": 1e-5, "bytes_sent": 2048.0, "update_ms": 12.5, "seconds": 9.0,
        "no_epsilon": "heuristic: nothing is proven",
    }  # fmt: skip
    return [row | {"job": f"{defense}{s}", "seed": s, "accuracy": a} | changes for s, a in enumerate(accuracies)]


def proof(epsilon: float) -> dict[str, Any]:
    """What a training job with a guarantee holds beside its accuracy."""
    return {
        "epsilon": epsilon, "epsilon_rdp": 1.2 * epsilon, "epsilon_prv": 1.01 * epsilon, "epsilon_central": epsilon / 6,
        "accountant": "closed form", "guarantee_unit": "image", "guarantee_relation": "add or remove one image",
        "guarantee_steps": 7, "noise_multiplier": 1.0, "no_epsilon": None,
    }  # fmt: skip


def certificate(defense: str, successes: int, trials: int = 200, bound: float = 0.23, **changes: Any) -> dict[str, Any]:
    """A finished certificate job."""
    (row,) = training(defense, [np.nan])
    row |= dict.fromkeys(["accuracy", "chance", "test_images", "rounds", "clients", "population", "participations"])
    row |= {"kind": "certificate", "weights": "untrained", "candidates": 16, "trials": trials, "successes": successes}
    return row | {"bound": bound, "noise_multiplier": 1.0, "steps": 1} | changes


def jobs_frame(*rows: dict[str, Any] | list[dict[str, Any]]) -> pd.DataFrame:
    """A frame of jobs from rows and lists of them."""
    flat = [row for own in rows for row in (own if isinstance(own, list) else [own])]
    return pd.DataFrame(flat, columns=JOB_COLUMNS)


@pytest.fixture
def make() -> SimpleNamespace:
    """Makes jobs: `training`, `proof`, `certificate`, and the `frame` of them."""
    return SimpleNamespace(training=training, proof=proof, certificate=certificate, frame=jobs_frame)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of published entries of the tiny boards; see `tiny_board`. Read only: copy what you change."""
    from tiny_board import BOARDS, publish

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEAKBOARD_BOARDS", str(BOARDS))
        yield publish(tmp_path_factory.mktemp("tiny"))
