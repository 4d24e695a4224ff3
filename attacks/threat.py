"""The knowledge that the server is granted; torch-free, so that planning a grid stays cheap."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_type_hints

RELEASES = range(1, 10_001)
"""Numbers of releases that a client may be seen at."""


@dataclass(frozen=True)
class Switch:
    """A field of `ThreatModel` as grids, ids, rows and texts need it: each of them goes over `switches()`."""

    name: str
    kind: Any
    """Its type: bool, a Literal of words, or int."""
    default: Any
    meaning: str
    """One line of docs/reference.md about the grid's key."""
    subject: str = ""
    """A published fact in words: attacks with and without it are evidence of one question. "" for a secret of the
    client, which is part of the question."""
    short: str = ""
    """The subject in a label of an attack."""
    since: int = 0
    """0: it was always there. Else ids leave it out at its default, and readers give that default to what was written
    before. 1: it joined before a board was published. 2: it joined after, and plans, `run.toml` and entries leave it
    out at its default too: what is published stays what it is."""
    within: range | None = None
    """The numbers that an int may be; None for the other types."""


def _secret(default: Any, meaning: str, since: int = 0, within: range | None = None) -> Any:
    return field(default=default, metadata={"meaning": meaning, "since": since, "within": within})


def _fact(default: bool, subject: str, meaning: str, short: str = "", since: int = 0) -> Any:
    told = {"meaning": meaning, "subject": subject, "short": short or subject, "since": since}
    return field(default=default, metadata=told)


@dataclass(frozen=True)
class ThreatModel:
    """The server's knowledge beside model, weights and update.

    - `labels`: "known" (the multiset, sorted: never in batch order), "recovered" from the update by rules, or
      "joint" (label logits are optimised together with the images).
    - `schedule_known`: false: a weight difference is matched as if it were one gradient.
    - `defense_known`: false: the attack does not adapt to the defense.
    - `batch_norm`: what is known of the inputs of batch-norm layers over the private batch: "running" (only the
      running statistics, public buffers of the model, for a guess), "batch" (the client also sends mean and
      variance of its batch, as clients do whose buffers are aggregated) or "unknown" (nothing is guessed).
    - `public`: true: the server holds public images, none of them attacked.
    - `releases`: how often the server sees an update of the same images at the same weights, each with draws of its
      own: an upper bound on what as many rounds give, whose weights move.

    A field that is added here is an axis of grids, a part of ids, a column of results and of the tables' texts; only
    what acts on it is left to write. The class is that of the SoK of gradient inversion (USENIX Security 2025):
    B, basic knowledge; C, with the client's training details; D, with surrogate data; E, with statistics of the
    client's data.
    """

    labels: Literal["known", "recovered", "joint"] = _secret(
        "known",
        "the multiset of the batch's labels: known, recovered from the update by rules, or optimised with the images",
    )
    schedule_known: bool = _fact(
        True,
        "local schedule",
        "`false`: a difference of weights is attacked as if it were one gradient",
        short="schedule",
    )
    defense_known: bool = _fact(False, "defense", "`true`: the attacks that match gradients adapt to the defense")
    batch_norm: Literal["running", "batch", "unknown"] = _secret(
        "running",
        "running: the model's own statistics, if it was trained, guide `see_through_gradients`; batch: the client also "
        "sends mean and variance of its batch at every batch-norm layer; unknown: neither is used",
        since=1,
    )
    public: bool = _fact(
        False,
        "public images",
        "`true`: the server holds public images of the dataset, none of them attacked (`grid.public`)",
        since=2,
    )
    releases: int = _secret(
        1,
        "how often the server sees an update of the same images at the same weights, with fresh draws each, from 1 to "
        "10,000: an upper bound on what as many rounds give, whose weights move",
        since=2,
        within=RELEASES,
    )

    def __post_init__(self) -> None:
        if isinstance(self.releases, bool) or self.releases not in RELEASES:
            raise ValueError(
                f"releases must be a whole number from {RELEASES[0]} to {RELEASES[-1]:,}, got {self.releases!r}; 1 is "
                "a client that is seen once"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The part of a cell's id. Knowledge that was added later is left out where it is as it always was."""
        told = {switch: getattr(self, switch.name) for switch in switches()}
        return {switch.name: value for switch, value in told.items() if not switch.since or value != switch.default}

    @property
    def secrets(self) -> tuple[Any, ...]:
        """The values of the secrets, which are part of the question; facts are not."""
        return tuple(getattr(self, switch.name) for switch in switches() if not switch.subject)

    def sok_class(self, *, local_steps: bool) -> str:
        """The SoK's letter; the schedule is a detail only where the client takes local steps."""
        if self.batch_norm == "batch":
            return "E"
        if self.public:
            return "D"
        return "C" if (local_steps and self.schedule_known) or self.defense_known else "B"


@cache
def switches() -> tuple[Switch, ...]:
    """The fields of `ThreatModel`, in their order."""
    kinds = get_type_hints(ThreatModel)
    return tuple(Switch(f.name, kinds[f.name], f.default, **f.metadata) for f in fields(ThreatModel))
