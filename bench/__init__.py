"""The referee: plans the grid, runs every cell, scores and stores it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.runs import Run, run

__all__ = ["Run", "run"]


def __getattr__(name: str) -> Any:
    """`bench.run` and `bench.Run`, imported when first asked for: torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    from bench import runs

    return getattr(runs, name)
