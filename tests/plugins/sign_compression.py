"""A plugin that changes an update: signs instead of values."""

from dataclasses import dataclass

from leakboard import Defense, Generator, Task, Update


@dataclass(frozen=True)
class SignCompression(Defense):
    """Share each entry's sign, scaled to the tensor's mean magnitude (Karimireddy et al., ICML 2019)."""

    scale: float = 1.0

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: self.scale * u.sign() * u.abs().mean() for name, u in update.items()}
