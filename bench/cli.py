"""The referee's commands: list, plan, status, export, and those of plugins; imports are inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bench.errors import ConfigurationError

Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A preset's name, board:NAME, or a TOML file.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the attacks run.")]
Execution = Annotated[
    Literal["auto", "eager", "compile", "graph"] | None,
    typer.Option(help="How: auto measures what compiling, or replaying a CUDA graph, would save."),
]
Precision = Annotated[
    Literal["float32", "tf32", "bfloat16"] | None,
    typer.Option(help="Of the attacker's network; tf32 needs a GPU. Results of another precision are stale."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file with attacks or defenses of your own."),
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense", metavar="DEFENSE", help="Joins the grid's defenses, e.g. 'dp_sgd(noise_multiplier=0.1)'."
    ),
]
Attacks = Annotated[list[str] | None, typer.Option("--attack", metavar="ATTACK", help="Joins the grid's attacks.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. grid.images=20.")
]


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this file into the application."""
    from bench.plugin_cli import check, new

    app.command("list")(list_)
    for command in (plan, status, export, new, check):
        app.command()(command)


def list_(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="attacks, defenses, datasets, models or presets.", show_default=False)
    ],
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
    defense: Defenses = None,
    attack: Attacks = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="RUN", help="The run's folder.")] = None,
    device: Device = None,
) -> None:
    """Show what would run, and the hours it would take.

    Also what is done, and what is skipped and why. The hours come from a few iterations of every attack.
    """
    from bench.estimate import describe_plan
    from bench.runs import prepare
    from bench.store import Store

    methods = {"defenses": defense or [], "attacks": attack or []}
    config, registry, clients, planned = prepare(spec, overrides=overrides or [], plugins=plugin or [], **methods)
    typer.echo("leakboard: measuring the first iterations of every attack", err=True)
    typer.echo(describe_plan(planned, registry, clients, Store(output or Path("runs") / config.name), device))


def status(run: RunFolder) -> None:
    """Count a run's blocks by status, with the reason of every failure."""
    from bench.store import FAILURES, Store

    store = Store.existing(run)
    counts = store.counts()
    for name, count in sorted(counts.items()):
        typer.echo(f"{name:>9}  {count} block{'s' * (count != 1)}")
    said: dict[str, str] = {}
    for job, state in store.job_states():
        if state not in ("ok", "pending"):
            where = f" (traceback in {store.blocks / job['job']}.json)" if state == "error" else ""
            said.setdefault(f"{state}: {job['kind']} / {job['defense']}: {store.job_reason(job, state)}", where)
    for cell, block, state in store.states():
        if state not in ("ok", "pending"):
            text = f"{state}: {cell['attack']} / {cell['defense']}: {store.reason(cell, block['id'], state)}"
            said.setdefault(text, f" (traceback in {store.blocks / block['id']}.json)" if state == "error" else "")
    for text, where in said.items():
        typer.echo(text + where)
    again = [name for name in (*FAILURES, "stale") if counts[name]]
    if again:
        typer.echo(f"to try again: add {' '.join(f'--retry {name}' for name in again)} to the run's command")


def export(
    run: RunFolder,
    to: Annotated[Path, typer.Option(help="A .parquet or .csv file.", show_default=False)],
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Trainings and certificates instead of attacked images.")
    ] = False,
) -> None:
    """Write one row per attacked image, or per training and certificate, to Parquet or CSV."""
    from bench.store import Store

    writers = {".parquet": "to_parquet", ".csv": "to_csv"}
    if to.suffix not in writers:
        raise ConfigurationError(f"--to {to}: the file must end in .parquet or .csv")
    store = Store.existing(run)
    frame = store.jobs_frame() if jobs else store.frame()
    try:
        getattr(frame, writers[to.suffix])(to, index=False)
    except OSError as error:
        raise ConfigurationError(f"cannot write {to}: {error.strerror or error}") from error
    why = "" if len(frame) or not jobs else "; its grid has neither [utility] nor [certificate]"
    typer.echo(f"{len(frame)} rows -> {to}{why}")
