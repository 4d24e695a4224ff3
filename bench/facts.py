"""What a result depends on beside its own images: the rest of the dataset."""

from __future__ import annotations

from dataclasses import dataclass

from bench.dataset import Dataset, digest_of
from bench.datasets import load_dataset
from bench.settings import Weights


@dataclass(frozen=True)
class Facts:
    """Of a setting: the `task` that the dataset poses, and digests of the images `trained` on and of the `pool`."""

    task: str
    trained: str
    pool: str


def facts_of(dataset: Dataset, weights: Weights) -> Facts:
    """The facts of an attacked dataset and a recipe of weights; empty where nothing is trained."""
    task = str([dataset.classes, dataset.input_shape, dataset.mean, dataset.std])
    pool = dataset.digest(dataset.pool())
    if weights.epochs is None:
        return Facts(task, "", pool)
    source = dataset
    if weights.dataset is not None:
        elsewhere = {"root": weights.root, "download": bool(weights.download), "size": weights.size}
        source = load_dataset(weights.dataset, **elsewhere)
    training = source.training()
    return Facts(task, "" if training is None else digest_of(*training), pool)
