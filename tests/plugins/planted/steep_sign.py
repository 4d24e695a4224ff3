"""Signs whose surrogate has the right values and slopes that no descent can use."""

import torch

from leakboard import Defense, Generator, Surrogate, Task, Update


class SteepSign(Defense):
    """Send each entry's sign, scaled to the tensor's mean magnitude; a heuristic planted to test surrogates.

    Its surrogate is tanh(1e6 u): right wherever it is asked, and flat but for entries of next to nothing.
    """

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u.sign() * u.abs().mean() for name, u in update.items()}

    def surrogate(self, task: Task) -> Surrogate:
        return Surrogate(predict=lambda update: {n: torch.tanh(1e6 * u) * u.abs().mean() for n, u in update.items()})
