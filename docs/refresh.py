"""Copy the figures and the table of a finished `quick` run into the README: numbers are generated, never typed."""

import re
import shutil
import sys
from pathlib import Path

from bench.store import Store
from leaderboards.tables import render

ROOT = Path(__file__).resolve().parent.parent


def main(run: Path) -> None:
    """Refresh docs/quick and the marked part of README.md from the run's folder."""
    for picture in (run / "plots").glob("*.png"):
        shutil.copy(picture, ROOT / "docs" / "quick" / f"{picture.name.split('-')[0]}.png")
    table = render(Store.existing(run).frame(), "markdown")
    (ROOT / "docs" / "quick" / "table.md").write_text(table + "\n", encoding="utf-8")
    first = re.split(r"\n(?=#+ |\*\*All attacks)", table)[0]
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- table -->\n).*?(<!-- end of table -->)", re.DOTALL)
    text = marked.sub(lambda m: m[1] + first.strip() + "\n" + m[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quick"))
