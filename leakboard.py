"""The public face: what a plugin author or a notebook imports, and the command itself."""

# ruff: noqa: F401 - the imports are for type checkers; at run time a name is imported when it is first asked for.

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

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
    from bench.engines.run import Run
    from bench.errors import ConfigurationError
    from bench.grid.config import Config
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
    "simulated_update": "attacks.matching.simulation",
    "squared_distance": "attacks.matching.distances",
    "total_variation": "attacks.matching.priors",
}
__all__ = sorted([*_HOMES, "run"])  # pyright: ignore[reportUnsupportedDunderAll]
_ROOMS = ("attacks", "defenses", "bench", "leaderboards")


def __getattr__(name: str) -> Any:
    """Import the home of a name when it is first asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'leakboard' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)


def run(
    spec: str | Path | Config,
    *,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str | Path] = (),
    defenses: Sequence[str] = (),
    attacks: Sequence[str] = (),
    device: str | None = None,
    retry: Collection[str] = (),
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Run:
    """Run a grid, or what is left of it, and return its results.

    `spec` is a preset's name, `board:NAME`, the path of a TOML file or a `Config`; `output` is the run's folder,
    `runs/NAME` unless given; `overrides` are "key=value" as on the command line; `plugins` are Python files with
    methods of your own; `defenses` and `attacks`, such as "dp_sgd(noise_multiplier=0.1)", join the grid's; `retry`
    names statuses to try again; `say` hears notes for people. A failed cell does not raise: look at `Run.counts()`.
    Raises ConfigurationError for a user's mistake, before anything runs, and `Unwritable` when a result cannot be
    written.

    >>> finished = leakboard.run("quick", overrides=["grid.images=4"], progress=True)  # doctest: +SKIP
    >>> finished.frame().groupby(["defense", "attack"])["psnr_db"].mean()  # doctest: +SKIP
    """
    from bench.engines.run import run as run_grid
    from bench.registry.registry import Registry
    from leaderboards.entries.board import grid_source

    return run_grid(
        grid_source(spec) if isinstance(spec, str) else spec,
        Registry(plugins),
        output=output,
        overrides=overrides,
        defenses=defenses,
        attacks=attacks,
        device=device,
        retry=retry,
        progress=progress,
        say=say,
    )


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
