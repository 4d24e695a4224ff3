"""What a plan holds and what it would cost, from a few measured iterations of the real attacks."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import fields, replace
from typing import Any

from attacks.attack import Attack
from bench.cells import Block
from bench.clients import Clients, attack_seeds, observe
from bench.engines.local import choose_device
from bench.plan import Plan
from bench.registry import Registry
from bench.specs import chain_label
from bench.store import Store

FEW, MORE = 1, 4
"""Iterations that are timed; their difference leaves out what is paid once."""


def describe_plan(plan: Plan, registry: Registry, clients: Clients, store: Store, device: str) -> str:
    """The settings, attacks and defenses of a plan, what is done, what is skipped and why, and the hours left."""
    settings = dict.fromkeys(cell.setting for cell in plan.cells)
    states = {block.id: _state(block, plan, store) for block in plan.blocks()}
    lines = [f"{plan.config.name}: {len(plan.cells)} cells over {plan.images} images, {len(states)} blocks"]
    lines += [f"  setting   {s.dataset.name}, {s.model_label}, {s.weights.label}" for s in settings]
    lines += [f"  attack    {label}" for label in dict.fromkeys(c.attack.label for c in plan.cells)]
    lines += [f"  defense   {label}" for label in dict.fromkeys(chain_label(c.defense) for c in plan.cells)]
    lines += [f"  note      {note}" for note in plan.notes]
    skipped = dict.fromkeys((c.attack.label, c.setting.model_label, c.skip) for c in plan.cells if c.skip)
    lines += [f"  skipped   {attack} on {model}: {why}" for attack, model, why in skipped]
    lines += [f"  {status:<9} {count} blocks" for status, count in sorted(Counter(states.values()).items())]
    pending = [block for block in plan.blocks() if states[block.id] == "pending"]
    if not pending:
        return "\n".join([*lines, "nothing left to run"])
    seconds, unknown = _estimate(pending, registry, clients, device)
    lines.append(f"about {_readable(seconds)} on {device}, from a few measured iterations of each attack")
    return "\n".join([*lines, *(f"  not estimated: {reason}" for reason in unknown)])


def _state(block: Block, plan: Plan, store: Store) -> str:
    if block.cell.skip is not None:
        return "skipped"
    return store.status_of(block.id, plan.fingerprints[block.id])


def _estimate(pending: list[Block], registry: Registry, clients: Clients, device: str) -> tuple[float, list[str]]:
    """Seconds for all blocks, and why some could not be estimated."""
    per_image: dict[Any, float] = {}
    seconds, unknown = 0.0, {}
    for block in pending:
        cell = block.cell
        if cell.borrows is not None:
            continue
        key = (cell.setting, cell.attack, cell.threat, cell.schedule)
        if key not in per_image:
            try:
                per_image[key] = _measured(block, registry, clients, device)
            except Exception as error:  # Whatever a plugin raises here will be a cell's status in the run.
                per_image[key] = 0.0
                unknown[f"{cell.title}: {type(error).__name__}: {error}"] = None
        seconds += per_image[key] * (block.stop - block.start)
    return seconds, list(unknown)


def _measured(block: Block, registry: Registry, clients: Clients, device: str) -> float:
    """Seconds per image of this block's attack."""
    cell = block.cell
    attack: Attack = registry.build("attack", cell.attack)
    released = clients.release(block)
    means = clients.class_means(cell.setting) if cell.control else None
    seen = observe(released, cell.threat, means).to(choose_device(device))
    seeds = attack_seeds(released, cell.setting.dataset.name, cell.seed)
    iterations = cell.attack.parameters.get("iterations")
    if iterations is None or "iterations" not in {field.name for field in fields(attack)}:  # pyright: ignore
        return _timed(attack, seen, seeds) / (block.stop - block.start)
    few, more = (_timed(replace(attack, iterations=n), seen, seeds) for n in (FEW, MORE))  # pyright: ignore
    each = max(0.0, more - few) / (MORE - FEW)
    return (few + each * max(0, iterations - FEW)) / (block.stop - block.start)


def _timed(attack: Attack, seen: Any, seeds: list[int]) -> float:
    started = time.perf_counter()
    attack.reconstruct(seen, seeds)
    return time.perf_counter() - started


def _readable(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
