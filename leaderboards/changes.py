"""What a proposal changes in a clone: one new entry, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.errors import ConfigurationError


def change_faults(entry: Path, base: str) -> Iterator[str]:
    """Files that were changed since the commit `base` and are none of the entry's own, in words.

    `entry` is a folder in the clone. Raises ConfigurationError where git cannot say.
    """
    top = Path(_git(entry, "rev-parse", "--show-toplevel").strip())
    own = entry.resolve().relative_to(top.resolve()).as_posix() + "/"
    listed = _git(entry, "diff", "--name-status", "--no-renames", "-z", f"{base}...HEAD").split("\0")
    for kind, name in zip(listed[::2], listed[1::2], strict=False):
        if not name.startswith(own):
            yield f"{name} was {_WORDS.get(kind, 'changed')}: a submission adds one folder and changes nothing else"
        elif kind != "A":
            yield f"{name} was {_WORDS.get(kind, 'changed')}: a published entry stays as it is; give yours another name"


_WORDS = {"A": "added", "D": "removed", "M": "changed", "T": "changed"}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip()
        raise ConfigurationError(f"git cannot compare with the base: {why}; fetch it, or leave --base out") from error
    return done.stdout
