"""What a board expects of an entry: its cells and jobs, its images and trials, planned anew from the board's file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.config import Config
from bench.errors import ConfigurationError
from bench.specs import Chain, MethodSpec
from leaderboards.board import board as find
from leaderboards.entries import Entry
from leaderboards.entry_schema import Identity

if TYPE_CHECKING:
    from torch import Tensor

    from bench.cells import Block
    from bench.clients import Clients
    from bench.dataset import Dataset
    from bench.plan import Plan

KEY = (
    "model", "weights", "attack", "labels", "schedule_known", "defense_known", "batch_norm", "seed",
)  # fmt: skip
"""What tells the cells of one defense apart."""
OF_THE_DEFENSE = (
    "cell", "defense", "defense_name", "defense_parameters", "audited", "adapts", "threat_class", "images_per_update",
    "local_steps",
)  # fmt: skip
"""What only a plan with the defense itself knows."""


@dataclass(frozen=True)
class Expected:
    """The plan of a board for an entry; `known`: whether the entry's defenses could be loaded, and are part of it."""

    config: Config
    plan: Plan
    clients: Clients
    known: bool

    @cached_property
    def dataset(self) -> Dataset:
        return self.clients.dataset(self.plan.cells[0].setting)

    @cached_property
    def truth(self) -> np.ndarray:
        """The board's images: uint8 (n h w c)."""
        return self.dataset.pixels(range(self.plan.images)).permute(0, 2, 3, 1).numpy()

    def cells(self, defense: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        """The cells that a defense of this label needs, by KEY; of an unknown one without OF_THE_DEFENSE."""
        from bench.plan_file import described

        told = [described(cell, self.plan) for cell in self.plan.cells]
        if self.known:
            return {key_of(cell): cell for cell in told if cell["defense"] == defense}
        strange = [cell for cell in told if cell["defense"] == "none"]
        return {key_of(c): {k: v for k, v in c.items() if k not in OF_THE_DEFENSE} for c in strange}

    def jobs(self) -> list[dict[str, Any]]:
        """The trainings and certificates of the plan, with what is proven."""
        from bench.plan_file import described_jobs

        return described_jobs(self.plan, self.clients)

    def blocks(self, identity: Identity) -> list[tuple[Block, Tensor]]:
        """The blocks of a cell with so many images a client, and in each the image numbers of its trials (t b)."""
        from bench.clients import partition
        from defenses.schedule import Schedule

        like = next(c for c in self.plan.cells if c.seed == identity.seed)
        cell = replace(like, schedule=Schedule(images=identity.images_per_update))
        return [(block, partition(block, self.dataset.name)) for block in cell.blocks(self.plan.images)]

    def cell_id(self, identity: Identity) -> str | None:
        """The id of the expected cell, were it attacked under the identity's defense; None where there is no such."""
        from bench.specs import chain_label

        label = identity.defense if self.known else "none"
        for cell in self.plan.cells:
            if chain_label(cell.defense) == label and key_of(_keyed(cell)) == key_of(identity.model_dump()):
                return replace(cell, defense=chain_of(identity)).id
        return None


def expected(board: str, entry: Entry, plugins: Sequence[Path]) -> Expected:
    """Plan a board for an entry; with a defense that is neither built in nor in `plugins`, for the undefended client.

    Attacks beyond the board's join the plan. Raises ConfigurationError where the entry's defenses or attacks cannot be
    made with their parameters: an attack must be built in or in `plugins`.
    """
    from bench.config import load_config
    from bench.registry import Registry
    from bench.runs import prepare

    known_names = {method.name for method in Registry(plugins).entries("defense")}
    first = {cell.identity.defense: cell.identity for cell in entry.cells}
    known = all(part.name in known_names for identity in first.values() for part in chain_of(identity))
    calls = [" | ".join(part.call for part in chain_of(identity)) for identity in first.values()]
    required = find(board).rules.required
    more = {c.identity.attack: c.identity for c in entry.cells if not c.identity.control}
    extra = [MethodSpec.of(i.attack_name, i.attack_parameters).call for a, i in more.items() if a not in required]
    config = load_config(f"board:{board}", (), plugins, defenses=calls if known else ["none"], attacks=extra)
    config, _, clients, plan = prepare(config, plugins=plugins)
    return Expected(config, plan, clients, known)


def chain_of(identity: Identity) -> Chain:
    """The parts of the identity's defense; raises ConfigurationError where names and parameters do not fit."""
    names = identity.defense_name.split(" | ")
    if len(names) != len(identity.defense_parameters):
        raise ConfigurationError(f"{identity.defense_name} has {len(identity.defense_parameters)} tables of parameters")
    pairs = zip(names, identity.defense_parameters, strict=True)
    return tuple(MethodSpec.of(name, parameters) for name, parameters in pairs)


def key_of(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a cell from the others of its defense."""
    return tuple(cell[name] for name in KEY)


def plain(value: object) -> object:
    """The value as JSON has it: tuples are lists."""
    return json.loads(json.dumps(value))


def _keyed(cell: Any) -> dict[str, Any]:
    return {
        "model": cell.setting.model_label,
        "weights": cell.setting.weights.label,
        "attack": cell.attack.label,
        "seed": cell.seed,
        **asdict(cell.threat),
    }
