"""A plugin that changes the published work: two images behind every update."""

from dataclasses import replace

from leakboard import Defense, Schedule


class InPairs(Defense):
    """Average over two images; a heuristic."""

    def schedule(self, schedule: Schedule) -> Schedule:
        return replace(schedule, images=2)
