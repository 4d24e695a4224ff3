"""The command `leakboard`: the publisher's commands and the referee's; torch is imported only by those that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.cli import Overrides, Plugins, RunFolder, Spec, add_commands
from bench.errors import ConfigurationError

app = typer.Typer(
    help="Gradient-inversion attacks against federated-learning defenses: how much leaks, and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Format = Literal["text", "csv", "markdown", "latex", "json"]


@app.command()
def run(
    spec: Spec,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run's folder; runs/NAME unless given.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the attacks run.")] = None,
    plugin: Plugins = None,
    overrides: Overrides = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(help="Try blocks of this status again: diverged, error, oom, timeout, crashed or stale."),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="No table and no plots at the end.")] = False,
) -> None:
    """Run a grid, or what is left of it; ends with the table and the plots."""
    from leaderboards.supervisor import is_worker, supervise

    if not is_worker():
        from bench.grid_file import read_grid

        folder = output or Path("runs") / str(read_grid(spec)[1])
        raise typer.Exit(supervise(sys.argv[1:], folder))
    from bench.runs import run as run_grid

    finished = run_grid(
        spec,
        output=output,
        overrides=overrides or [],
        plugins=plugin or [],
        device=device,
        retry=retry or [],
        progress=True,
        say=lambda text: typer.echo(text, err=True),
    )
    problem = _report(finished.folder, quiet=no_report)
    if problem:
        raise typer.Exit(1)


@app.command()
def table(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="How to write it.")] = "text",
) -> None:
    """Print a run's results: attacks against defenses, with intervals."""
    from bench.store import Store
    from leaderboards.tables import render

    typer.echo(render(Store.existing(run).frame(), format))


@app.command()
def plot(run: RunFolder) -> None:
    """Draw a run's results into RUN/plots, as PNG and SVG."""
    for path in _plots(run):
        typer.echo(str(path))


add_commands(app)


def _report(folder: Path, quiet: bool) -> bool:
    """Print the table, draw the plots, and say what went wrong; returns whether anything did."""
    from bench.store import FAILURES, Store
    from leaderboards.tables import expectation, render

    store = Store.existing(folder)
    frame = store.frame()
    if not quiet:
        typer.echo(render(frame, "text"))
        paths = _plots(folder)
        typer.echo(f"plots: {folder / 'plots'} ({', '.join(path.name for path in paths if path.suffix == '.png')})")
    counts = store.counts()
    bad = {status: counts[status] for status in (*FAILURES, "stale", "pending") if counts[status]}
    if bad:
        listed = ", ".join(f"{count} {status}" for status, count in bad.items())
        typer.echo(f"leakboard: blocks without a result: {listed}; see `leakboard status {folder}`", err=True)
    expected = store.plan()["expect"]
    missed = expected and expectation(frame, expected["attack"], expected["gain_db"])
    if missed:
        typer.echo(f"leakboard: {missed}", err=True)
    return bool(bad or missed)


def _plots(folder: Path) -> list[Path]:
    from bench.store import Store
    from leaderboards.plots import write_plots
    from leaderboards.stored_images import StoredImages

    store = Store.existing(folder)
    return write_plots(store.frame(), StoredImages(store), folder / "plots")


def main() -> None:
    """The entry point: a user's mistake is a message and exit code 2, Ctrl-C is 130."""
    try:
        app()
    except ConfigurationError as error:
        print(f"leakboard: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("leakboard: stopped; the same command goes on where this one ended", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
