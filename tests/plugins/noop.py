"""A plugin that changes nothing: its client must be the undefended one, byte for byte."""

from typing import ClassVar

from leakboard import Defense, Generator, Surrogate, Task, Update


class Noop(Defense):
    """Send the update as it is; a heuristic that hides nothing."""

    neutral: ClassVar[dict[str, object]] = {}

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u.clone() for name, u in update.items()}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate()
