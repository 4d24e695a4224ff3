"""The site: static pages of every board, written from the published entries alone into a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w

from attacks.threat import switches
from bench.columns import facts_of, granted_text
from bench.errors import ConfigurationError, Unwritable
from leaderboards.entries.board import Board, all_boards
from leaderboards.entries.entry import Entry
from leaderboards.entries.published import PUBLISHED, published
from leaderboards.site.board_page import BoardView, board_view
from leaderboards.site.cell_page import METRIC_NAMES, cell_view
from leaderboards.site.defense_page import ATTACK_COLUMNS, FLOOR_COLUMNS, part, strengths_of
from leaderboards.site.downloads import downloads
from leaderboards.site.heat import cell_page
from leaderboards.site.lines import anchor_of
from leaderboards.site.pictures import Pictures, choose
from leaderboards.site.results import Asked, Results, asked_of, faced_of, results
from leaderboards.site.text import one_line, render_template
from leaderboards.tables.notes import known_text


def command_of(entry: Entry, board: Board) -> str:
    """As a shell reads it: every label is one quoted word, whatever is in it."""
    words = ["leakboard", "run", f"board:{board.name}"]
    for defense in entry.defenses:
        words += ["--defense", one_line(defense)]
    attacks = dict.fromkeys(cell.identity.attack for cell in entry.cells if not cell.identity.control)
    for attack in attacks:
        words += [] if attack in board.rules.required else ["--attack", one_line(attack)]
    plugin = entry.manifest.plugin
    return shlex.join([*words, *(["--plugin", plugin.file] if plugin else [])])


MARK = ".leakboard-site"
"""The file that says that a folder was made here, and may be replaced."""


@contextmanager
def new_site(target: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `target` when all went well; if not, `target` is as it was.

    Raises ConfigurationError where `target` is something else than a site or an empty folder, and `Unwritable`.
    """
    target = Path(os.path.abspath(target))
    check(target)
    made: list[Path] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        made.append(Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)))
        made[0].chmod(0o755)
        (made[0] / MARK).write_text("This folder is written by `leakboard site build`, which replaces it.\n")
        yield made[0]
        _replace(made[0], target)
    except OSError as error:
        raise Unwritable(target, error) from error
    finally:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)


def check(target: Path) -> None:
    """Raises ConfigurationError unless a site may be written there."""
    if target.is_symlink():
        raise ConfigurationError(f"{target} is a link; name the folder that it leads to")
    if not target.exists() or is_site(target):
        return
    if not target.is_dir() or any(target.iterdir()):
        what = "a folder that `leakboard site build` has not made" if target.is_dir() else "a file"
        raise ConfigurationError(f"{target} is {what}; give another -o, or remove it first")


def is_site(folder: Path) -> bool:
    """True if the folder was made by `new_site`."""
    return (folder / MARK).is_file()


def write(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the site, with its folders; raises ConfigurationError where it is there already."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigurationError(f"two files of the site are called {name}; rename a defense or an entry") from error


def _replace(new: Path, target: Path) -> None:
    """No moment has half a site; one without any is as short as two renames."""
    if not target.exists():
        os.replace(new, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        os.replace(target, old / "old")
        try:
            os.replace(new, target)
        except OSError:
            os.replace(old / "old", target)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


STATIC = Path(__file__).with_name("static")
Pages = Iterator[tuple[str, bytes]]
"""Names of files within the site, and their content."""


@dataclass(frozen=True)
class Built:
    """The extent of a site that was built."""

    pages: int
    files: int
    size: int
    """Bytes of all files."""


def write_site(target: Path, folder: Path = PUBLISHED) -> Built:
    """Write the site of what `folder` has published into `target`; the same input gives the same bytes.

    Raises ConfigurationError where `target` is something else or `folder` nothing, `Refused` for an entry that is not
    whole.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder; name the one of the published entries with --published")
    pages = files = size = 0
    with new_site(target) as new:
        for name, content in _site(folder):
            write(new, name, content)
            pages, files, size = pages + name.endswith(".html"), files + 1, size + len(content)
    return Built(pages, files, size)


def _site(folder: Path) -> Pages:
    boards = [board_view(results(published(board.name, folder))) for board in all_boards()]
    for path in sorted(STATIC.iterdir()):
        yield f"assets/{path.name}", path.read_bytes()
    yield "index.html", render_template("index.html", "index.html", boards=boards)
    yield "method.html", render_template("method.html", "method.html", boards=boards)
    for board in boards:
        yield from _board(board)


def _board(board: BoardView) -> Pages:
    pictures, files = Pictures(), downloads(board)
    yield f"{board.name}/index.html", render_template("board.html", f"{board.name}/index.html", board=board)
    yield from ((f"{board.name}/{name}", content) for name, content in files.items())
    yield from _defenses(board, pictures)
    yield from _cells(board, pictures)
    yield from ((f"{board.name}/{name}", content) for name, content in sorted(pictures.files.items()))


def _defenses(board: BoardView, pictures: Pictures) -> Pages:
    own = {asked: {line.defense: line for line in view.lines} for asked, view in board.questions.items()}
    choices = {asked: choose(board.results, asked) for asked in board.questions}
    for entry in board.results.published.entries:
        for name, labels in strengths_of(entry).items():
            parts = [
                part(board.results, asked, view.title, view.anchor, labels, own[asked], choices[asked], pictures)
                for asked, view in board.questions.items()
                if any(label in own[asked] for label in labels)
            ]
            path = f"{board.name}/{board.pages[labels[0]]}"
            values = {"name": name, "parts_of": parts, "labels": labels, **_entry(board.results, entry)}
            columns = {"attack_columns": ATTACK_COLUMNS, "floor_columns": FLOOR_COLUMNS}
            yield path, render_template("defense.html", path, board=board, **values, **columns)


def _cells(board: BoardView, pictures: Pictures) -> Pages:
    titles: Mapping[Asked, tuple[str, str]] = {a: (v.title, v.anchor) for a, v in board.questions.items()}
    images = board.results.images
    rows = {key: pd.DataFrame(own) for key, own in images.groupby(["entry", "cell"], sort=False)} if len(images) else {}
    for entry in board.results.published.entries:
        for cell in entry.cells:
            own = cell.identity
            title, anchor = titles[asked_of(vars(own))]
            asked = asked_of(vars(own))
            faced = faced_of(vars(own))
            seeds = [(other.identity.seed, cell_page(at, other)) for at, other in board.results.cells[asked][faced]]
            summary = None if len(seeds) > 1 else board.results.summary[asked][faced]
            lender = next((c for c in entry.cells if c.identity.cell == cell.of), None)
            path = f"{board.name}/{cell_page(entry, cell)}"
            yield (
                path,
                render_template(
                    "cell.html",
                    path,
                    board=board,
                    cell=cell,
                    own=own,
                    seeds=seeds,
                    granted=granted_text(*facts_of(vars(own))).removeprefix(", "),
                    knows=[
                        known_text(switch, getattr(own, switch.name))
                        for switch in switches()
                        if switch.since < 2 or getattr(own, switch.name) != switch.default
                    ],
                    view=cell_view(entry, cell, rows[entry.name, own.cell], summary, pictures),
                    question={"title": title, "anchor": anchor},
                    defense_page=f"{board.pages[own.defense]}#{anchor}-{anchor_of(own.defense)}",
                    lender=None if lender is None else cell_page(entry, lender),
                    digest=entry.files.digest(f"cells/{own.cell}.json"),
                    metric_names=METRIC_NAMES,
                    **_entry(board.results, entry),
                ),
            )


def _entry(found: Results, entry: Entry) -> dict[str, Any]:
    """The values that all pages of an entry print of it, by their names in the templates."""
    config = entry.manifest.config
    try:
        written = tomli_w.dumps(config)
    except TypeError:  # A stranger's config may hold a null, which TOML has not.
        written = json.dumps(config, indent=1, ensure_ascii=False)
    review = found.published.reviews.get(entry.name)
    state = found.published.state(entry.name)
    command = command_of(entry, found.published.board)
    shown = {"config": written, "review": review, "state": state, "command": command}
    return {"entry": entry, "manifest": entry.manifest, **shown}
