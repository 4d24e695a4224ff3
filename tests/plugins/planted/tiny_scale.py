"""An update in a unit so small that sums of squares end below single precision."""

from dataclasses import dataclass

from leakboard import Defense, Generator, Surrogate, Task, Update


@dataclass(frozen=True)
class TinyScale(Defense):
    """Multiply the update by `factor`; a heuristic planted to test ranks. Exact for whoever divides again."""

    factor: float = 1e-8

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: self.factor * u for name, u in update.items()}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(predict=lambda update: {name: self.factor * u for name, u in update.items()})
