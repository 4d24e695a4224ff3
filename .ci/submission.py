"""Check the entry that a proposal adds, with the code of its base: `submission.py BASE HEAD`.

BASE is a clone of the base, whose Leakboard is installed. HEAD is a clone of the proposal merged into the base: its
first parent is the base's commit. Of HEAD files are read as data; nothing of it is imported or run.
"""

import secrets
import subprocess
import sys
from pathlib import Path, PurePosixPath

PUBLISHED = PurePosixPath("leaderboards/published")
BEFORE = "HEAD^1"
"""The base's commit in HEAD."""


def main(base: Path, head: Path) -> int:
    """Exit code of the check: 0 all rules hold, 1 one is broken, or nothing was submitted."""
    folders = entries(changed(head))
    if not folders:
        print("no entry is added: reviews, tables and pages of results are for maintainers to change")
        return 1
    places = [str(head / folder) for folder in folders]
    options = ["--published", str(base / PUBLISHED), "--base", BEFORE]
    # The text of an entry is printed: between these marks a line of it is no command to whoever runs this.
    word = secrets.token_hex(16)
    print(f"::stop-commands::{word}", flush=True)
    done = subprocess.run([sys.executable, "-P", "-m", "leakboard", "submit", "check", *places, *options], check=False)
    print(f"::{word}::", flush=True)
    return done.returncode


def changed(head: Path) -> list[str]:
    """The files that differ between the base's commit and the merge of the proposal."""
    words = ["git", "-C", str(head), "diff", "--name-only", "--no-renames", "-z", f"{BEFORE}...HEAD"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name]


def entries(names: list[str]) -> list[str]:
    """The folders of entries, BOARD/ENTRY, that hold some of these files."""
    inside = [PurePosixPath(name).relative_to(PUBLISHED).parts for name in names if name.startswith(f"{PUBLISHED}/")]
    return list(dict.fromkeys(str(PUBLISHED / parts[0] / parts[1]) for parts in inside if len(parts) > 2))


if __name__ == "__main__":
    sys.exit(main(*(Path(word).resolve() for word in sys.argv[1:])))
