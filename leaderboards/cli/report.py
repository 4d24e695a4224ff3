"""The end of a run: its tables and figures, and messages about everything that must not be trusted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bench.errors import Unwritable

if TYPE_CHECKING:
    from rich.console import Console

    from bench.store.store import Store
    from leaderboards.ranking.costs import RunCosts


def report_run(folder: Path, quiet: bool) -> bool:
    """Print the table, draw the plots, and say what went wrong; returns whether all is well."""
    from bench.store.store import FAILURES, Store
    from leaderboards.ranking.costs import costs_of

    store = Store.existing(folder)
    jobs = store.jobs_frame()
    if not quiet:
        from leaderboards.entries.board import rule_of_run
        from leaderboards.tables.scores import render_scores
        from leaderboards.tables.standings import render_standings

        frame = store.frame()
        console = terminal()
        typer.echo(render_scores(frame, "text", console=console))
        typer.echo(render_standings(frame, "text", rule_of_run(folder), jobs, console))
    counts = store.counts()
    bad = {status: counts[status] for status in (*FAILURES, "stale", "pending") if counts[status]}
    if bad:
        listed = ", ".join(f"{count} {status}" for status, count in bad.items())
        say(f"blocks without a result: {listed}; see `leakboard status {folder}`")
    costs = costs_of(jobs)
    missed = _missed(store, costs)
    for message in (*missed, *_shortfalls(costs)):
        say(message)
    if not quiet:
        names = ", ".join(path.name for path in draw_figures(folder) if path.suffix == ".png")
        typer.echo(f"plots: {folder / 'plots'} ({names})")
    return not (bad or missed)


def draw_figures(folder: Path) -> list[Path]:
    """Draw the run's figures into its folder `plots`; returns the files. Raises Unwritable where that cannot be."""
    from bench.store.store import Store
    from leaderboards.entries.board import rule_of_run
    from leaderboards.figures.all_figures import write_plots
    from leaderboards.figures.gallery import StoredImages

    store, plots = Store.existing(folder), folder / "plots"
    try:
        return write_plots(store.frame(), StoredImages(store), plots, store.jobs_frame(), rule_of_run(folder))
    except OSError as error:
        raise Unwritable(plots, error) from error


def terminal() -> Console | None:
    """The terminal that the output goes to; None where it goes into a file or to another program."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else None


def say(text: str) -> None:
    """Print a message beside the output of the command, which may be read by a program."""
    typer.echo(f"leakboard: {text}", err=True)


def _missed(store: Store, costs: RunCosts) -> list[str]:
    """Messages about a broken certificate, and about an undefended attack that gains less than the grid expects."""
    found = costs.alarms()
    expected = store.plan()["expect"]
    if expected is not None:
        from leaderboards.statistics.summary import expectation

        missed = expectation(store.frame(), expected["attack"], expected["gain_db"])
        found += [missed] if missed else []
    return found


def _shortfalls(costs: RunCosts) -> list[str]:
    """Messages about networks whose undefended training falls short of what the run asks: nobody is ranked there."""
    trained = dict.fromkeys((dataset, model) for dataset, model, _ in costs.trained)
    found = {f"{dataset}, {model}": costs.shortfall(dataset, model) for dataset, model in trained}
    return [f"{place}: {short}; nobody is ranked" for place, short in found.items() if short]
