"""The commands about boards and entries: board, submit, site; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import ConfigurationError
from leaderboards.cli.options import Plugins
from leaderboards.cli.report import say
from leaderboards.cli.site import site_commands

board_commands = typer.Typer(help="What there is to compete in.", no_args_is_help=True)
submit_commands = typer.Typer(help="Hand in results of a board, and check those of others.", no_args_is_help=True)
BoardRun = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run of a board.", show_default=False)]


def add_board_commands(app: typer.Typer) -> None:
    """Put the commands of this file into the application."""
    app.add_typer(board_commands, name="board")
    app.add_typer(submit_commands, name="submit")
    app.add_typer(site_commands, name="site")


@board_commands.command("list")
def list_boards() -> None:
    """List the boards, with what each is about."""
    from leaderboards.entries.board import all_boards

    boards = list(all_boards())
    width = max(len(one.name) for one in boards)
    for one in boards:
        typer.echo(f"{one.name:{width}}  {one.rules.summary}")


@board_commands.command()
def show(name: Annotated[str, typer.Argument(metavar="BOARD", help="A name of `leakboard board list`.")]) -> None:
    """Print a board's file: data, networks, threat models, required attacks, rules of ranking."""
    from leaderboards.entries.board import load_board

    board = load_board(name)
    typer.echo(board.text, nl=False)
    if board.notice:
        say(board.notice)


@submit_commands.command("pack")
def pack_entry(
    run: BoardRun,
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
    from leaderboards.entries.packing import Author, write_entry

    author = Author(submitter, note, repository, commit, plugin)
    defenses = write_entry(run, output, name, author, defense or [])
    typer.echo(f"{output / name}: {', '.join(defenses)}")
    from bench.registry.registry import Registry
    from bench.registry.specs import parse

    foreign = Registry().foreign("defense", (name for label in defenses for name, _ in parse(label)))
    if foreign and plugin is None:
        say(
            f"{', '.join(foreign)} is not built in: without --plugin, --repository and --commit nobody can run "
            "it again, and it is shown but never ranked"
        )


@submit_commands.command("check")
def check_entries(
    entries: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of entries.", show_default=False)],
    rerun: Annotated[
        int, typer.Option(metavar="K", min=0, help="Compute K cells again, drawn now. Runs the defense's code.")
    ] = 0,
    plugin: Plugins = None,
    published: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The published entries; leaderboards/published unless given.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Refuse changes since then, but for the entry's own files.")
    ] = None,
    review: Annotated[
        str | None, typer.Option(metavar="WHO", help="Write what was checked beside the published entry, as WHO.")
    ] = None,
    read: Annotated[
        str | None,
        typer.Option(metavar="SENTENCE", help="What the plugin's code does, from WHO who has read it; with --rerun."),
    ] = None,
) -> None:
    """Check entries: files, hashes, cells, images, seeds, and every metric from the reconstructions.

    Nothing of an entry is run unless --rerun asks for it. Prints every rule, and what would change in the ranks. Exit
    codes: 0 all rules hold, 1 an entry breaks one, 2 bad usage.
    """
    from bench.grid.sections import STATEMENT_LENGTH
    from bench.registry.registry import Registry
    from leaderboards.checks.check import check_one

    registry = Registry(plugin or [])
    registry.descriptions("defense")  # A file that cannot be used is no fault of an entry.
    if review is not None and not 0 < len(review.strip()) <= STATEMENT_LENGTH:
        raise ConfigurationError(f"--review {review[:40]!r} is no name: give 1 to {STATEMENT_LENGTH} characters")
    if read is not None and not (review and rerun and len(entries) == 1 and 0 < len(read.strip()) <= STATEMENT_LENGTH):
        raise ConfigurationError(
            f"--read is one sentence, of up to {STATEMENT_LENGTH} characters, about one entry: give --review and "
            "--rerun with it"
        )
    if published is not None and not published.is_dir():
        raise ConfigurationError(f"--published {published} is no folder; give the one that holds the boards' folders")
    outcomes = [check_one(entry, published, registry, rerun, base, review, typer.echo, read=read) for entry in entries]
    raise typer.Exit(0 if all(outcomes) else 1)
