"""The public face: what a plugin author or a notebook imports, and the command itself."""

# ruff: noqa: F401 - the imports are for type checkers; at run time a name is imported when it is first asked for.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from attacks.attack import Attack, Reconstruction, UnsupportedPair
    from attacks.engine.descent import Adam, descend
    from attacks.engine.execution import report
    from attacks.engine.lanes import Lanes, normal_starts
    from attacks.engine.lbfgs import LBFGS, minimise
    from attacks.engine.solve import Descended
    from attacks.labels import believed_labels, check_labels, recovered_labels
    from attacks.matching.distances import Distance, cosine_distance, squared_distance
    from attacks.matching.priors import total_variation
    from attacks.matching.problem import MatchingProblem
    from attacks.matching.simulation import simulated_update
    from attacks.observation import Observation, gradient_scale
    from attacks.threat import ThreatModel
    from bench.conformance.suite import conformance
    from bench.engines.run import Run, run
    from bench.errors import ConfigurationError
    from defenses.accounting import Guarantee, gaussian_guarantee
    from defenses.defense import Defense
    from defenses.schedule import Schedule
    from defenses.surrogate import Surrogate
    from defenses.task import Batch, Params, Task, Update, local_training

_HOMES = {
    "Adam": "attacks.engine.descent",
    "Attack": "attacks.attack",
    "Batch": "defenses.task",
    "ConfigurationError": "bench.errors",
    "Defense": "defenses.defense",
    "Descended": "attacks.engine.solve",
    "Distance": "attacks.matching.distances",
    "Generator": "torch",
    "Guarantee": "defenses.accounting",
    "LBFGS": "attacks.engine.lbfgs",
    "Lanes": "attacks.engine.lanes",
    "MatchingProblem": "attacks.matching.problem",
    "Observation": "attacks.observation",
    "Params": "defenses.task",
    "Reconstruction": "attacks.attack",
    "Run": "bench.engines.run",
    "Schedule": "defenses.schedule",
    "Surrogate": "defenses.surrogate",
    "Task": "defenses.task",
    "Tensor": "torch",
    "ThreatModel": "attacks.threat",
    "UnsupportedPair": "attacks.attack",
    "Update": "defenses.task",
    "believed_labels": "attacks.labels",
    "check_labels": "attacks.labels",
    "conformance": "bench.conformance.suite",
    "cosine_distance": "attacks.matching.distances",
    "descend": "attacks.engine.descent",
    "gaussian_guarantee": "defenses.accounting",
    "gradient_scale": "attacks.observation",
    "local_training": "defenses.task",
    "minimise": "attacks.engine.lbfgs",
    "normal_starts": "attacks.engine.lanes",
    "recovered_labels": "attacks.labels",
    "report": "attacks.engine.execution",
    "run": "bench.engines.run",
    "simulated_update": "attacks.matching.simulation",
    "squared_distance": "attacks.matching.distances",
    "total_variation": "attacks.matching.priors",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]
_ROOMS = ("attacks", "defenses", "bench", "leaderboards")


def __getattr__(name: str) -> Any:
    """Import the home of a name when it is first asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'leakboard' has no attribute {name!r}; it has {', '.join(_HOMES)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


def main() -> None:
    """The command `leakboard`; exits with 2 when another package stands where one of ours should be."""
    import signal
    import sys

    # Ctrl-C ends the command without a traceback, also while it imports; `run` has its own way.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    foreign = _foreign_rooms()
    if foreign:
        listed = " and ".join(f"package {name!r} is {place}" for name, place in foreign.items())
        print(
            f"leakboard: {listed}, not Leakboard's own; rename it, take it off PYTHONPATH, or install Leakboard in an "
            "environment of its own",
            file=sys.stderr,
        )
        sys.exit(2)
    from leaderboards.cli.main import main as command

    command()


def _foreign_rooms() -> dict[str, str]:
    """Our package names that resolve to somewhere else, and where; nothing is imported."""
    from importlib.util import find_spec
    from pathlib import Path

    home = Path(__file__).resolve().parent
    found: dict[str, str] = {}
    for room in _ROOMS:
        spec = find_spec(room)
        places = list(spec.submodule_search_locations or [spec.origin]) if spec else ["nowhere"]
        if Path(str(places[0])).resolve() != home / room:
            found[room] = str(places[0])
    return found


if __name__ == "__main__":
    main()
