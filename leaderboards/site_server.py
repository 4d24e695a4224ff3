"""Looking at a built site: a server for this machine alone."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from bench.errors import ConfigurationError
from leaderboards.site_folder import is_site

HOST = "127.0.0.1"


class _Files(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path):  # type: ignore[no-untyped-def]
        """Every page has a name."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def server(folder: Path, port: int, host: str = HOST) -> ThreadingHTTPServer:
    """A server of the folder, bound and not yet serving; port 0 takes a free one.

    Raises ConfigurationError where the folder is no site, the address is not this machine's own, or the port is taken.
    """
    if not is_site(folder):
        raise ConfigurationError(f"{folder} is no site; make one with `leakboard site build -o {folder}`")
    if not ip_address(host).is_loopback:
        raise ConfigurationError(f"host must be a loopback address, got {host}; to publish, copy the folder")
    try:
        return ThreadingHTTPServer((host, port), partial(_Files, directory=str(folder)))
    except OSError as error:
        raise ConfigurationError(f"cannot serve on port {port}: {error.strerror}; give another --port") from error
