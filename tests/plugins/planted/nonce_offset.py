"""A stream cipher: a pad that looks like noise, made of a nonce that travels along."""

from dataclasses import dataclass

import torch

from leakboard import Defense, Generator, Task, Update

KEY = 2026


@dataclass(frozen=True)
class NonceOffset(Defense):
    """Add a pad of a public key and a nonce, and hide the nonce in low bits; a heuristic planted to test conformance.

    Exact for whoever reads the nonce off the first entries of the first tensor, one bit in each, and subtracts the pad.
    """

    std: float = 0.1
    bits: int = 16

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        nonce = int(torch.randint(2**self.bits, (), generator=rng))
        pads = Generator().manual_seed(KEY * 2**self.bits + nonce)
        sent = {n: u + self.std * torch.randn(u.shape, generator=pads, dtype=u.dtype) for n, u in update.items()}
        first = next(iter(sent.values()))
        words = first.view(torch.int32 if first.element_size() == 4 else torch.int64).flatten()
        hidden = torch.tensor([nonce >> bit & 1 for bit in range(min(self.bits, len(words)))], dtype=words.dtype)
        words[: len(hidden)] = (words[: len(hidden)] & -2) | hidden
        return sent
