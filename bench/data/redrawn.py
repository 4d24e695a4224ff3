"""A dataset with other images in the place of those that a board attacks and makes public."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from bench.data.dataset import Dataset


def redrawn(dataset: Dataset, attacked: int, seed: int) -> Dataset:
    """The dataset in an order that the seed draws, so that the first images to attack are not the `attacked` first.

    Those come last: whoever attacks more images than there are others attacks them again. The training images change
    places too, so that another half of them is public, and each is mirrored or moved by a pixel with a chance of one
    half: a defense that knows images by heart knows few of them.
    """
    rng = Generator().manual_seed(seed)
    others, own = torch.arange(attacked, len(dataset)), torch.arange(min(attacked, len(dataset)))
    order = torch.cat([part[torch.randperm(len(part), generator=rng)] for part in (others, own)])
    training_seed = int(torch.randint(2**62, (), generator=rng))
    read_training = dataset.read_training

    def training() -> tuple[Tensor, Tensor]:
        assert read_training is not None, "a dataset without a training half has no other one"
        pixels, labels = read_training()
        own_rng = Generator().manual_seed(training_seed)
        shuffled = torch.randperm(len(labels), generator=own_rng)
        return moved(pixels[shuffled], own_rng), labels[shuffled]

    return replace(
        dataset,
        labels=dataset.labels[order],
        read=lambda indices: dataset.read(order[indices].tolist()),
        read_training=None if read_training is None else training,
    )


def moved(pixels: Tensor, rng: Generator) -> Tensor:
    """Images uint8 (n c h w), each with a chance of one half mirrored, or moved by a pixel up, down, left or right.

    At the edge that it leaves a moved image repeats its last row or column.
    """
    h, w = pixels.shape[-2:]
    rows, columns = torch.arange(h), torch.arange(w)
    ways = [(rows, columns.flip(0))]
    ways += [((rows + step).clamp(0, h - 1), columns) for step in (-1, 1)]
    ways += [(rows, (columns + step).clamp(0, w - 1)) for step in (-1, 1)]
    stays = torch.rand(len(pixels), generator=rng) < 0.5
    # As often mirrored as moved: for most images a pixel is no great step.
    drawn = torch.randint(8, (len(pixels),), generator=rng).sub(3).clamp(min=0)
    found = pixels.clone()
    for way, (own_rows, own_columns) in enumerate(ways):
        chosen = ~stays & (drawn == way)
        found[chosen] = pixels[chosen][..., own_rows, :][..., own_columns]
    return found
