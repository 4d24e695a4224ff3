"""Copy figures and table of a finished `quick` run into docs: numbers are generated, never typed."""

import re
import shutil
import sys
from pathlib import Path

from bench.store import Store
from leaderboards.standings import render

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def main(run: Path) -> None:
    """Refresh docs/quick and the marked part of docs/quickstart.md from the run's folder."""
    for kind, name in {"leakage": "leakage-*.png", "gallery": "gallery-*-defense-known.png"}.items():
        [picture] = (run / "plots").glob(name)
        shutil.copy(picture, ROOT / "docs" / "quick" / f"{kind}.png")
    table = render(Store.existing(run).frame(), "markdown")
    first = table.split("\n- ")[0]
    put("table", first.strip(), ROOT / "docs" / "quickstart.md")


def put(mark: str, text: str, page: Path = README) -> None:
    """Replace what stands between the marks of this name in a page."""
    marked = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    found, count = marked.subn(lambda m: f"{m[1]}{text}\n{m[2]}", page.read_text(encoding="utf-8"))
    assert count == 1, f"{page} has the marks of {mark} once"
    page.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quick"))
