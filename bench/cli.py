"""The referee's commands: list, plan, status, export; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.errors import ConfigurationError

Kind = Literal["attacks", "defenses", "datasets", "models", "presets"]
Spec = Annotated[str, typer.Argument(help="A preset's name, or a TOML file.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
Plugins = Annotated[
    list[Path] | None, typer.Option("--plugin", help="A Python file with attacks or defenses of your own.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. grid.images=20.")
]


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this file into the application."""
    app.command("list")(list_)
    for command in (plan, status, export):
        app.command()(command)


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    verify: Annotated[bool, typer.Option(help="Import installed plugins too, to find broken ones.")] = False,
    plugin: Plugins = None,
) -> None:
    """List attacks, defenses, datasets, models or presets."""
    import json

    from bench.listing import listing, render_listing
    from bench.registry import Registry

    rows = listing(kind, Registry(plugin or []), verify=verify)
    typer.echo(json.dumps(rows, indent=1) if as_json else render_listing(rows))


def plan(
    spec: Spec,
    plugin: Plugins = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The run's folder.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
) -> None:
    """Show what would run, what is done, what is skipped and why, and the hours it would take."""
    from bench.estimate import describe_plan
    from bench.runs import prepare
    from bench.store import Store

    config, registry, clients, planned = prepare(spec, overrides=overrides or [], plugins=plugin or [])
    store = Store(output or Path("runs") / config.name)
    typer.echo(describe_plan(planned, registry, clients, store, device or config.engine.device))


def status(run: RunFolder) -> None:
    """Count a run's blocks by status, and give the reason of every failure."""
    from bench.store import Store

    store = Store.existing(run)
    frame = store.frame()
    for name, count in sorted(store.counts().items()):
        typer.echo(f"{name:>9}  {count} block{'s' if count > 1 else ''}")
    unfinished = frame[~frame["status"].isin(["ok", "pending"])].drop_duplicates(["cell", "status", "reason"])
    for row in unfinished.itertuples():
        typer.echo(
            f"{row.status}: {row.attack} / {row.defense}: {row.reason or 'made by another version of the method'}"
        )


def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option(help="A .parquet or .csv file.", show_default=False)],
) -> None:
    """Write one row per attacked image to Parquet or CSV."""
    from bench.store import Store

    writers = {".parquet": "to_parquet", ".csv": "to_csv"}
    if to.suffix not in writers:
        raise ConfigurationError(f"--to {to}: the file must end in .parquet or .csv")
    frame = Store.existing(run).frame()
    try:
        getattr(frame, writers[to.suffix])(to, index=False)
    except OSError as error:
        raise ConfigurationError(f"cannot write {to}: {error.strerror or error}") from error
    typer.echo(f"{len(frame)} rows -> {to}")
