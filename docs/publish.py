"""Publish a run with its trainings: tables, figures and data in a folder, and its first table in the README."""

import json
import re
import shutil
import sys
from pathlib import Path

from published_run import DIGITS, write

from bench.store import Store
from leaderboards.ranking import ranking
from leaderboards.standings import render

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ("pareto", "leakage")


def main(run: Path, target: Path, command: str) -> None:
    """Write `target` from the run's folder, and the marked part of README.md; `command` is what made the run."""
    store = Store.existing(run)
    write(run, target)
    about = target / "about.json"
    told = json.loads(about.read_text(encoding="utf-8"))
    jobs = store.jobs_frame()
    records = [store.record(job) for job in jobs.loc[jobs["status"] == "ok", "job"]]
    made = [record["provenance"] for record in records if record is not None]
    told |= {"command": command, "commits": sorted({*told["commits"], *(str(m["commit"]) for m in made)})}
    about.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    jobs.to_csv(target / "jobs.csv", index=False, float_format=DIGITS, lineterminator="\n")
    frame = store.frame()
    rows = ranking(frame, jobs=jobs)
    (target / "ranking.json").write_text((rows.to_json(orient="records", indent=1) or "[]") + "\n", encoding="utf-8")
    for kind in PICTURES:
        [picture] = (run / "plots").glob(f"{kind}-*.png")
        shutil.copy(picture, target / f"{kind}.png")
    tables = render(frame, "markdown", jobs=jobs)
    (target / "README.md").write_text(page(told, tables), encoding="utf-8")
    readme = ROOT / "README.md"
    marked = re.compile(r"(<!-- price -->\n).*?(<!-- end of price -->)", re.DOTALL)
    text = marked.sub(lambda m: m[1] + first_table(tables) + "\n" + m[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


def page(told: dict[str, object], tables: str) -> str:
    """The folder's own page: what was run, its figures, its tables."""
    pictures = "\n\n".join(f"![{kind}]({kind}.png)" for kind in PICTURES)
    return (
        f"# {told['name']}\n\nMade by `{told['command']}` on {_listed(told['device'])}, {_listed(told['threads'])} "
        f"thread, at commit {_listed(told['commits'])}. `results.csv` has a row for every attacked image, `about.json` "
        "what the rows of a cell share, `jobs.csv` a row for every training and certificate, `ranking.json` every "
        f"figure of the tables; `docs/publish.py` made this folder.\n\n{pictures}\n\n{tables}"
    )


def first_table(tables: str) -> str:
    """The first table of the page, with its title."""
    found = re.search(r"\*\*[^\n]*\*\*\n\n(?:\|[^\n]*\n)+", tables)
    assert found is not None, "a run has a table"
    return found[0].strip()


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
