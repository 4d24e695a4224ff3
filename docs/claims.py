"""What a claim of the paper consists of: its words, its figures, and the runs that it is held against."""

from __future__ import annotations

from dataclasses import dataclass

from orderings import Cells, Ordering

UNTRAINED, FIVE = "untrained", "epochs=5 on cifar10-jpeg"
"""Labels of weights that several presets share."""
COSINE, EUCLIDEAN = {"attack_name": "inverting_gradients"}, {"attack_name": "euclidean"}


@dataclass(frozen=True)
class Published:
    """A figure of the paper: PSNR in dB, mean and SD over its images; `remembered`: not looked up again."""

    mean: float
    sd: float
    remembered: bool = True

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.sd:.2f}" + (" [from memory]" if self.remembered else "")


@dataclass(frozen=True)
class Line:
    """A row of the page's table: cells of ours, and the paper's figure for the same where there is one."""

    cells: Cells
    paper: Published | None = None


@dataclass(frozen=True)
class Held:
    """An ordering that the paper claims, or with `asked` one that we ask about without it."""

    ordering: Ordering
    asked: bool = False


@dataclass(frozen=True)
class Variant:
    """A claim as one preset tests it; `differs` says where and why its setting is not the paper's."""

    preset: str
    lines: tuple[Line, ...]
    held: tuple[Held, ...]
    differs: str


@dataclass(frozen=True)
class Claim:
    """`slug` names its pictures; `paper` says what the paper shows and where."""

    slug: str
    title: str
    paper: str
    variants: tuple[Variant, ...]


def floor(label: str, *, metric: str = "psnr_db", **where: object) -> Cells:
    """The strongest control, by the mean of this metric, among these rows."""
    return Cells(label, {"control": True, **where}, strongest=metric)


def above_floor(cells: Cells) -> tuple[Held, Held]:
    """That the attack of these cells is above the strongest control, in PSNR and in images identified."""
    where = {key: value for key, value in cells.where.items() if key not in ("attack_name", "control")}
    label = f"{cells.label}: strongest floor"
    psnr, identified = (floor(label, metric=metric, **where) for metric in ("psnr_db", "identified"))
    return Held(Ordering(cells, psnr)), Held(Ordering(cells, identified, "identified"))
