"""The commands about boards and entries: board, submit, site; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaderboards.report import say
from leaderboards.site_cli import site

board = typer.Typer(help="What there is to compete in.", no_args_is_help=True)
submit = typer.Typer(help="Hand in results of a board, and check those of others.", no_args_is_help=True)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of a board.", show_default=False)]


def add_commands(app: typer.Typer) -> None:
    """Put the commands of this file into the application."""
    app.add_typer(board, name="board")
    app.add_typer(submit, name="submit")
    app.add_typer(site, name="site")


@board.command("list")
def list_() -> None:
    """List the boards, with what each is about."""
    from leaderboards.board import all_boards

    boards = list(all_boards())
    width = max(len(one.name) for one in boards)
    for one in boards:
        typer.echo(f"{one.name:{width}}  {one.rules.summary}")


@board.command()
def show(name: Annotated[str, typer.Argument(metavar="BOARD", help="A name of `leakboard board list`.")]) -> None:
    """Print a board's file: data, networks, threat models, required attacks, rules of ranking."""
    from leaderboards.board import board as find

    typer.echo(find(name).text, nl=False)


@submit.command()
def pack(
    run: RunFolder,
    name: Annotated[str, typer.Option(help="The entry's name: lower-case letters, digits and dashes.")],
    submitter: Annotated[str, typer.Option(help="Who submits, as the site shows it.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the folder is made.")] = Path(
        "."
    ),
    defense: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a run of several defenses, those of this name; all unless given."),
    ] = None,
    note: Annotated[str, typer.Option(help="A sentence or two about the defense.")] = "",
    plugin: Annotated[Path | None, typer.Option(metavar="FILE", help="The defense's file, if not built in.")] = None,
    repository: Annotated[str | None, typer.Option(metavar="URL", help="The file's public https repository.")] = None,
    commit: Annotated[str | None, typer.Option(metavar="SHA", help="The commit there that holds the file.")] = None,
) -> None:
    """Make an entry of a finished run of a board: a folder of JSON and PNG files, nothing else."""
    from leaderboards.packing import Author
    from leaderboards.packing import pack as write

    author = Author(submitter, note, repository, commit, plugin)
    defenses = write(run, output, name, author, defense or [])
    typer.echo(f"{output / name}: {', '.join(defenses)}")
    if plugin is None and repository is None:
        say("without --plugin, --repository and --commit only built-in defenses can be run again, and ranked")
