"""The progress bar of a run: blocks done, time left, the cell that runs and its iteration."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from bench.engines.work import Item, Work

LINE_SECONDS = 30.0
"""Seconds between two lines in a log, which no terminal redraws."""


class Watcher:
    """A progress bar over the pending blocks and jobs on standard error; not `shown`, it says nothing at all."""

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

    def training(self, item: Item, done: int, total: int) -> None:
        """The running block's network is at step `done` of `total` of its training."""
        self._bar.set_description_str(f"training for {item.title} {done}/{total}", refresh=False)
        self._bar.update(0)

    def progress(self, work: Work, done: int, total: int) -> None:
        """The running work is at iteration or round `done` of `total`."""
        self._bar.set_description_str(f"{work.title} {done}/{total}", refresh=False)
        self._bar.update(self._finished + len(work.items) * min(done / total, 0.99) - self._bar.n)

    def finished(self, item: Item, status: str, reason: str | None) -> None:
        """A block or job is over; a failure is said at once, one of many for the same reason once."""
        self._finished += 1
        self._bar.update(self._finished - self._bar.n)
        text = f"{status}: {item.title}: {reason}"
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
