"""The global random generators: what their state is, and giving it back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def global_state() -> Any:
    """The state of every global generator, to compare."""
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())


def seed_everything(seed: int) -> None:
    """Seed every global generator on the CPU."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@contextmanager
def kept_global_state() -> Iterator[None]:
    """Give the global generators back as they were."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
