"""The commands that write the site and show it on this machine; what they need is imported inside them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import ConfigurationError
from leaderboards.cli.report import say

site_commands = typer.Typer(help="The published results as static pages.", no_args_is_help=True)
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The site's folder.")]


@site_commands.command("build")
def build_site(
    output: Output = Path("site"),
    published: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where entries are; leaderboards/published unless given.")
    ] = None,
) -> None:
    """Write the site from the published entries alone: no server, no network, the same input gives the same bytes."""
    from leaderboards.entries.board import BOARDS, boards
    from leaderboards.entries.published import PUBLISHED
    from leaderboards.site.build import write_site

    place = published or PUBLISHED
    strange = sorted({path.parent.parent.name for path in place.glob("*/*/entry.json")} - boards().keys())
    for name in strange:
        say(f"{place / name} holds entries of no board that is known here, which are left out; is {BOARDS} set?")
    with _interruptible():
        built = write_site(output, place)
    typer.echo(f"{output / 'index.html'}: {built.pages} pages, {built.files} files, {built.size / 2**20:.1f} MiB")


@site_commands.command()
def serve(
    output: Output = Path("site"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Show a built site to this machine's own browsers; nobody else reaches it."""

    with server(output, port) as own, _interruptible(0):
        say(f"http://127.0.0.1:{own.server_port}/ until Ctrl-C")
        own.serve_forever()


@contextmanager
def _interruptible(status: int = 130) -> Iterator[None]:
    """Ctrl-C raises, so that what was begun is cleared away, and the command exits with `status`.

    `leakboard.main` lets it end the process on the spot.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("stopped")
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGINT, before)


class _Files(SimpleHTTPRequestHandler):
    """The library's files, but that nothing is cached or guessed, no folder is listed and no request is printed."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path):  # type: ignore[no-untyped-def]
        """Every page has a name."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder for this machine alone, bound and not yet serving; port 0 takes a free one.

    Raises ConfigurationError where the folder is no site or the port is taken.
    """
    from leaderboards.site.build import is_site

    if not is_site(folder):
        raise ConfigurationError(f"{folder} is no site; make one with `leakboard site build -o {folder}`")
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Files, directory=str(folder)))
    except OSError as error:
        raise ConfigurationError(f"cannot serve on port {port}: {error.strerror}; give another --port") from error
