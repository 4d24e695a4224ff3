"""Training a network on a plain server: stochastic gradient descent as the paper does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from bench.data.dataset import Dataset
from bench.errors import ConfigurationError
from defenses.task import Classifier

Progress = Callable[[int, int], None]
"""Called after every step with the steps done and their total."""


@dataclass(frozen=True)
class Recipe:
    """SGD with the constants of Geiping et al. (2020), section 5, but momentum and a half cosine instead of steps."""

    learning_rate: float = 0.1
    """The rate of the first step, falling to 0 in half a cosine."""
    momentum: float = 0.9
    """The momentum of SGD, without Nesterov's correction."""
    weight_decay: float = 5e-4
    """The factor of the weights that is added to their gradient."""
    batch_size: int = 128
    """Images of one step; all of them where there are fewer."""
    flips: bool = True
    """True if half of the 32x32 colour images are mirrored."""


def train(
    model: Classifier,
    pixels: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    recipe: Recipe,
    device: str = "cpu",
    progress: Progress | None = None,
) -> None:
    """Train `model` in place on uint8 pixels (m c h w) and labels (m,); it ends on the CPU in eval mode.

    Each epoch is shuffled anew from `seed`, a last part of a batch left out. 32x32 colour images are augmented:
    a crop after padding by 4 black pixels, and a flip. The global generator is left as it was.
    """
    rng = Generator().manual_seed(seed)
    size = min(recipe.batch_size, len(labels))
    steps = len(labels) // size
    on_cpu = torch.device(device).type == "cpu"
    with torch.random.fork_rng(devices=[] if on_cpu else [device]):
        # Dropout takes no generator: it draws from the global one of its device.
        torch.default_generator.manual_seed(seed)
        if not on_cpu:
            torch.cuda.manual_seed(seed)
        model.to(device).train()
        optimizer = torch.optim.SGD(
            model.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        for epoch in range(epochs):
            order = torch.randperm(len(labels), generator=rng)
            for step in range(steps):
                chosen = order[step * size : (step + 1) * size]
                images = augment(pixels[chosen].float() / 255, rng, recipe.flips).to(device)
                loss = F.cross_entropy(model(images), labels[chosen].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                if progress is not None:
                    progress(epoch * steps + step + 1, epochs * steps)
        model.to("cpu").eval()
    if not all(value.isfinite().all() for value in model.state_dict().values()):
        raise ConfigurationError(
            f"training diverged: weights are not finite after {epochs} epochs at learning rate "
            f"{recipe.learning_rate}; use another model (one with norm layers) or give a checkpoint"
        )


def augment(images: Tensor, rng: Generator, flips: bool = True) -> Tensor:
    """A random crop after padding by 4, and with `flips` a random flip, of images (b 3 32 32); others unchanged."""
    if images.shape[1:] != (3, 32, 32):
        return images
    count = len(images)
    offsets = torch.randint(0, 9, (2, count, 1), generator=rng)
    rows, columns = offsets + torch.arange(32)
    flipped = (torch.rand(count, 1, generator=rng) < 0.5) & flips
    columns = torch.where(flipped, columns.flip(1), columns)
    padded = F.pad(images, (4, 4, 4, 4))
    which, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(3).view(1, -1, 1, 1)
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def accuracy(model: Classifier, dataset: Dataset, most: int, device: str = "cpu") -> float:
    """Fraction of the attacked split classified rightly; at most `most` images, evenly spaced."""
    count = min(most, len(dataset))
    indices = [i * len(dataset) // count for i in range(count)]
    right = 0
    model.to(device)
    with torch.no_grad():
        for start in range(0, count, 250):
            part = indices[start : start + 250]
            guess = model(dataset.images(part).to(device)).argmax(1).cpu()
            right += int((guess == dataset.labels[part]).sum())
    model.to("cpu")
    return right / count
