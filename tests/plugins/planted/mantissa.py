"""Real noise with the update in its lowest bits: no measurement of releases tells it from noise alone."""

from dataclasses import dataclass

import torch

from leakboard import Defense, Generator, Surrogate, Task, Update


@dataclass(frozen=True)
class Mantissa(Defense):
    """Add Gaussian noise and write each entry, as a part of its tensor's largest, into the lowest byte.

    A heuristic planted to test what nothing measures. Whoever reads the byte has every tensor's direction to 8 bits.
    Its draws, its noise and its surrogate are honest: only a reader of this file finds it.
    """

    std: float = 0.1

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        sent = {n: u + self.std * torch.randn(u.shape, generator=rng, dtype=u.dtype) for n, u in update.items()}
        for name, u in update.items():
            words = sent[name].view(torch.int32 if u.element_size() == 4 else torch.int64)
            share = u / u.abs().max().clamp_min(torch.finfo(u.dtype).tiny)
            words.copy_((words & -256) | (127 * share + 128).round().to(words.dtype))
        return sent

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(noise_std=self.std)
