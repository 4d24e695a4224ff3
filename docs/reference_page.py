"""Write docs/reference.md from the code: commands, keys of grid files and boards, methods, variables, columns."""

import tomllib
from pathlib import Path

from reference_commands import commands
from reference_keys import keys_of

from bench.board_settings import Board
from bench.config import Config
from bench.listing import listing
from bench.registry import Registry

HERE = Path(__file__).resolve().parent
PAGE = HERE / "reference.md"
NOTES = HERE / "reference.toml"
HEAD = """# Reference

Made from the code by `make reference`; a test compares. What a run does in order is in [quickstart.md](quickstart.md).
"""


def page() -> str:
    """The whole page."""
    notes = tomllib.loads(NOTES.read_text(encoding="utf-8"))
    parts = [
        HEAD,
        "## Commands",
        *commands(),
        "## Exit codes",
        _table(("code", "meaning"), notes["exit_codes"]),
        "## Keys of a grid file",
        "A grid file is TOML. A key that takes one or a list is an axis of the grid. Unknown keys are errors.",
        *keys_of(Config, notes["keys"], but=("board",)),
        "## Keys of a board",
        "A board's file is a grid without defenses, and the table `[board]`.",
        *keys_of(Board, notes["keys"], under="board"),
        "## Environment variables",
        _table(("variable", "meaning"), notes["environment"]),
        "## Columns",
        "`leakboard export RUN --to FILE` writes a row for every attacked image, or for every block without a result:",
        _table(("column", "meaning"), notes["columns"]),
        "With `--jobs` it writes a row for every training and certificate:",
        _table(("column", "meaning"), notes["job_columns"]),
        "## Attacks",
        "Presets are settings of an attack under a versioned name, whose meaning never changes.",
        _methods("attacks"),
        "## Defenses",
        _methods("defenses"),
        "## Presets of grids",
        _methods("presets"),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _methods(kind: str) -> str:
    """A row for each built-in name, with its parameters; what else is installed here is nobody's reference."""
    rows: dict[str, str] = {}
    for row in listing(kind, Registry()):
        own_or_preset = row.get("origin", "built-in").startswith(("built-in", "preset of"))
        if own_or_preset and not row["summary"].endswith("[an attack]"):
            own = ", ".join(
                p["name"] if p["required"] else f"{p['name']}={p['default']!r}" for p in row.get("parameters", [])
            )
            rows[row["name"]] = row["summary"] + (f" `{own}`" if own else "")
    return _table(("name", "what it is, and its parameters"), rows)


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|:--|:--|"]
    for names, text in rows.items():
        lines.append(f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
