"""The folder of a site: written beside its place, then moved there; a folder that is no site is left alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import ConfigurationError, Unwritable

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
    """Whether the folder was made by `new_site`."""
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
