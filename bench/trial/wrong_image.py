"""The control `wrong_image`: an attack's reconstruction of one client, scored against another client's images.

An attack that is no nearer to the images of its own client than to those of another has learned nothing of its client.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.grid.cells import Block, Cell
from bench.registry.specs import MethodSpec

if TYPE_CHECKING:
    from bench.trial.trial import BlockReconstruction

NAME = "wrong_image"


def label(attack: str) -> str:
    """The label of the control that was made from the attack of this label."""
    return _spec(attack).label


def control(cell: Cell, order: int) -> Cell:
    """The control that was made from an attack's cell, with its place among the attacks on the same client."""
    return replace(
        cell,
        attack=_spec(cell.attack.label),
        control=True,
        attack_order=order,
        borrows=cell,
        skip=cell.skip and f"{cell.attack.name} is skipped",
        adapts=False,
        recovers_labels=False,
    )


def source(block: Block, images: int) -> Block | None:
    """The block whose reconstructions a control's block scores again; None without two clients among the `images`."""
    cell = block.cell.borrows
    assert cell is not None, "only this control borrows"
    if (block.stop - block.start) // cell.schedule.images > 1:
        return Block(cell, block.start, block.stop)
    # A client that is alone in its block is shown what was found for the clients before it.
    before = [other for other in cell.blocks(images) if other.stop == block.start]
    return before[0] if before else None


def reconstructions(block: Block, found: BlockReconstruction) -> BlockReconstruction:
    """The reconstructions of the `source` of a control's block, each moved on to the next trial."""
    trials = (block.stop - block.start) // block.cell.schedule.images
    images, labels = (own.roll(1, 0)[:trials] for own in (found.images, found.labels))
    bare = {"start": None, "found": None, "at_truth": None, "trace": {}, "features": None, "choices": {}}
    return replace(found, images=images, labels=labels, **bare)


def _spec(attack: str) -> MethodSpec:
    return MethodSpec.of(NAME, {"of": attack})
