"""The rooms of the house: their files, the imports between them, and the map in CONTRIBUTING.md.

    python -m tools.rooms

copies each room's sentence from its `__init__.py` into the map, and prints the figures of the house. The map is the one
list of rooms, from top to bottom: tests/test_architecture.py holds the code to it.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).resolve().parents[1]
MAP = REPOSITORY / "CONTRIBUTING.md"
_ROW = re.compile(r"^\| `([\w/]+)/`(\*?) \| (.*) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Room:
    """A row of the map."""

    path: str
    """The folder, from the repository's root: "attacks/engine"."""
    catalogue: bool
    """Marked with a star: the room holds one method a file, as many or as few as there are."""
    sentence: str


def rooms() -> list[Room]:
    """The rooms of the map, from top to bottom: imports run only down this list."""
    return [Room(path, star == "*", sentence) for path, star, sentence in _ROW.findall(MAP.read_text(encoding="utf-8"))]


def sources(listed: Iterable[Room]) -> dict[str, ast.Module]:
    """Path -> syntax tree of every source file of the wings, found on disk: also in rooms that the map lacks."""
    wings = sorted({room.path.partition("/")[0] for room in listed})
    paths = [path for wing in wings for path in sorted((REPOSITORY / wing).rglob("*.py"))]
    return {path.relative_to(REPOSITORY).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def room_of(file: str) -> str:
    return file.rpartition("/")[0]


def modules_of(tree: ast.Module) -> set[str]:
    """Dotted names that a tree imports, also inside functions and for type checkers; some are names in a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def arrows(trees: Mapping[str, ast.Module]) -> set[tuple[str, str]]:
    """(file, file that it imports), without the `__init__` files, which import nothing."""
    home = {name.removesuffix(".py").replace("/", "."): name for name in trees if not name.endswith("__init__.py")}
    return {(name, home[module]) for name, tree in trees.items() for module in modules_of(tree) & home.keys()}


def circle(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The nodes of one circle in their order, the first one again at the end; empty where there is none."""
    graph: dict[str, set[str]] = defaultdict(set)
    for source, target in edges:
        graph[target].add(source)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def between_rooms(edges: Iterable[tuple[str, str]]) -> Counter[tuple[str, str]]:
    """(room, other room) -> how many pairs of files the imports join."""
    pairs = ((room_of(source), room_of(target)) for source, target in edges)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def definitions(tree: ast.Module) -> set[str]:
    """Public classes, functions and constants at the top level of a file."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            found |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return {name for name in found if not name.startswith("_")}


def clashes(trees: Mapping[str, ast.Module]) -> dict[str, list[str]]:
    """Public name -> the files that each define it, where there are several."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file, tree in sorted(trees.items()):
        for name in definitions(tree):
            homes[name].append(file)
    return {name: files for name, files in sorted(homes.items()) if len(files) > 1}


def docstrings(tree: ast.Module) -> list[str]:
    """The docstrings of a file, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node))]


def refresh_map(trees: Mapping[str, ast.Module]) -> None:
    """Write the first paragraph of each room's `__init__.py` into its row."""

    def row(match: re.Match[str]) -> str:
        return f"| `{match[1]}/`{match[2]} | {first_paragraph(trees[f'{match[1]}/__init__.py'])} |"

    MAP.write_text(_ROW.sub(row, MAP.read_text(encoding="utf-8")), encoding="utf-8")


def first_paragraph(tree: ast.Module) -> str:
    """The first paragraph of a file's docstring on one line."""
    return " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())


def account(listed: Iterable[Room], trees: Mapping[str, ast.Module]) -> str:
    """Each room with its files, lines and arrows; then what the whole house comes to."""
    lengths = {
        file: len((REPOSITORY / file).read_text(encoding="utf-8").splitlines())
        for file in trees
        if not file.endswith("__init__.py")
    }
    edges = arrows(trees)
    joined = between_rooms(edges)
    lines = []
    for room in listed:
        own = [length for file, length in lengths.items() if room_of(file) == room.path]
        targets = ", ".join(
            f"{target} {count}" for (source, target), count in sorted(joined.items()) if source == room.path
        )
        lines.append(f"{room.path + '/' + '*' * room.catalogue:26} {len(own):2} files {sum(own):5} lines  -> {targets}")
    longest = max(lengths, key=lambda file: lengths[file])
    texts = [text for tree in trees.values() for text in docstrings(tree)]
    questions = [text for text in texts if re.match(r"(What|Which|Where|How|Who|Why|Whether)\b", text)]
    return "\n".join(
        [
            *lines,
            f"{len(lines)} rooms, {len(lengths)} files, {len(joined)} arrows between rooms, {len(edges)} between files",
            f"circles between rooms: {circle(joined) or 'none'}; between files: {circle(edges) or 'none'}",
            f"lines of a file: median {median(lengths.values()):g}, longest {lengths[longest]} ({longest})",
            f"public names that several files define: {len(clashes(trees))}",
            f"docstrings that begin with a question's word: {len(questions)} of {len(texts)}",
        ]
    )


if __name__ == "__main__":
    files = sources(rooms())
    refresh_map(files)
    print(account(rooms(), files))
