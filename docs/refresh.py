"""Copy the figures and the table of a finished `quick` run into the README: numbers are generated, never typed."""

import re
import shutil
import sys
from pathlib import Path

from bench.store import Store
from leaderboards.standings import render

ROOT = Path(__file__).resolve().parent.parent


def main(run: Path) -> None:
    """Refresh docs/quick and the marked part of README.md from the run's folder."""
    for kind, name in {"leakage": "leakage-*.png", "gallery": "gallery-*-defense-known.png"}.items():
        [picture] = (run / "plots").glob(name)
        shutil.copy(picture, ROOT / "docs" / "quick" / f"{kind}.png")
    table = render(Store.existing(run).frame(), "markdown")
    first = table.split("\n- ")[0]
    put("table", first.strip())


def put(mark: str, text: str) -> None:
    """Replace what stands between the marks of this name in README.md."""
    readme = ROOT / "README.md"
    marked = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    readme.write_text(
        marked.sub(lambda m: f"{m[1]}{text}\n{m[2]}", readme.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quick"))
