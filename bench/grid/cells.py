"""The units of the grid: settings, cells and blocks, and the ids under which their results are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from attacks.threat import ThreatModel
from bench.grid.sections import DatasetSpec, Public, Weights
from bench.registry.specs import ChainSpec, MethodSpec, chain_label, chain_name
from defenses.schedule import Mode, Schedule

BLOCK_IMAGES = 20
"""A block holds the smallest multiple of a client's images that is at least this, and two clients, of which the control
`wrong_image` shows each what was found for the other."""
PRIOR_SETTINGS = ("iterations", "tv_weight", "learning_rate", "milestones", "decay")
"""Parameters that the control `prior_only` takes over from an attack with the paper's prior."""


@dataclass(frozen=True)
class Setting:
    """The dataset, model, weights, client and mode that all attacks and defenses of a comparison share."""

    dataset: DatasetSpec
    """The images that are attacked."""
    model: MethodSpec
    """The architecture, as the grid names it."""
    weights: Weights
    """The weights that are attacked, as the grid asks for them."""
    client: Schedule
    """The client's work before any defense changes it."""
    preparers: tuple[ChainSpec, ...] = ()
    """The defenses of the grid that changed the architecture; their names alone are part of the identity."""
    mode: Mode = "eval"
    """The statistics by which the client's batch-norm layers normalise."""
    public: Public | None = None
    """The grid's section on public images where one of its threat models grants any."""
    attacked: int = 0
    """Number of attacked images of which the public ones hold no copy."""

    @property
    def prepared_by(self) -> tuple[str, ...]:
        return tuple(chain_name(chain) for chain in self.preparers)

    @property
    def model_label(self) -> str:
        """The model as attacked."""
        suffix = f" prepared for {', '.join(self.prepared_by)}" if self.preparers else ""
        return self.model.label + suffix + (", client in train mode" if self.mode == "train" else "")

    @property
    def shares_training_set(self) -> bool:
        """True if its public images come from the training half of the attacked dataset."""
        return self.public is not None and (self.public.dataset or self.dataset.name) == self.dataset.name

    @property
    def trains_beside_public(self) -> bool:
        """True if its weights are trained on the set that the public images come from: on its other half."""
        if self.public is None or self.weights.epochs is None:
            return False
        return (self.weights.dataset or self.dataset.name) == (self.public.dataset or self.dataset.name)

    @property
    def identity(self) -> dict[str, Any]:
        dataset: dict[str, Any] = {"name": self.dataset.name, "size": self.dataset.size}
        if self.dataset.name == "folder":
            dataset["root"] = self.dataset.root
        # Choices that were added later are left out where they are as they always were.
        half = {"beside_public": True} if self.trains_beside_public else {}
        return {
            **({"mode": self.mode} if self.mode != "eval" else {}),
            "dataset": dataset,
            "model": self.model.canonical,
            "weights": self.weights.model_dump(exclude={"root", "download"}) | half,
            "client": asdict(self.client),
            "prepared_by": list(self.prepared_by),
        }


HELD_OUT_CLIENTS = 4
"""Held-out clients of each attacked one, k in shapes: the mean of four varies half as much as one answer does."""


@dataclass(frozen=True)
class PublicSet:
    """The public images of a cell in figures."""

    count: int = 0
    """Number of images."""
    left_out: int = 0
    """Number of copies of attacked images that were left out."""
    digest: str = ""
    """SHA-256 of images and labels."""


@dataclass(frozen=True)
class Cell:
    """One setting, defense, attack, threat model and seed, over the images of the grid."""

    setting: Setting
    """The dataset, model, weights and client under attack."""
    defense: ChainSpec
    """The parts of the client's defense."""
    attack: MethodSpec
    """The attack with all its parameters."""
    threat: ThreatModel
    """The facts and secrets that the server is granted."""
    seed: int
    """The number from which all chance of the cell is drawn."""
    schedule: Schedule
    """The client's work after the defense."""
    control: bool
    """True if the plan added the cell to compare with."""
    attack_order: int
    """The attack's place among the attacks of the plan."""
    defense_order: int
    """The defense's place in the grid."""
    borrows: Cell | None = None
    """The cell whose reconstructions the control `wrong_image` scores again."""
    repeats: Cell | None = None
    """The cell whose attack the control `same_class` repeats on held-out public clients."""
    skip: str | None = None
    """The reason for which the cell cannot run."""
    audited: bool = True
    """True if an attack that knows the defense has something to adapt by."""
    adapts: bool = False
    """True if attacks that simulate the client here leave nothing of the defense out."""
    recovers_labels: bool = False
    """True if the attack is about labels, not about images."""
    public: PublicSet = PublicSet()
    """The public images that the threat model grants, in figures."""

    @cached_property
    def id(self) -> str:
        """16 hexadecimal digits of the choices; the number of images is not among them."""
        # The control `same_class` is made of public images whether its attack holds any or not.
        holds = self.threat.public or self.repeats is not None
        granted = self.setting.public.identity if holds and self.setting.public is not None else None
        public = {} if granted is None else {"public_images": granted}
        own = {"attack": self.attack.canonical, "threat": self.threat.identity}
        return _digest({**self.client_identity, **own, **public})[:16]

    @property
    def client_identity(self) -> dict[str, Any]:
        """All choices that decide the released update, beside the images."""
        return {
            "setting": self.setting.identity,
            "defense": [part.canonical for part in self.defense],
            "seed": self.seed,
        }

    @property
    def attacked_by(self) -> MethodSpec:
        """The attack, or the one that the control was made from."""
        return (self.borrows or self.repeats or self).attack

    @property
    def title(self) -> str:
        return f"{self.attack.label} / {chain_label(self.defense)}"

    def blocks(self, images: int) -> list[Block]:
        """The blocks that cover the first `images` images, a multiple of the schedule's."""
        b = self.schedule.images
        size = max(-(-BLOCK_IMAGES // b), 2) * b
        return [Block(self, start, min(start + size, images)) for start in range(0, images, size)]


@dataclass(frozen=True)
class Block:
    """A run of consecutive images of a cell: the unit of work, storage and resuming."""

    cell: Cell
    """The cell to which the images belong."""
    start: int
    """The number of the first image."""
    stop: int
    """The number after that of the last image."""

    @property
    def id(self) -> str:
        return f"{self.cell.id}-{self.start:05d}-{self.stop:05d}"

    @property
    def title(self) -> str:
        return self.cell.title

    @property
    def client_key(self) -> str:
        """Blocks with the same key see the same released updates."""
        releases = self.cell.threat.releases
        several = [releases] if releases > 1 else []
        return _digest([self.cell.client_identity, self.start, self.stop, *several])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
