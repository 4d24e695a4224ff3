"""What a person sees while a run goes on: blocks done, time left, the cell that runs and its iteration."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from bench.grid.cells import Block
from bench.grid.jobs import Job

LINE_SECONDS = 30.0
"""How often a log, which no terminal redraws, gets a line."""


class Watcher:
    """A progress bar over the pending blocks on standard error; not `shown`, it says nothing at all."""

    def __init__(self, pending: int, *, shown: bool) -> None:
        self._shown = shown and pending > 0
        self._finished = 0
        self._said: set[str] = set()
        terminal = sys.stderr.isatty()
        count = "{n:.1f}/{total} blocks  {elapsed}<{remaining}  {desc}"
        self._bar = tqdm(
            total=pending,
            disable=not self._shown,
            file=sys.stderr if terminal else _Lines(sys.stderr),
            mininterval=0.2 if terminal else LINE_SECONDS,
            bar_format="{bar:20} " + count if terminal else count,
            miniters=0,
            dynamic_ncols=terminal,
        )

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self._bar.set_description_str("", refresh=False)
        self._bar.close()

    def training(self, block: Block, done: int, total: int) -> None:
        """The running block's network is at step `done` of `total` of its training."""
        self._bar.set_description_str(f"training for {block.title} {done}/{total}", refresh=False)
        self._bar.update(0)

    def iteration(self, block: Block, done: int, total: int, blocks: int = 1) -> None:
        """The running block, with so many others as lanes of one program, is at iteration `done` of `total`."""
        company = f" and {blocks - 1} more" if blocks > 1 else ""
        self._bar.set_description_str(f"{block.title}{company} {done}/{total}", refresh=False)
        self._bar.update(self._finished + blocks * min(done / total, 0.99) - self._bar.n)

    def job(self, job: Job, done: int, total: int) -> None:
        """The running job is at step `done` of `total`."""
        self._bar.set_description_str(f"{job.title} {done}/{total}", refresh=False)
        self._bar.update(self._finished + min(done / total, 0.99) - self._bar.n)

    def finished(self, block: Block | Job, status: str, reason: str | None) -> None:
        """A block is over; a failure is said at once, one of many blocks for the same reason once."""
        self._finished += 1
        self._bar.update(self._finished - self._bar.n)
        text = f"{status}: {block.title}: {reason}"
        if self._shown and status not in ("ok", "skipped") and text not in self._said:
            self._said.add(text)
            tqdm.write(text, file=sys.stderr)


class _Lines:
    """Makes a line of a log of every time that a bar is drawn."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()
