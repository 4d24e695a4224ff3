"""The defended client as a function that the server runs on images of its own, and what attacks learned from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from defenses.task import Update


@dataclass(frozen=True, eq=False)
class Release:
    """Everything that the server sees of t clients.

    `updates` holds (t, *shape) for every parameter; `batch_statistics`, named as by
    `defenses.batch_norm.batch_statistics`, (t, channels) of every batch-norm layer where the threat model grants them.
    """

    updates: Update
    batch_statistics: dict[str, Tensor] | None = None


class BlackBox(ABC):
    """The client with its defense: the code of a defense is public (Kerckhoffs), its private draws are not.

    Without knowledge of the defense it is the undefended client of the schedule that the server assumes.
    """

    @abstractmethod
    def release(self, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Release:
        """The releases, on the CPU, of t clients of uint8 images (t b c h w) with labels (t b).

        `seeds` holds one number a client, of which all its draws follow: encodings, the order of local batches, noise.
        Raises `BlackBoxFault` where the defense fails or takes too long.
        """


class BlackBoxFault(RuntimeError):
    """A defense that its attacker ran raised, took too long, or returned what is no update; the message says which."""


class Lessons:
    """Results of public images alone, kept from one call of an attack to the next while client and defense stay.

    Nothing that was learned from an attacked release may be kept: a run that is resumed would differ from a calm one.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def learn(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result that is kept under the key, made now where nothing is kept."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def __deepcopy__(self, _: Any) -> Lessons:
        """The same lessons: nobody changes what is kept."""
        return self
