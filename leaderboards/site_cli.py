"""The commands that write the site and show it; what they need is imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leaderboards.report import say

site = typer.Typer(help="The published results as static pages.", no_args_is_help=True)
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The site's folder.")]


@site.command()
def build(
    output: Output = Path("site"),
    published: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where entries are; leaderboards/published unless given.")
    ] = None,
) -> None:
    """Write the site from the published entries alone: no server, no network, the same input gives the same bytes."""
    from leaderboards.publications import PUBLISHED
    from leaderboards.site import build as write

    built = write(output, published or PUBLISHED)
    typer.echo(f"{output / 'index.html'}: {built.pages} pages, {built.files} files, {built.size / 2**20:.1f} MiB")


@site.command()
def serve(
    output: Output = Path("site"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
) -> None:
    """Show a built site to this machine's own browsers; nobody else reaches it."""
    from leaderboards.site_server import server

    with server(output, port) as own:
        say(f"http://127.0.0.1:{own.server_port}/ until Ctrl-C")
        try:
            own.serve_forever()
        except KeyboardInterrupt:
            say("stopped")
