"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

GridSpec = Annotated[
    str, typer.Argument(metavar="SPEC", help="A preset's name, board:NAME, or a TOML file.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where the attacks run.")]
ExecutionOption = Annotated[
    Literal["auto", "eager", "compile", "graph"] | None,
    typer.Option(help="How: auto measures what compiling, or replaying a CUDA graph, would save."),
]
PrecisionOption = Annotated[
    Literal["float32", "tf32", "bfloat16"] | None,
    typer.Option(help="Of the attacker's network; tf32 needs a GPU. Results of another precision are stale."),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="A Python file with attacks or defenses of your own."),
]
Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense", metavar="DEFENSE", help="Joins the grid's defenses, e.g. 'dp_sgd(noise_multiplier=0.1)'."
    ),
]
Attacks = Annotated[list[str] | None, typer.Option("--attack", metavar="ATTACK", help="Joins the grid's attacks.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. grid.images=20.")
]
