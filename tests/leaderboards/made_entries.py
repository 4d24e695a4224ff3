"""Entries of a small board, made up without an attack: whole folders with pictures, trainings and one failed cell."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from attacks.threat import ThreatModel
from leaderboards.entries.board import BOARDS
from leaderboards.entries.entry import read_entry, sheet_of
from leaderboards.entries.reviews import Review, write_review
from leaderboards.untrusted.strict_png import write_png

IMAGES, SIDE = 9, 12
BOARD = """# A board of made-up images.
[board]
title = "Made up"
summary = "Nine images that nobody has taken."
required = ["inverting_gradients(iterations=5)"]
minimum_images = 8

[grid]
dataset = "made-up"
models = ["lenet-zhu"]
weights = ["untrained", 1]
images = 9
"""
INVERTING = "inverting_gradients(iterations=5)"
PLAIN: Callable[[str], str] = lambda text: text
Defense = tuple[str, str, list[dict[str, Any]], float]
"""Label, name, parameters, and the share of the image that attacks get."""
NONE: Defense = ("none", "none", [{}], 0.9)
NOISE: list[Defense] = [
    (f"gaussian_noise(std={std})", "gaussian_noise", [{"std": std}], share)
    for std, share in ((0.1, 0.6), (1.0, 0.3), (10.0, 0.02))
]
ZEROS: Defense = ("zeros", "zeros", [{}], 0.0)
CHAIN: Defense = ("norm_clipping | zeros", "norm_clipping | zeros", [{}, {}], 0.1)


@contextmanager
def board_of(folder: Path, text: str = BOARD) -> Iterator[None]:
    """While it is open the board `made-up` is among all boards; its file goes into the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "made-up.toml").write_text(text)
    before = os.environ.get(BOARDS)
    os.environ[BOARDS] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(BOARDS) if before is None else os.environ.update({BOARDS: before})


def make_published(folder: Path, say: Callable[[str], str] = PLAIN, weights: tuple[str, ...] = ("untrained",)) -> Path:
    """Five entries under the board `made-up`; `say` changes every text that is the submitter's own to choose."""
    own = folder / "made-up"
    for name, defenses, state in (
        ("none", [NONE], "re-run"),
        ("noise", NOISE, "re-run"),
        ("zeros", [ZEROS], "self-reported"),
        ("chain", [CHAIN], "artefact-checked"),
    ):
        make_entry(own, name, defenses, say, weights, fails=name == "zeros")
        if state != "self-reported":
            digest = read_entry(own / name).digest
            review = {"entry_sha256": digest, "state": state, "checked_by": say("A checker"), "commit": say("abc")}
            write_review(own, name, Review.model_validate(review | {"reruns": []}))
    return folder


def make_entry(
    folder: Path,
    name: str,
    defenses: list[Defense],
    say: Callable[[str], str] = PLAIN,
    weights: tuple[str, ...] = ("untrained",),
    fails: bool = False,
    seeds: int = 1,
    picked: int | None = None,
    images: int = 1,
) -> None:
    """One whole entry; where it `fails` its adapting attack has no result.

    Trainings with several `images` an update reach 3 points less at equal images than at equal rounds.
    `picked` of 200 trials of a certificate that allows 23% name the private image; without it there is no certificate.
    """
    files: dict[str, bytes] = {}
    truth = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3)).astype(np.uint8)
    for number, weight in enumerate(weights):
        for defense in defenses:
            for identity in (own for seed in range(seeds) for own in _identities(defense, weight, say, seed)):
                _add_cell(files, identity, truth, defense[3] * (1 - 0.3 * number), fails, say)
    jobs = [_job(defense, seed, say, images) for defense in defenses for seed in range(3)]
    jobs += [] if picked is None else [_certificate(jobs[0], picked)]
    _add(files, "jobs.json", {"jobs": jobs})
    manifest = {
        "format": 1, "board": "made-up", "board_sha256": hashlib.sha256(BOARD.encode()).hexdigest(), "name": name,
        "submitter": say("A submitter"), "note": say("A note."), "command": say("leakboard run board:made-up"),
        "plugin": _plugin() if name == "noise" else None,
        "environment": {
            "packages": {say("torch"): say("2.14"), say("opacus"): None}, "python": say("3.11"),
            "platform": say("Linux"), "devices": [say("cpu")], "threads": [1], "commits": [say("abc")],
        },
        "config": {"name": say("made-up"), "grid": {say("key"): [say("value"), None]}},
        "truth": _add_sheet(files, truth), "tile": [SIDE, SIDE, 3],
    }  # fmt: skip
    manifest["files"] = {key: hashlib.sha256(content).hexdigest() for key, content in sorted(files.items())}
    _add(files, "entry.json", manifest)
    for key, content in files.items():
        path = folder / name / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _identities(defense: Defense, weights: str, say: Callable[[str], str], seed: int) -> Iterator[dict[str, Any]]:
    label, name, parameters, _ = defense
    is_none = name == "none"
    # What the board requires keeps its name.
    attacks = [(INVERTING, "inverting_gradients", {"iterations": 5}), (say("linear_layer"), "linear_layer", {})]
    attacks += [(say("label_rule"), "label_rule", {})]
    controls = [("grey_image", "grey_image", {})]
    controls += [(f"wrong_image(of={attack!r})", "wrong_image", {"of": attack}) for attack, *_ in attacks[:2]]
    for known in (False, True):
        for order, (attack, attack_name, own) in enumerate(attacks + controls):
            identity = {
                "dataset": say("made-up"), "model": say("lenet-zhu"), "weights": weights, "attack": attack,
                "attack_name": attack_name, "attack_parameters": {say(k): v for k, v in own.items()},
                "attack_order": order, "control": order >= len(attacks), "defense": label if is_none else say(label),
                "defense_name": name if is_none else say(name), "defense_parameters": parameters,
                "audited": True, "adapts": known and attack == INVERTING,
                "recovers_labels": attack_name == "label_rule",
                **asdict(ThreatModel(defense_known=known)),
                "threat_class": "B", "seed": seed, "images_per_update": 1, "local_steps": 0,
            }  # fmt: skip
            key = repr((label, weights, attack_name, order, known, *([seed] if seed else []))).encode()
            yield {"cell": hashlib.sha256(key).hexdigest()[:16]} | identity


def _add_cell(
    files: dict[str, bytes],
    identity: dict[str, Any],
    truth: np.ndarray,
    share: float,
    fails: bool,
    say: Callable[[str], str],
) -> None:
    name, is_control = identity["attack_name"], identity["control"]
    # By what every text has in common, so that changed texts change no figure.
    rng = np.random.default_rng(zlib.crc32(f"{identity['cell']}".encode()))
    part = 0.05 if is_control or name == "label_rule" else share * (1 if identity["defense_known"] else 0.8)
    ssim = np.clip(part + rng.normal(0, 0.02, IMAGES), -1, 1)
    cell: dict[str, Any] = {"identity": identity, "status": "ok", "reason": "", "sheet": None, "of": None, "nulls": {}}
    cell |= {"columns": None, "identification_pool": None, "weights_accuracy": None, "updates": []}
    cell |= {"seconds": None, "device": None}
    if fails and name == "linear_layer" and identity["defense_known"]:
        cell |= {"status": "error", "reason": say("RuntimeError: no bias")}
    else:
        noise = rng.integers(0, 256, truth.shape)
        images = np.rint(max(part, 0) * truth + (1 - max(part, 0)) * noise).astype(np.uint8)
        # Whichever: nothing but a link is made of it.
        lender = identity["cell"] if name == "wrong_image" else None
        cell |= {"columns": _columns(ssim, name), "sheet": None if lender else _add_sheet(files, images)}
        cell |= {"of": lender, "nulls": {"lpips": say("no LPIPS")}, "identification_pool": 100, "seconds": 1.5}
        cell |= {"device": say("cpu"), "updates": ["0" * 64]}
    _add(files, f"cells/{identity['cell']}.json", cell)


def _columns(ssim: np.ndarray, name: str) -> dict[str, Any]:
    n, psnr = len(ssim), [round(float(10 + 15 * max(value, 0)), 3) for value in ssim]
    ones = [1.0] * n
    return {
        "image": list(range(n)), "trial": list(range(n)), "true_label": [i % 3 for i in range(n)],
        "found_label": [i % 3 for i in range(n)], "mse": [10 ** (-value / 10) for value in psnr], "psnr_db": psnr,
        "ssim": [round(float(value), 4) for value in ssim], "lpips": None,
        "label_accuracy": ones if name == "label_rule" else None, "identified": [float(v > 0.2) for v in ssim],
        "recovered": [float(v > 0.5) for v in ssim], "feature_error": None,
        "objective_start": ones, "objective_found": [0.1] * n, "objective_truth": [0.2] * n, "update_norm": ones,
    }  # fmt: skip


def _job(defense: Defense, seed: int, say: Callable[[str], str], images: int) -> dict[str, Any]:
    label, name, parameters, share = defense
    is_none = name == "none"
    figures = {"accuracy": 0.5 + 0.4 * share + 0.01 * seed, "chance": 0.1, "bytes_sent": 2048.0, "update_ms": 1.5}
    figures |= {"least_accuracy": 0.5, "delta": 1e-5, "epsilon": None if is_none or share else 3.2, "seconds": 9.0}
    figures |= {"test_images": 100.0, "rounds": 10.0, "clients": 5.0, "population": 50.0, "participations": 1.0}
    figures |= {} if images == 1 else {"accuracy_at_equal_images": figures["accuracy"] - 0.03}
    texts = {"no_epsilon": None if figures["epsilon"] else "heuristic: " + say("nothing"), "accountant": say("closed")}
    return {
        "kind": "training", "job": f"training-{zlib.crc32(f'{label} {seed}'.encode()):016x}", "dataset": say("made-up"),
        "model": say("lenet-zhu"), "weights": None, "defense": label if is_none else say(label),
        "defense_name": name if is_none else say(name), "defense_parameters": parameters, "images_per_update": images,
        "local_steps": 0, "seed": seed, "status": "ok", "reason": "", "texts": texts, "figures": figures,
    }  # fmt: skip


def _certificate(training: dict[str, Any], picked: int) -> dict[str, Any]:
    figures = {"successes": float(picked), "trials": 200.0, "bound": 0.23, "candidates": 16.0}
    job = {"kind": "certificate", "job": training["job"].replace("training", "certificate"), "weights": "untrained"}
    return training | job | {"texts": {}, "figures": figures}


def _plugin() -> dict[str, str]:
    return {
        "repository": "https://example.org/someone/noise",
        "commit": "a" * 40,
        "file": "noise.py",
        "sha256": "b" * 64,
    }


def _add(files: dict[str, bytes], name: str, value: dict[str, Any]) -> None:
    files[name] = json.dumps(value, ensure_ascii=False).encode()


def _add_sheet(files: dict[str, bytes], images: np.ndarray) -> str:
    content = write_png(sheet_of(images))
    name = f"sheets/{hashlib.sha256(content).hexdigest()[:16]}.png"
    files[name] = content
    return name
