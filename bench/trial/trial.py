"""One block of one cell: attack what was released, then score it from the rounded images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attacks.attack import Attack
from attacks.observation import Observation
from bench.columns import HELD_OUT_FIGURES
from bench.data.dataset import Dataset
from bench.grid.cells import HELD_OUT_CLIENTS, Block
from bench.trial import contract
from bench.trial.clients import BlockRelease, Clients, observe
from bench.trial.likelihood import LikelihoodIdentification
from bench.trial.metrics import assign, from_uint8, psnr, quantise, relative_error, score, ssim


@dataclass(frozen=True)
class BlockReconstruction:
    """One attack's reconstruction of a block, rounded as it is stored, with the attack's objective along the way."""

    images: Tensor
    """The reconstructed images, rounded to uint8 (t b c h w); of `same_class` (t k b c h w) for k held-out clients."""
    labels: Tensor
    """The labels (t b) that the attack believes in; of `same_class` (t k b)."""
    start: Tensor | None
    """The objective (t,) where the attack starts; None without one."""
    found: Tensor | None
    """The objective (t,) at the reconstruction, before rounding; None without one."""
    at_truth: Tensor | None
    """The objective (t,) at the private images; None without one."""
    trace: dict[int, Tensor]
    """Iteration -> the objective (t,) there."""
    features: Tensor | None
    """The recovered features (t b d), as in `attacks.attack.Reconstruction`."""
    choices: dict[str, float] = field(default_factory=dict)
    """Figures that a learned attack chose on held-out public images: the same for all trials."""

    def at(self, trials: slice) -> BlockReconstruction:
        """Everything that was found for these trials."""
        cut = lambda value: None if value is None else value[trials]  # noqa: E731
        return BlockReconstruction(
            self.images[trials],
            self.labels[trials],
            cut(self.start),
            cut(self.found),
            cut(self.at_truth),
            {i: value[trials] for i, value in self.trace.items()},
            cut(self.features),
            self.choices,
        )


def attack_in_chunks(
    attack: Attack, observation: Observation, seeds: list[int], truth: Tensor, labels: Tensor, chunk: int
) -> BlockReconstruction:
    """Attack `chunk` trials at a time. `truth` uint8 (t b c h w) is only ever shown to `objective`, afterwards."""
    parts: list[BlockReconstruction] = []
    for first in range(0, observation.trials, chunk):
        trials = slice(first, first + chunk)
        seen = observation[trials]
        found = contract.reconstruct(attack, seen, seeds[trials])
        private = truth[trials].to(found.images.device, found.images.dtype) / 255
        at_truth = contract.objective(attack, seen, private, labels[trials].to(found.images.device))
        parts.append(
            BlockReconstruction(
                images=quantise(found.images).cpu(),
                labels=found.labels.cpu(),
                start=_values(found.start),
                found=_values(found.objective),
                at_truth=_values(at_truth),
                trace={i: value.detach().cpu() for i, value in found.trace.items()},
                features=_values(found.features),
                choices=found.choices,
            )
        )
    contract.check_choices([part.choices for part in parts])
    return BlockReconstruction(
        images=torch.cat([p.images for p in parts]),
        labels=torch.cat([p.labels for p in parts]),
        start=_joined([p.start for p in parts]),
        found=_joined([p.found for p in parts]),
        at_truth=_joined([p.at_truth for p in parts]),
        trace={i: torch.cat([p.trace[i] for p in parts]) for i in parts[0].trace if all(i in p.trace for p in parts)},
        features=_joined([p.features for p in parts]),
        choices=parts[0].choices,
    )


def identified_by_likelihood(clients: Clients, block: Block, release: BlockRelease) -> LikelihoodIdentification:
    """The images of a block that the server picks out of the pool by the release: the same for all its attacks."""
    cell, private = block.cell, (release.truth, release.labels, release.image_ids)
    seen, client = observe(release, cell.threat), str(cell.client_identity)
    key = str([block.client_key, cell.threat.identity])
    return clients.pool.identified(seen, clients.dataset(cell.setting), *private, client, key)


def rows_of(
    block: Block,
    release: BlockRelease,
    reconstruction: BlockReconstruction,
    attack: Attack | None,
    dataset: Dataset,
    likely: LikelihoodIdentification | None = None,
) -> Any:
    """The block's scores, one dict per image in the order of image numbers, and what belongs to all of them.

    `likely` is what the release alone identifies; rows have that column where it is given.
    """
    pool = dataset.pool()
    place = {image: i for i, image in enumerate(pool)}
    own = torch.tensor([[place.get(image, -1) for image in ids] for ids in release.image_ids.tolist()])
    guessed, true = reconstruction.labels, release.labels
    scores = score(reconstruction.images, release.truth, guessed, true, dataset.pixels(pool), own)
    if block.cell.threat.labels == "known" and not (attack is not None and attack.recovers_labels):
        scores["label_accuracy"].fill(np.nan)
        scores["nulls"]["label_accuracy"] = "the labels were given"
    if likely is not None and likely.found is None:
        scores["nulls"]["identified_by_likelihood"] = likely.reason
    error = None
    if reconstruction.features is not None and attack is not None:
        error = _feature_error(release, reconstruction.features, attack)
    norms = release.norms
    rows: list[dict[str, Any]] = []
    for trial in range(len(release.truth)):
        for slot in range(release.truth.shape[1]):
            row: dict[str, Any] = {
                "image": int(release.image_ids[trial, slot]),
                "trial": block.start // release.truth.shape[1] + trial,
                # Where the stored reconstructions hold this image, after matching.
                "position": [trial, int(scores["matched"][trial, slot])],
                "true_label": int(release.labels[trial, slot]),
                "update_norm": float(norms[trial]),
                "identification_pool": scores["identification_pool"],
                "identification_chance": scores["identification_chance"],
            }
            for metric in ("mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered"):
                row[metric] = float(scores[metric][trial, slot])
            if likely is not None:
                row["identified_by_likelihood"] = None if likely.found is None else float(likely.found[trial])
            row["feature_error"] = None if error is None else float(error[trial, slot])
            for name, values in (
                ("objective_start", reconstruction.start),
                ("objective_found", reconstruction.found),
                ("objective_truth", reconstruction.at_truth),
            ):
                row[name] = None if values is None else float(values[trial])
            rows.append(row)
    shared = {
        "nulls": scores["nulls"],
        "trace": {str(i): value.tolist() for i, value in reconstruction.trace.items()},
    }
    return sorted(rows, key=lambda row: row["image"]), shared


AVERAGED = ("mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered")
"""Metrics of the control `same_class`, each the mean over the held-out clients."""


def answers_to_held_out(found: BlockReconstruction) -> BlockReconstruction:
    """The reconstructions of t * k held-out clients as those of t attacked ones, without the attack's objective."""
    images, labels = (own.unflatten(0, (-1, HELD_OUT_CLIENTS)) for own in (found.images, found.labels))
    return BlockReconstruction(images, labels, None, None, None, {}, None, found.choices)


def rows_of_same_class(
    block: Block,
    release: BlockRelease,
    held_out: BlockRelease,
    found: BlockReconstruction,
    dataset: Dataset,
) -> Any:
    """The same of the control `same_class`: every metric is the mean over the held-out clients of the image's client.

    `release` is that of the attacked clients, to whose images the answers are matched, `held_out` that of the held-out
    ones. `held_out_ssim` and `held_out_psnr_db` are the same answers against the images that they are answers to.
    """
    of_clients = [
        rows_of(block, release, replace(found, images=found.images[:, i], labels=found.labels[:, i]), None, dataset)
        for i in range(HELD_OUT_CLIENTS)
    ]
    own = against_their_own(held_out.truth.unflatten(0, (-1, HELD_OUT_CLIENTS)), found.images)
    places = {int(image): place for place, image in enumerate(release.image_ids.flatten())}
    rows: list[dict[str, Any]] = []
    for answers in zip(*(told for told, _ in of_clients), strict=True):
        row = {**answers[0], "position": [answers[0]["position"][0], [each["position"][1] for each in answers]]}
        row |= {metric: float(np.mean([each[metric] for each in answers])) for metric in AVERAGED}
        row |= {metric: float(values[places[row["image"]]]) for metric, values in own.items()}
        rows.append(row)
    return rows, of_clients[0][1]


def against_their_own(truth: Tensor, found: Tensor) -> dict[str, Tensor]:
    """The scores (t * b,) of answers (t k b c h w) against their own clients' images, means over the k clients.

    One for each of `HELD_OUT_FIGURES`; the order of the answers within a client has no say.
    """
    order = assign(found.flatten(0, 1), truth.flatten(0, 1))
    matched = torch.stack([images[places] for images, places in zip(found.flatten(0, 1), order, strict=True)])
    guess, exact = from_uint8(matched.flatten(0, 1)), from_uint8(truth.flatten(0, 2))
    each = dict(zip(HELD_OUT_FIGURES, (ssim(guess, exact), psnr(guess, exact)), strict=True))
    return {metric: values.view(*truth.shape[:3]).mean(1).flatten() for metric, values in each.items()}


def stored_arrays(reconstruction: BlockReconstruction) -> dict[str, np.ndarray]:
    """The arrays of a reconstruction that are kept, so that it can be scored again."""
    arrays = {"images": reconstruction.images.numpy(), "labels": reconstruction.labels.numpy()}
    optional = {"start": reconstruction.start, "found": reconstruction.found, "at_truth": reconstruction.at_truth}
    optional["features"] = reconstruction.features
    for name, value in optional.items():
        if value is not None:
            arrays[name] = value.numpy()
    arrays |= {f"trace.{i}": value.numpy() for i, value in reconstruction.trace.items()}
    return arrays


def from_arrays(arrays: dict[str, np.ndarray]) -> BlockReconstruction:
    """The inverse of `stored_arrays`; what a block chose stands in its record alone."""
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    trace = {int(name.split(".")[1]): value for name, value in tensors.items() if name.startswith("trace.")}
    start, found, at_truth, features = (tensors.get(name) for name in ("start", "found", "at_truth", "features"))
    return BlockReconstruction(tensors["images"], tensors["labels"], start, found, at_truth, trace, features)


def _feature_error(release: BlockRelease, features: Tensor, attack: Attack) -> Tensor:
    """Relative error (t b) of the recovered features of each private image, matched by their own distance."""
    truth = release.truth.flatten(0, 1).float() / 255
    with torch.no_grad():
        own = attack.features(release.task, release.params, truth)
    own = own.view(*release.truth.shape[:2], -1)
    return torch.stack([relative_error(f[assign(f, o)], o) for f, o in zip(features, own, strict=True)])


def _values(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().float().cpu()


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None
