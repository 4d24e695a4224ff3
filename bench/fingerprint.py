"""Fingerprints of what a stored result was made by, so that a changed method is never mixed with an old one."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.cells import Cell, Setting
    from bench.clients import Clients
    from bench.registry import Registry

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("attacks", "defenses")
CLIENT = (
    "bench/architectures.py",
    "bench/dataset.py",
    "bench/models.py",
    "bench/networks.py",
    "bench/weights.py",
    "bench/checkpoints.py",
    "bench/training.py",
    "bench/streams.py",
    "bench/clients.py",
    "defenses/batch_norm.py",
    "defenses/chain.py",
    "defenses/none.py",
)
SCORING = (
    "bench/metrics.py",
    "bench/identification.py",
    "bench/perceptual.py",
    "bench/trial.py",
    "bench/dataset.py",
)


def block_fingerprints(
    cells: Iterable[Cell],
    images: int,
    registry: Registry,
    clients: Clients,
    checkpoints: dict[Setting, str | None],
    precision: str,
) -> dict[str, str]:
    """Of every block, by id: its methods' sources, the images they see, and what else data and weights decide."""
    digest_of_sources = cache(lambda paths: sources_fingerprint(paths))
    digest_of_images = cache(lambda setting, start, stop: clients.dataset(setting).digest(range(start, stop)))
    found: dict[str, str] = {}
    for cell in cells:
        paths = [registry.sources("attack", (cell.borrows or cell).attack.name)]
        parts = [*cell.defense, *(part for chain in cell.setting.preparers for part in chain)]
        paths += [registry.sources("defense", part.name) for part in parts]
        facts = clients.facts(cell.setting)
        also = [facts.task, facts.trained, checkpoints[cell.setting] or ""]
        also += [str([part.canonical for chain in cell.setting.preparers for part in chain])]
        if precision != "float32" and not (cell.borrows or cell).control:
            also.append(precision)
        if cell.attack.name == "class_mean":
            also.append(clients.means_digest(cell.setting))
        for block in cell.blocks(images):
            seen = digest_of_images(cell.setting, block.start, block.stop)
            found[block.id] = fingerprint(digest_of_sources(tuple(paths)), seen, *also)
    return found


def sources_fingerprint(sources: Iterable[Path], also: Iterable[str] = CLIENT) -> str:
    """16 digits of the methods' files, every file of `attacks` and `defenses` that they import, and some more."""
    files = {file for source in sources for file in _closure(source.resolve())} | {ROOT / file for file in also}
    return fingerprint(*(file.name + _text(file) for file in sorted(files, key=_place)))


def scoring_fingerprint(pool: str) -> str:
    """16 digits of the files that turn reconstructions into metrics, and of the pool's digest."""
    return fingerprint(*(_text(ROOT / file) for file in SCORING), pool)


def fingerprint(*parts: str) -> str:
    """16 digits of these texts in this order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _place(file: Path) -> tuple[str, ...]:
    """What a file is sorted by: the same wherever Leakboard and a plugin lie."""
    own = file.is_relative_to(ROOT) and file.relative_to(ROOT).parts
    return own if own and own[0] in (*ROOMS, "bench") else (file.name,)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _closure(source: Path) -> frozenset[Path]:
    """The file and all files of the two rooms that it imports, directly or not."""
    seen: set[Path] = set()
    open_files = [source]
    while open_files:
        file = open_files.pop()
        if file in seen:
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(_text(file), filename=str(file))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                names += ["leakboard.*"] * names.count("leakboard")
            else:
                continue
            names += [home for name in names if name.startswith("leakboard.") for home in _homes(name)]
            paths = [ROOT / (name.replace(".", "/") + ".py") for name in names if name.split(".")[0] in ROOMS]
            open_files += [path for path in paths if path.is_file()]
    return frozenset(seen)


def _homes(name: str) -> list[str]:
    """The modules behind a name of the public face: `leakboard.descend`, or `leakboard.*` for all of them."""
    homes = _public_face()
    wanted = name.partition(".")[2]
    return list(homes.values()) if wanted == "*" else [homes[wanted]] if wanted in homes else []


@cache
def _public_face() -> dict[str, str]:
    """Name -> module, read from the source: the face stands above this room, which must not import it."""
    for node in ast.parse(_text(ROOT / "leakboard.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            return ast.literal_eval(node.value)
    raise LookupError("leakboard.py assigns no _HOMES")
