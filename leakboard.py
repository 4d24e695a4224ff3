"""The public face: what a plugin author or a notebook imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

_HOMES = {
    "Attack": "attacks.attack",
    "Reconstruction": "attacks.attack",
    "Observation": "attacks.observation",
    "ThreatModel": "attacks.threat",
    "Batch": "defenses.client",
    "Defense": "defenses.client",
    "Params": "defenses.client",
    "Task": "defenses.client",
    "Update": "defenses.client",
    "local_training": "defenses.client",
    "Schedule": "defenses.schedule",
    "Run": "bench.runs",
    "run": "bench.runs",
    "Generator": "torch",
    "Tensor": "torch",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import the home of a name when it is first asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'leakboard' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
