"""Lanes: trials and restarts that run side by side, and the step that is run for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attacks.execution import Precision

Lanes = dict[str, Tensor]
"""Variable or evidence name -> (lanes, ...)."""


@dataclass(frozen=True)
class Step:
    """One iteration, in `forms` that are equal functions of `arguments(start, evidence)`, the plain one first.

    It is run `iterations` times for every lane, always with the same argument number `fixed`. The forms take and return
    tensors nested in tuples and dicts. `state_bytes` is what the loop keeps of a lane beside the arguments; `precision`
    is that of the network in these forms.
    """

    forms: dict[str, Callable[..., Any]]
    arguments: Callable[[Lanes, Lanes], tuple[Any, ...]]
    fixed: int
    iterations: int
    state_bytes: int = 0
    precision: Precision = "float32"


def lanes_at(tensors: Lanes, index: Tensor, lanes: int) -> Lanes:
    """The lanes with these numbers; all `lanes` of them are in order."""
    if len(index) == lanes:
        return tensors
    return {name: t[index.to(t.device)] for name, t in tensors.items()}
