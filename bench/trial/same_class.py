"""The control `same_class`: an attack's answer to held-out public clients, scored against the attacked images.

The held-out clients have the labels of the attacked one, and nothing else of it: an attack that is no nearer to the
images of its own client has learned the class and no more. Against their own images the same answers are the positive
control: they tell that the attack works on clients of the defense at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bench.grid.cells import Cell
from bench.registry.specs import MethodSpec
from bench.trial import wrong_image

SAME_CLASS = "same_class"


def same_class_label(attack: str) -> str:
    """The label of the control that was made from the attack of this label."""
    return _spec(attack).label


LABELS_OF_CONTROLS: Mapping[str, Callable[[str], str]] = {
    wrong_image.NAME: wrong_image.label,
    SAME_CLASS: same_class_label,
}
"""Name of a control that is made from one attack, and a floor of that one alone -> its label from the attack's."""


def same_class_control(cell: Cell, order: int) -> Cell:
    """The control that repeats an attack's cell on held-out clients, with its place among the attacks on the client."""
    return replace(wrong_image.control(cell, order), attack=_spec(cell.attack.label), borrows=None, repeats=cell)


def _spec(attack: str) -> MethodSpec:
    return MethodSpec.of(SAME_CLASS, {"of": attack})
