"""The commands list, plan, status and export; torch is imported inside those that compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import ConfigurationError, suggest
from bench.registry.presets import attack_presets
from bench.registry.registry import Registry
from bench.registry.sources import MethodDescription
from leaderboards.cli.options import Attacks, Defenses, Device, GridSpec, Overrides, Plugins, RunFolder
from leaderboards.cli.report import terminal

if TYPE_CHECKING:
    from rich.console import Console


def add_grid_commands(app: typer.Typer) -> None:
    """Put the commands of this file into the application."""
    from leaderboards.cli.plugins import check_method, new

    app.command("list")(list_names)
    for command in (plan, status, export, new):
        app.command()(command)
    app.command("check")(check_method)


def list_names(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="attacks, defenses, datasets, models or presets.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    verify: Annotated[bool, typer.Option(help="Import installed plugins too, to find broken ones.")] = False,
    plugin: Plugins = None,
) -> None:
    """List attacks, defenses, datasets, models or presets."""
    import json

    from bench.registry.registry import Registry

    rows = listing(kind, Registry(plugin or []), verify=verify)
    typer.echo(json.dumps(rows, indent=1) if as_json else render_listing(rows, terminal()), nl=as_json)


def plan(
    spec: GridSpec,
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
    from bench.engines.run import prepare
    from bench.plan.estimate import describe_plan
    from bench.registry.registry import Registry
    from bench.store.store import Store
    from leaderboards.entries.board import grid_source

    methods = {"defenses": defense or [], "attacks": attack or []}
    source, registry = grid_source(spec), Registry(plugin or [])
    config, registry, clients, planned = prepare(source, registry, overrides=overrides or [], **methods)
    typer.echo("leakboard: measuring the first iterations of every attack", err=True)
    typer.echo(describe_plan(planned, registry, clients, Store(output or Path("runs") / config.name), device))


def status(run: RunFolder) -> None:
    """Count a run's blocks by status, with the reason of every failure."""
    from bench.store.store import FAILURES, Store

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
    from bench.store.store import Store

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


KINDS = ("attacks", "defenses", "datasets", "models", "presets")


def listing(kind: str, registry: Registry, *, verify: bool = False) -> list[dict[str, Any]]:
    """One JSON-able row a name, sorted; attacks and defenses with origin, parameters and why one is broken.

    `verify` imports installed packages in child processes. Raises ConfigurationError for an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"nothing to list under {kind!r}; {suggest(kind, KINDS)}")
    if kind in ("attacks", "defenses"):
        rows = [_row(method, method.name) for method in registry.descriptions(kind[:-1], verify=verify)]
        return sorted(rows + (_preset_rows(registry) if kind == "attacks" else []), key=lambda row: row["name"])
    return [{"name": name, "summary": summary} for name, summary in sorted(_summaries(kind).items())]


def render_listing(rows: Sequence[Mapping[str, Any]], console: Console | None = None) -> str:
    """Name and summary, and below them the parameters with their defaults.

    For the terminal of `console`; plain without one, where every summary is one line.
    """
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from leaderboards.tables.terminal import console_text

    if not rows:
        return "(none)\n"
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    limit = 104 - max(len(row["name"]) for row in rows)
    for row in rows:
        table.add_row(Text(row["name"], "bold"), Text(_remark(row)))
        parameters = ", ".join(
            p["name"] if p["required"] else f"{p['name']}={p['default']!r}" for p in row.get("parameters", [])
        )
        if parameters:
            lines = [parameters] if console is not None else wrap(parameters, limit)
            table.add_row("", Padding(Text("\n".join(lines), "dim"), (0, 0, 0, 4)))
    return console_text(table, console)


def _row(method: MethodDescription, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "summary": method.summary,
        "origin": method.origin,
        "parameters": [
            # When a parameter joined matters to published boards alone.
            {key: value for key, value in vars(parameter).items() if key != "since"}
            for parameter in method.parameters
        ],
        "broken": method.broken,
    }


def _preset_rows(registry: Registry) -> list[dict[str, Any]]:
    """The presets of attacks as attacks, with their settings for defaults."""
    methods = {method.name: method for method in registry.descriptions("attack")}
    rows: list[dict[str, Any]] = []
    for name, preset in attack_presets().items():
        row = _row(methods[preset.attack], name)
        for parameter in row["parameters"]:
            parameter["default"] = preset.parameters[parameter["name"]]
        rows.append(row | {"summary": preset.summary, "origin": f"preset of {preset.attack}"})
    return rows


def _remark(row: Mapping[str, Any]) -> str:
    if row.get("broken"):
        return f"BROKEN, {row['origin']}: {row['broken']}"
    origin = row.get("origin", "built-in")
    return row["summary"] if origin == "built-in" else f"{row['summary']} [{origin}]".lstrip()


def _summaries(kind: str) -> Mapping[str, str]:
    if kind == "presets":
        from bench.grid.reading import presets

        grids = {name: text.partition("\n")[0].lstrip("# ") for name, text in presets().items()}
        return grids | {name: f"{preset.summary} [an attack]" for name, preset in attack_presets().items()}
    from bench.data.catalogue import DATASETS
    from bench.models.catalogue import MODELS

    return DATASETS if kind == "datasets" else MODELS
