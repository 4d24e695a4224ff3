"""Groups of blocks that run as lanes of one program; one that was begun goes on as it began."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from attacks.engine.execution import Choice
from bench.devices import activations
from bench.grid.cells import Block
from bench.registry.registry import Registry
from bench.store.store import Store
from bench.trial.clients import Clients
from defenses.task import Task

LANES = 128
"""More lanes gain nothing on any network measured, and a run that is stopped loses the whole group."""
FLOATS = 10_000_000
"""Activations of all lanes: a network that fills the processor alone gains nothing from company."""
OWN_WEIGHTS = 100_000
"""Weights up to which several model seeds share a program; beyond it a lane's own weights cost more than they save."""


@dataclass
class Group:
    """Blocks whose trials are lanes of one program."""

    blocks: list[Block]
    """All blocks of the program, in the order of their lanes."""
    choices: list[Choice] = field(default_factory=list)
    """The engine's choices when the group was begun; empty for a new one."""
    done: frozenset[str] = frozenset()
    """Ids of blocks that had a result before this command; they run along for the sake of the others' bytes."""

    @property
    def lead(self) -> Block:
        """The first block that is waited for: a death is blamed on it, since those of finished blocks are forgotten."""
        return next(block for block in self.blocks if block.id not in self.done)

    @property
    def title(self) -> str:
        others = len(self.blocks) - 1
        return self.blocks[0].title + (f" and {others} more" if others else "")


class Groups:
    """Forms groups, and remembers in the run's folder what each was made of and how it was run.

    A group that was interrupted is run again as a whole, so that its blocks get the same bytes as in a calm run; not so
    where a method, or a setting in `how` it is to be run, has changed since. `fingerprints` are those of the blocks.
    """

    def __init__(
        self, store: Store, registry: Registry, clients: Clients, fingerprints: dict[str, str], how: dict[str, Any]
    ) -> None:
        self._store, self._registry, self._clients = store, registry, clients
        self._fingerprints, self._how = fingerprints, how
        self._sizes: dict[Any, tuple[int, int, bool]] = {}

    def of(self, pending: list[Block], planned: Iterable[Block], alone: Iterable[str]) -> list[Group]:
        """The pending blocks in groups, in the order of their first members.

        `planned` are all blocks of the plan; those with an id in `alone` share with nobody.
        """
        known = {block.id: block for block in planned}
        wanted = {block.id for block in pending}
        solitary = set(alone)
        groups: dict[str, Group] = {}
        for ids, fingerprints, how, choices in self._begun():
            same = [self._fingerprints.get(i) for i in ids] == fingerprints and how == self._how
            if same and set(ids) <= known.keys() and wanted & set(ids) and not solitary & set(ids):
                groups[ids[0]] = Group([known[i] for i in ids], choices, frozenset(ids) - wanted)
        taken = {block.id: group for group in groups.values() for block in group.blocks}
        open_groups: dict[Any, Group] = {}
        ordered: dict[int, Group] = {}
        for block in pending:
            group = taken.get(block.id)
            if group is None:
                key = None if block.id in solitary else self._key(block)
                group = open_groups.get(key) if key is not None else None
                if group is None or not self._takes(group, block):
                    group = Group([])
                    open_groups[key] = group
                group.blocks.append(block)
            ordered.setdefault(id(group), group)
        return list(ordered.values())

    def begin(self, group: Group, choice: Choice) -> None:
        """Remember how a group of several blocks is run."""
        if len(group.blocks) == 1 or group.choices:
            return
        group.choices.append(choice)
        ids = [block.id for block in group.blocks]
        with self._store.turn():
            entries = [[*entry[:3], [asdict(c) for c in entry[3]]] for entry in self._begun() if entry[0] != ids]
            entries.append([ids, [self._fingerprints[i] for i in ids], self._how, [asdict(choice)]])
            self._store.write_text("groups.json", json.dumps(entries, indent=1))

    def _begun(self) -> list[tuple[list[str], list[str], dict[str, Any], list[Choice]]]:
        """Ids, fingerprints, settings and choices of every group; none where the file does not say all that."""
        try:
            entries = json.loads((self._store.folder / "groups.json").read_text(encoding="utf-8"))
            return [(ids, marks, how, [Choice(**c) for c in choices]) for ids, marks, how, choices in entries if ids]
        except (OSError, ValueError, TypeError):
            return []  # Then the groups are formed anew.

    def _key(self, block: Block) -> Any:
        """Equal for blocks that can share a program; None for one that cannot share."""
        cell = block.cell
        if cell.control:
            return None
        attack = self._registry.cls("attack", cell.attack.name)
        if not attack.joint:
            return None
        _, weights, has_state = self._size(block)
        # Rules that recover labels and scales read the weights of all trials at once.
        plain = cell.threat.labels != "recovered" and (cell.threat.schedule_known or cell.schedule.sends_gradient)
        alike = attack.takes_own_weights and plain and not has_state and weights <= OWN_WEIGHTS
        defense = cell.defense if cell.threat.defense_known else None
        return cell.setting, cell.attack, cell.threat, cell.schedule, defense, None if alike else cell.seed

    def _takes(self, group: Group, block: Block) -> bool:
        lanes = sum(b.stop - b.start for b in [*group.blocks, block])
        lanes *= self._registry.build("attack", block.cell.attack).restarts
        return lanes <= LANES and lanes * self._size(block)[0] <= FLOATS

    def _size(self, block: Block) -> tuple[int, int, bool]:
        """Activations of one image, weights, and whether the network holds state beside its weights."""
        setting = block.cell.setting
        if setting not in self._sizes:
            model = self._clients.architecture(setting, seed=0)
            params = {name: p.detach() for name, p in model.named_parameters()}
            dataset = self._clients.dataset(setting)
            floats = activations(Task(model, dataset.classes, dataset.input_shape), params)
            state = any(True for _ in model.network.buffers())
            self._sizes[setting] = floats, sum(p.numel() for p in params.values()), state
        return self._sizes[setting]
