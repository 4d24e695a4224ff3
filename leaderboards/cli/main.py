"""The command `leakboard`: the publisher's commands and the referee's; torch is imported only by those that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.errors import ConfigurationError, Unwritable
from leaderboards.cli.boards import add_board_commands
from leaderboards.cli.grids import add_grid_commands
from leaderboards.cli.options import (
    Attacks,
    Defenses,
    Device,
    ExecutionOption,
    GridSpec,
    Overrides,
    Plugins,
    PrecisionOption,
    RunFolder,
)
from leaderboards.cli.report import draw_figures, report_run, say, terminal

app = typer.Typer(
    help="Gradient-inversion attacks against federated-learning defenses: how much leaks, and at what cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Format = Literal["text", "csv", "markdown", "latex", "json"]


@app.command("run")
def compute_run(
    spec: GridSpec,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="RUN", help="The run's folder; runs/NAME unless given.")
    ] = None,
    device: Device = None,
    execution: ExecutionOption = None,
    precision: PrecisionOption = None,
    plugin: Plugins = None,
    defense: Defenses = None,
    attack: Attacks = None,
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
    from bench.engines.supervisor import become_worker, is_worker, supervise

    if not is_worker():
        raise typer.Exit(supervise(sys.argv[1:], output or _default_folder(spec, overrides or [])))
    died_in = become_worker()
    from bench.engines.run import run
    from bench.registry.registry import Registry
    from leaderboards.entries.board import grid_source

    asked = {"execution": execution, "precision": precision}
    finished = run(
        grid_source(spec),
        Registry(plugin or []),
        output=output,
        overrides=[*(overrides or []), *(f'engine.{key}="{value}"' for key, value in asked.items() if value)],
        defenses=defense or [],
        attacks=attack or [],
        device=device,
        retry=retry or [],
        retry_since=died_in,
        progress=True,
        say=say,
    )
    raise typer.Exit(0 if report_run(finished.folder, quiet=no_report) else 1)


@app.command("table")
def print_table(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="How to write it.")] = "text",
) -> None:
    """Print a run's results.

    Attacks against defenses with means, deviations and intervals; csv and json hold every figure.
    """
    from bench.store.store import Store
    from leaderboards.tables.scores import render_scores

    store = Store.existing(run)
    typer.echo(render_scores(store.frame(), format, store.jobs_frame(), terminal()), nl=False)


@app.command("rank")
def print_ranks(
    run: RunFolder,
    format: Annotated[Format, typer.Option(help="How to write it.")] = "text",
    required: Annotated[
        list[str] | None,
        typer.Option(metavar="ATTACK", help="An attack that every defense must face; all of the run unless given."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="SSIM by which an undefended attack must beat its floor; 0.05 unless given.")
    ] = None,
    minimum_images: Annotated[
        int | None, typer.Option(help="Fewer images are not ranked; 100 unless given.", show_default=False)
    ] = None,
    rules: Annotated[
        int | None,
        typer.Option(help="Rules of floors, verdicts and ranks: 2, by means, unless given; 1, image by image."),
    ] = None,
) -> None:
    """Say who leaks least, and at what cost: what the strongest attack gets, with verdicts and ranks.

    Where the run has trained and certified, accuracy, epsilon and certificates stand beside it. csv and json hold
    every figure. A run of a board is ranked by the board's rules where nothing else is given.
    """
    from dataclasses import replace

    from bench.store.store import Store
    from leaderboards.entries.board import rule_of_run
    from leaderboards.tables.standings import render_standings

    given = {"required": tuple(required) if required else None, "margin": margin}
    given |= {"minimum_images": minimum_images, "rules": rules}
    try:
        rule = replace(rule_of_run(run), **{key: value for key, value in given.items() if value is not None})
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    store = Store.existing(run)
    typer.echo(render_standings(store.frame(), format, rule, store.jobs_frame(), terminal()), nl=False)


@app.command("plot")
def plot_run(run: RunFolder) -> None:
    """Draw a run's results into RUN/plots.

    Privacy against accuracy where it was measured, strength curves, a heat map and a gallery of every setting, as PNG
    and SVG.
    """
    for path in draw_figures(run):
        typer.echo(str(path))


add_grid_commands(app)
add_board_commands(app)


def _default_folder(spec: str, overrides: list[str]) -> Path:
    from bench.grid.config import Config
    from bench.grid.reading import run_name
    from leaderboards.entries.board import grid_source

    return Path("runs") / run_name(grid_source(spec), overrides, Config)


def main() -> None:
    """The entry point: a user's mistake is a message and exit code 2, a disk that takes no more is 1."""
    try:
        app(prog_name="leakboard")
    except ConfigurationError as error:
        say(str(error))
        sys.exit(2)
    except Unwritable as error:
        say(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
