"""The plan of a board for an entry, made anew from the board's file: the cells, jobs, images and trials to expect."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.columns import KEYS, column_names
from bench.errors import ConfigurationError
from bench.grid.config import Config
from bench.registry.specs import ChainSpec, MethodSpec
from leaderboards.entries.board import PREFIX, grid_source, load_board
from leaderboards.entries.entry import Entry
from leaderboards.entries.schema import Identity

if TYPE_CHECKING:
    from torch import Tensor

    from bench.data.dataset import Dataset
    from bench.grid.cells import Block, Cell
    from bench.plan.plan import Plan
    from bench.registry.registry import Registry
    from bench.trial.clients import Clients

KEY = [name for name in KEYS if name not in ("dataset", "defense")]
"""Columns that tell the cells of one defense apart."""
OF_THE_DEFENSE = column_names("id", "defense", "claim", "schedule")
"""Columns that only a plan with the defense itself knows."""
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Choices:
    """The part of an entry that decides its plan."""

    board: str
    """The board's name."""
    defenses: tuple[str, ...]
    """Calls of the defenses that can be loaded, sorted; for any other the undefended client is planned."""
    attacks: tuple[str, ...]
    """Calls of the attacks beyond the board's, sorted."""
    known: frozenset[str]
    """Labels of the defenses that can be loaded."""


@dataclass(frozen=True)
class Expected:
    """The plan of a board for an entry."""

    config: Config
    """The board's grid file, with the entry's defenses and attacks."""
    plan: Plan
    clients: Clients
    known: frozenset[str]
    """Labels of the entry's defenses that could be loaded."""

    def like(self, defense: str) -> str:
        """The label under which the plan has a defense: an unknown one is planned as the undefended client."""
        return defense if defense in self.known else "none"

    @cached_property
    def dataset(self) -> Dataset:
        return self.clients.dataset(self.plan.cells[0].setting)

    @cached_property
    def truth(self) -> np.ndarray:
        """The board's images: uint8 (n h w c)."""
        return self.dataset.pixels(range(self.plan.images)).permute(0, 2, 3, 1).numpy()

    def cells(self, defense: str) -> dict[Key, dict[str, Any]]:
        """The cells that a defense of this label needs, by KEY; of an unknown one without OF_THE_DEFENSE."""
        wanted = {key: told for (label, key), (_, told) in self._cells.items() if label == self.like(defense)}
        if defense in self.known:
            return wanted
        return {key: {k: v for k, v in told.items() if k not in OF_THE_DEFENSE} for key, told in wanted.items()}

    @cached_property
    def jobs(self) -> list[dict[str, Any]]:
        """The trainings and certificates of the plan, with what is proven."""
        from bench.plan.description import described_jobs
        from bench.price.jobs import UNUSED_DELTA

        rows = described_jobs(self.plan, self.clients)
        for job, row in zip(self.plan.jobs, rows, strict=True):
            if job.kind == "certificate":
                proof = self.clients.chain(job.defense).privacy(job.setting.client, 1, UNUSED_DELTA)
                assert proof is not None, "only what proves something is put to a test"
                row |= {"noise_multiplier": proof.noise_multiplier, "steps": proof.steps}
        return rows

    def blocks(self, identity: Identity) -> list[tuple[Block, Tensor]]:
        """The blocks of a cell with so many images a client, and in each the image numbers of its trials (t b)."""
        from bench.trial.clients import partition
        from defenses.schedule import Schedule

        like = next(c for c in self.plan.cells if c.seed == identity.seed)
        cell = replace(like, schedule=Schedule(images=identity.images_per_update))
        return [(block, partition(block, self.dataset.name)) for block in cell.blocks(self.plan.images)]

    def held_out(self, block: Block) -> Tensor:
        """The images of the held-out clients of a block's ones: uint8 (t k b c h w).

        Raises ConfigurationError where there are none of a label.
        """
        from attacks.attack import UnsupportedPair

        try:
            return self.clients.held_out_batches(block)[0]
        except UnsupportedPair as reason:
            raise ConfigurationError(f"it answers held-out clients, but {reason}") from reason

    def cell_id(self, identity: Identity) -> str | None:
        """The id of the expected cell, were it attacked under the identity's defense; None where there is no such."""
        found = self._cells.get((self.like(identity.defense), key_of(identity.model_dump())))
        return None if found is None else replace(found[0], defense=chain_of(identity)).id

    @cached_property
    def _cells(self) -> dict[tuple[str, Key], tuple[Cell, dict[str, Any]]]:
        from bench.plan.description import described

        told = [(cell, described(cell, self.plan)) for cell in self.plan.cells]
        return {(row["defense"], key_of(row)): (cell, row) for cell, row in told}


Planner = Callable[[str, Entry, "Registry"], Expected]


def expected(board: str, entry: Entry, registry: Registry) -> Expected:
    """Plan a board for an entry; a defense that is not in the `registry` as the undefended client.

    Attacks beyond the board's join the plan. Raises ConfigurationError where the entry's defenses or attacks cannot be
    made with their parameters, or go beyond the board's limits: an attack must be in the registry.
    """
    return planned(choices(board, entry, registry), registry)


def choices(board: str, entry: Entry, registry: Registry) -> Choices:
    """The choices that an entry makes; raises ConfigurationError where names and parameters do not fit."""
    names = {method.name for method in registry.descriptions("defense")}
    chains = {cell.identity.defense: chain_of(cell.identity) for cell in reversed(entry.cells)}
    known = {label: chain for label, chain in chains.items() if all(part.name in names for part in chain)}
    # Resolved first: as text a stranger's list would be an axis, and a name anything.
    whole = [[registry.resolve("defense", part) for part in chain] for chain in known.values()]
    calls = dict.fromkeys(" | ".join(part.call for part in chain) for chain in whole)
    if known.keys() != chains.keys():
        calls["none"] = None
    added = added_attacks(entry, load_board(board).rules.required).values()
    extra = [registry.resolve("attack", MethodSpec.of(i.attack_name, i.attack_parameters)).call for i in added]
    return Choices(board, tuple(sorted(calls)), tuple(sorted(set(extra))), frozenset(known))


def planned(asked: Choices, registry: Registry) -> Expected:
    """The plan of these choices; raises ConfigurationError where there is none."""
    from bench.engines.run import prepare
    from bench.grid.config import load_config

    grid = grid_source(f"{PREFIX}{asked.board}")
    config = load_config(grid, (), registry, defenses=asked.defenses, attacks=asked.attacks)
    _check_sizes(config, registry, asked.board)
    config, _, clients, plan = prepare(config, registry)
    return Expected(config, plan, clients, asked.known)


def _check_sizes(config: Config, registry: Registry, board: str) -> None:
    """Raise ConfigurationError for work beyond the board's limits, before any of it is traced."""
    from bench.registry.sources import named
    from bench.registry.specs import chain_label
    from bench.trial.clients import Clients

    limits = load_board(board).rules.limits
    for parts in config.grid.defenses:
        with named(f"defense {chain_label(parts)}"):
            work = Clients(registry).chain(parts).schedule(config.grid.client.schedule)
        called = chain_label(parts)[:200]
        if work.images > limits.images_per_update:
            raise ConfigurationError(f"{called}: {work.images} images of an update, at most {limits.images_per_update}")
        if not work.sends_gradient and work.steps > limits.local_steps:
            raise ConfigurationError(f"{called}: {work.steps} local steps, at most {limits.local_steps}")


def added_attacks(entry: Entry, required: Collection[str]) -> dict[str, Identity]:
    """The attacks of an entry beyond those that its board requires, by label."""
    own = (cell.identity for cell in entry.cells)
    return {one.attack: one for one in own if not one.control and one.attack not in required}


def chain_of(identity: Identity) -> ChainSpec:
    """The parts of the identity's defense; raises ConfigurationError where names and parameters do not fit."""
    names = identity.defense_name.split(" | ")
    if len(names) != len(identity.defense_parameters):
        raise ConfigurationError(f"{identity.defense_name} has {len(identity.defense_parameters)} tables of parameters")
    pairs = zip(names, identity.defense_parameters, strict=True)
    return tuple(MethodSpec.of(name, parameters) for name, parameters in pairs)


def key_of(cell: dict[str, Any]) -> Key:
    """The values of the columns KEY: no other cell of the same defense has the same."""
    return tuple(cell[name] for name in KEY)


def as_json(value: object) -> object:
    """The value as JSON has it: tuples are lists."""
    return json.loads(json.dumps(value))
