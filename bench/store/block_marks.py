"""Marks blocks and jobs that a process is working on, and counts the processes that died over each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import Unwritable
from bench.store.whole_files import process_name, publish

DEATHS = 2
"""A block over which so many processes died is given up as `crashed`."""


@dataclass(frozen=True)
class BlockMarks:
    """Marks in a run's folder of blocks: ID.PROCESS.running, empty, and ID.deaths, a number."""

    folder: Path
    """The folder of the finished blocks."""

    def start(self, block: str) -> None:
        """This process begins with a block."""
        mark = self._mark(block)
        try:
            mark.touch()
        except OSError as error:
            raise Unwritable(mark, error) from error

    def end(self, block: str) -> None:
        """This process lives and is over with the block, with or without a result."""
        with suppress(OSError):  # What stays is swept away by the next command.
            self._mark(block).unlink()

    def deaths(self, block: str) -> int:
        """The number of processes that died over this block while their supervisor lived."""
        try:
            return int((self.folder / f"{block}.deaths").read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def forget(self, block: str) -> None:
        """The block has a result: its deaths are history."""
        (self.folder / f"{block}.deaths").unlink(missing_ok=True)

    def blame(self, pid: int) -> str | None:
        """Count the death of a process of this machine on the block that it worked on; returns that block."""
        for mark in self.folder.glob(f"*.{process_name(pid)}.running"):
            block = mark.name.partition(".")[0]
            publish(self.folder / f"{block}.deaths", str(self.deaths(block) + 1).encode())
            mark.unlink(missing_ok=True)
            return block
        return None

    def _mark(self, block: str) -> Path:
        return self.folder / f"{block}.{process_name()}.running"
