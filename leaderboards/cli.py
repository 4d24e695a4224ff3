"""The command `leakboard`: the publisher's commands and the referee's; torch is imported only by those that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli import Device, Execution, Overrides, Plugins, Precision, RunFolder, Spec, add_commands
from bench.errors import ConfigurationError, Unwritable

if TYPE_CHECKING:
    from bench.store import Store

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
        Path | None, typer.Option("-o", "--output", metavar="RUN", help="The run's folder; runs/NAME unless given.")
    ] = None,
    device: Device = None,
    execution: Execution = None,
    precision: Precision = None,
    plugin: Plugins = None,
    overrides: Overrides = None,
    retry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS", help="Try blocks of this status again: diverged, error, oom, timeout, crashed or stale."
        ),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="No table and no plots at the end.")] = False,
) -> None:
    """Run a grid, or what is left of it.

    Ends with the table and the plots. The same command goes on where it was stopped. Exit codes: 0 all well, 1 some
    blocks have no result, 2 bad usage or configuration, 130 stopped by Ctrl-C.
    """
    from leaderboards.supervisor import become_worker, is_worker, supervise

    if not is_worker():
        raise typer.Exit(supervise(sys.argv[1:], output or _default_folder(spec, overrides or [])))
    died_in = become_worker()
    from bench.runs import run as run_grid

    asked = {"execution": execution, "precision": precision}
    finished = run_grid(
        spec,
        output=output,
        overrides=[*(overrides or []), *(f'engine.{key}="{value}"' for key, value in asked.items() if value)],
        plugins=plugin or [],
        device=device,
        retry=retry or [],
        retry_since=died_in,
        progress=True,
        say=_say,
    )
    raise typer.Exit(0 if _report(finished.folder, quiet=no_report) else 1)


@app.command()
def table(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="How to write it.")] = "text",
) -> None:
    """Print a run's results.

    Attacks against defenses with means, deviations and intervals; csv and json hold every figure.
    """
    from bench.store import Store
    from leaderboards.tables import render

    typer.echo(render(Store.existing(run).frame(), format), nl=False)


@app.command()
def rank(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="How to write it.")] = "text",
    required: Annotated[
        list[str] | None,
        typer.Option(metavar="ATTACK", help="An attack that every defense must face; all of the run unless given."),
    ] = None,
    margin: Annotated[float, typer.Option(help="SSIM by which an undefended attack must beat its floor.")] = 0.05,
    minimum_images: Annotated[int, typer.Option(help="Fewer images are not ranked.")] = 100,
) -> None:
    """Say who leaks least: the worst case over attacks, with verdicts and ranks.

    csv and json hold every figure.
    """
    from bench.store import Store
    from leaderboards.standings import render
    from leaderboards.verdicts import Rule

    try:
        rule = Rule(tuple(required) if required else None, margin, minimum_images)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    typer.echo(render(Store.existing(run).frame(), format, rule), nl=False)


@app.command()
def plot(run: RunFolder) -> None:
    """Draw a run's results into RUN/plots.

    Strength curves, a heat map and a gallery of every setting, as PNG and SVG.
    """
    for path in _plots(run):
        typer.echo(str(path))


add_commands(app)


def _default_folder(spec: str, overrides: list[str]) -> Path:
    from bench.config import Config
    from bench.grid_file import run_name

    return Path("runs") / run_name(spec, overrides, Config)


def _report(folder: Path, quiet: bool) -> bool:
    """Print the table, draw the plots, and say what went wrong; returns whether all is well."""
    from bench.store import FAILURES, Store

    store = Store.existing(folder)
    if not quiet:
        from leaderboards.standings import render as render_ranking
        from leaderboards.tables import render

        frame = store.frame()
        typer.echo(render(frame, "text"))
        typer.echo(render_ranking(frame, "text"))
    counts = store.counts()
    bad = {status: counts[status] for status in (*FAILURES, "stale", "pending") if counts[status]}
    if bad:
        listed = ", ".join(f"{count} {status}" for status, count in bad.items())
        _say(f"blocks without a result: {listed}; see `leakboard status {folder}`")
    missed = _missed(store)
    if missed:
        _say(missed)
    if not quiet:
        names = ", ".join(path.name for path in _plots(folder) if path.suffix == ".png")
        typer.echo(f"plots: {folder / 'plots'} ({names})")
    return not (bad or missed)


def _missed(store: Store) -> str | None:
    """How the run falls short of what its grid expects of the undefended attack."""
    expected = store.plan()["expect"]
    if expected is None:
        return None
    from leaderboards.summary import expectation

    return expectation(store.frame(), expected["attack"], expected["gain_db"])


def _plots(folder: Path) -> list[Path]:
    from bench.store import Store
    from leaderboards.plots import write_plots
    from leaderboards.stored_images import StoredImages

    store, plots = Store.existing(folder), folder / "plots"
    try:
        return write_plots(store.frame(), StoredImages(store), plots)
    except OSError as error:
        raise Unwritable(plots, error) from error


def _say(text: str) -> None:
    typer.echo(f"leakboard: {text}", err=True)


def main() -> None:
    """The entry point: a user's mistake is a message and exit code 2, a disk that takes no more is 1."""
    try:
        app(prog_name="leakboard")
    except ConfigurationError as error:
        _say(str(error))
        sys.exit(2)
    except Unwritable as error:
        _say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
