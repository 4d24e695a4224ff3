"""A defense: the base class of everything that a client can do to its update before sending it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Generator, nn

from defenses.schedule import Schedule
from defenses.task import Batch, Params, Task, Update

if TYPE_CHECKING:
    from defenses.accounting import Guarantee
    from defenses.surrogate import Surrogate


class Defense:
    """The client's behaviour. A subclass is a frozen dataclass that overrides exactly one of three methods.

    - `transform(task, update, rng)` changes an update before it is sent.
    - `share(task, params, batch, rng)` computes the update; honour `task.schedule` through `local_training`.
    - `schedule(schedule)` changes the published work.

    Everything is written in plain PyTorch for one client, on the CPU; all randomness comes from `rng`, and
    arguments are never written to. `prepare(model)` may change the architecture before weights are made,
    `surrogate(task)` says how an attacker who knows the defense adapts to it, and `privacy(schedule, rounds, delta)`
    what a `share` is proven to keep. `share_many` and `transform_many` are for speed alone: the same for many clients.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        role_of(cls)

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        """The update that is sent instead; same names and shapes."""
        raise NotImplementedError

    def share(self, task: Task, params: Params, batch: Batch, rng: Generator) -> Update:
        """The update of this batch under these weights."""
        raise NotImplementedError

    def schedule(self, schedule: Schedule) -> Schedule:
        """The work that is published instead."""
        raise NotImplementedError

    def transform_many(self, task: Task, updates: Update, rngs: Sequence[Generator]) -> Update:
        """`transform` of t clients' updates (t, *shape), each with its own generator: the same to rounding, sooner."""
        raise NotImplementedError

    def share_many(self, task: Task, params: Params, batches: Batch, rngs: Sequence[Generator]) -> Update:
        """`share` of t clients, images (t b c h w) and labels (t b), as (t, *shape): the same to rounding, sooner."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> nn.Module:
        """The architecture that this defense can work with; by default the one given."""
        return model

    def surrogate(self, task: Task) -> Surrogate | None:
        """The simulation of an attacker who knows this defense and its strength; None: nobody has said, unaudited."""
        return None

    def privacy(self, schedule: Schedule, rounds: int, delta: float) -> Guarantee | None:
        """The proof of a `share` for each image after `rounds` updates under the published `schedule`, or None."""
        return None


ROLES = ("schedule", "share", "transform")
"""In the order in which a chain applies them."""


def role_of(defense: type[Defense]) -> str:
    """The one of the three methods that a defense implements; raises TypeError unless it is exactly one."""
    own = [role for role in ROLES if getattr(defense, role) is not getattr(Defense, role)]
    if len(own) != 1:
        found = " and ".join(own) or "none of them"
        raise TypeError(f"defense {defense.__name__} implements {found}; implement exactly one of {', '.join(ROLES)}")
    return own[0]
