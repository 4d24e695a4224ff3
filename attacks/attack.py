"""The base class of every attack, and the reconstruction that it hands to the referee."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from attacks.observation import Observation
from defenses.task import Params, Task


@dataclass(frozen=True)
class Reconstruction:
    """An attack's answer for t trials of b images.

    `images` (t b c h w) in [0, 1]; `labels` (t b) as believed by the attacker. `objective` (t,) is the value at
    the images found, `start` (t,) the one at the starting point of the chosen restart, None where the attack
    has no objective. `trace` maps an iteration to its objective (t,). `features` (t b d) is what an analytic attack
    recovered of a layer's input; then `recovered` is "features". `choices` are figures that a learned attack chose on
    held-out public images; no attacked image may change them.
    """

    images: Tensor
    labels: Tensor
    objective: Tensor | None = None
    start: Tensor | None = None
    trace: dict[int, Tensor] = field(default_factory=dict)
    features: Tensor | None = None
    recovered: Literal["images", "features"] = "images"
    choices: dict[str, float] = field(default_factory=dict)


class UnsupportedPair(ValueError):
    """This attack cannot be run on this task or threat model; the message says why."""


class Attack:
    """An adversary. A subclass is a frozen dataclass; all its methods are batched over trials.

    `control` marks attacks that use no gradient: the floors against which leakage is judged. `joint` marks attacks that
    treat every trial by itself, through `descend` or `minimise`: trials of several cells may then be attacked in one
    call. `takes_own_weights` marks those that also honour `Observation.own_weights`. `simulates` marks those that
    simulate the client's work, and with it whatever defense the observation knows: they adapt. `recovers_labels` marks
    those that find the labels by themselves, also where they are granted. `needs_public` marks those that learn from
    `Observation.public`: without it they are skipped.
    """

    control: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    takes_own_weights: ClassVar[bool] = False
    simulates: ClassVar[bool] = False
    recovers_labels: ClassVar[bool] = False
    needs_public: ClassVar[bool] = False
    restarts = 1  # of each trial; a subclass with more has it as a parameter

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.reconstruct is Attack.reconstruct:
            raise TypeError(f"attack {cls.__name__} does not implement reconstruct")
        if "reconstruct" in vars(cls):
            # Who replaces the method says anew what it may be given.
            for name in ("joint", "takes_own_weights", "simulates", "recovers_labels", "needs_public"):
                setattr(cls, name, vars(cls).get(name, False))

    def check(self, task: Task, labels: str) -> None:
        """Raise `UnsupportedPair` if the attack is impossible on this task, with `labels` as in the threat model."""

    def reconstruct(self, observation: Observation, seeds: list[int]) -> Reconstruction:
        """The images behind every update; `seeds` holds one number per trial for the starting points."""
        raise NotImplementedError

    def objective(self, observation: Observation, images: Tensor, labels: Tensor) -> Tensor | None:
        """The attacker's own objective (t,) at images (t b c h w) and labels (t b); None without one."""
        return None

    def features(self, task: Task, params: Params, images: Tensor) -> Tensor:
        """The true values (n d) behind `Reconstruction.features`, from images (n c h w); for attacks with any."""
        raise NotImplementedError
