"""What a person sees while a run goes on: cells done, time left, the cell that runs and its iteration."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from bench.cells import Block
from bench.plan import Plan


class Watcher:
    """A progress bar over the pending blocks; `shown` false keeps it quiet."""

    def __init__(self, plan: Plan, pending: int, *, shown: bool) -> None:
        self._planned = sum(1 for block in plan.blocks() if block.cell.skip is None)
        self._finished = 0
        self._bar = tqdm(
            total=pending,
            disable=not shown,
            # Without a terminal a line now and then is enough.
            mininterval=0.2 if sys.stderr.isatty() else 15.0,
            bar_format="{desc}  {bar:20} {n:.1f}/{total} blocks  {elapsed}<{remaining}  {postfix}",
            desc="running",
            dynamic_ncols=True,
        )

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.close()

    def iteration(self, block: Block, done: int, total: int) -> None:
        """The running block is at iteration `done` of `total`."""
        self._bar.set_postfix_str(f"{block.cell.title} {done}/{total}", refresh=False)
        self._bar.update(self._finished + min(done / total, 0.99) - self._bar.n)

    def finished(self, block: Block, status: str) -> None:
        """A block is over; a failure is said at once."""
        self._finished += 1
        self._bar.update(self._finished - self._bar.n)
        if status not in ("ok", "skipped"):
            self._bar.write(f"{status}: {block.cell.title}", file=sys.stderr)
