"""The commands of plugin authors: new, check; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from leaderboards.cli.options import Plugins


def new(
    kind: Annotated[Literal["defense", "attack"], typer.Argument(metavar="defense|attack", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9 and _; the file's name.", show_default=False)],
    package: Annotated[
        bool, typer.Option("--package", help="An installable package in a folder of its own instead of a file.")
    ] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where to write it; made if it is not there.")
    ] = Path("."),
) -> None:
    """Write a small working defense or attack to start from, and a test that passes.

    Nothing is overwritten.
    """
    from bench.conformance.scaffold import scaffold

    paths = scaffold(kind, name, output, package=package)
    for path in paths:
        typer.echo(str(path))
    typer.echo(
        f"next: cd {paths[0].parent}; pip install -e .; pytest; leakboard check {name}"
        if package
        else f"next: python -m pytest {paths[-1]}; leakboard check {paths[0]}"
    )


def check_method(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD", help="A name, a call such as 'mine(kept=0.1)', or a Python file.", show_default=False
        ),
    ],
    plugin: Plugins = None,
) -> None:
    """Hold an attack or a defense to every rule of its kind, one line a rule.

    A call finds mine.py in the current folder by itself. Attacks are asked with 2 iterations unless the call says how
    many. Exit codes: 0 every rule holds, 1 one is broken, 2 bad usage.
    """
    from collections import Counter

    from bench.conformance.child import checked
    from bench.conformance.findings import Finding

    counts: Counter[str] = Counter()
    for told in checked(method, plugin or []):
        typer.echo(str(told))
        counts.update([told.status] if isinstance(told, Finding) else [])
    typer.echo(", ".join(f"{counts[status]} {status}" for status in ("passed", "failed", "not applicable")))
    raise typer.Exit(1 if counts["failed"] else 0)
