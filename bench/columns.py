"""The columns that all rows of a cell share, declared once: every list of their names is derived from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attacks.threat import switches

Role = Literal["id", "setting", "secret", "fact", "attack", "defense", "claim", "held", "seed", "schedule"]
"""The subject of a column: the cell's id; the setting that all cells of a comparison share; a secret of the client that
the server is granted, or a published fact that it may use (the threat model's fields); the attack or the defense; a
claim of the plan about the two; the public images that the server holds; the seed; the client's work."""


@dataclass(frozen=True)
class Column:
    """A column of results that says the same in all rows of a cell."""

    name: str
    """The column's name in plans, records, tables and entries."""
    role: Role
    """The column's subject, from which every list of names is derived."""
    is_key: bool = False
    """Together the keys tell a cell from every other one of its run; the other columns follow from them."""
    is_summarised: bool = True
    """True if a row of a summary repeats it."""
    is_entered: bool = True
    """True if entries of boards state it; else it belongs to one grid only."""
    is_json: bool = False
    """True if it holds JSON as text, which entries hold as objects."""
    since: int = 0
    """0: it is in every plan. 1: plans from before it joined lack it. 2: it joined after boards were published, and
    plans and entries leave it out at its default."""
    default: Any = None
    """The value that readers give to plans that lack it."""


COLUMNS: tuple[Column, ...] = (
    Column("cell", "id", is_summarised=False),
    Column("dataset", "setting", is_key=True),
    Column("model", "setting", is_key=True),
    Column("weights", "setting", is_key=True),
    Column("attack", "attack", is_key=True),
    Column("attack_name", "attack"),
    Column("attack_parameters", "attack", is_summarised=False, is_json=True, since=1, default="{}"),
    Column("attack_order", "attack"),
    Column("control", "attack"),
    Column("recovers_labels", "attack", is_summarised=False, since=1, default=False),
    Column("defense", "defense", is_key=True),
    Column("defense_name", "defense"),
    Column("defense_order", "defense", is_entered=False),
    Column("defense_parameters", "defense", is_json=True),
    Column("audited", "claim", since=1, default=True),
    Column("adapts", "claim", is_summarised=False, since=1, default=False),
    *(
        Column(s.name, "fact" if s.subject else "secret", is_key=True, since=s.since, default=s.default)
        for s in switches()
    ),
    Column("threat_class", "claim"),
    Column("public_images", "held", since=2, default=0),
    Column("public_left_out", "held", since=2, default=0),
    Column("public_sha256", "held", since=2, default=""),
    Column("seed", "seed", is_key=True, is_summarised=False),
    Column("images_per_update", "schedule"),
    Column("local_steps", "schedule"),
)


# Lists, as pandas takes a tuple for the name of one column.
def column_names(*roles: Role) -> list[str]:
    """The names of the columns with one of these roles, in order."""
    return [column.name for column in COLUMNS if column.role in roles]


KEYS = [column.name for column in COLUMNS if column.is_key]
JSON = [column.name for column in COLUMNS if column.is_json]
OF_ONE_GRID = [column.name for column in COLUMNS if not column.is_entered]
THREAT = column_names("secret", "fact")
FACTS = column_names("fact")
SETTING = [*column_names("setting"), *THREAT]
"""Columns that the cells of one table share."""
QUESTION = [name for name in SETTING if name not in FACTS]
"""Columns that the defenses of one ranking share: the secrets that the server is granted are part of the question."""
METHOD = [c.name for c in COLUMNS if c.role in ("attack", "defense", "claim", "schedule") and c.is_summarised]
"""Columns of a row of a summary beside its setting."""
HELD_OUT_FIGURES = ["held_out_ssim", "held_out_psnr_db"]
"""Figures of the control `same_class`: an attack's answers to held-out clients against those clients' own images.

They joined after boards were published: results without that control have no such columns."""
EARLIER = {c.name: c.default for c in COLUMNS if c.since}
"""Column -> its value in plans that are older than the column."""
LATER = {c.name: c.default for c in COLUMNS if c.since > 1}
"""Column -> the value at which plans and entries leave it out: it joined after boards were published."""


def as_published(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as plans and entries hold it: without what joined after boards were published, where it is as always."""
    return {name: value for name, value in row.items() if name not in LATER or value != LATER[name]}


def facts_of(row: Mapping[str, Any]) -> tuple[bool, ...]:
    """The published facts that a row's attack was granted, in the order of `FACTS`."""
    return tuple(bool(row[name]) for name in FACTS)


def granted_text(*granted: bool) -> str:
    """Words behind an attack's name about the published facts (`FACTS`) that are not as usual."""
    told = zip((switch for switch in switches() if switch.subject), granted, strict=True)
    return "".join(f", {fact.short}{'' if has else ' not'} known" for fact, has in told if has != fact.default)
