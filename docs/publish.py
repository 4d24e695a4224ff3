"""Publish a run with its trainings: tables, figures and data in a folder, and its first table in docs."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from published_run import DIGITS, write
from refresh import ROOT, put

from bench.store import Store
from leaderboards.standings import render

PICTURES = ("pareto", "leakage")


def main(run: Path, target: Path, command: str) -> None:
    """Write `target` from the run's folder, and the table of docs/how-numbers-are-made.md.

    `command` is what made the run.
    """
    store = Store.existing(run)
    write(run, target)
    about = target / "about.json"
    told = json.loads(about.read_text(encoding="utf-8"))
    frame, jobs = store.frame(), store.jobs_frame()
    records = [record for job in jobs.loc[jobs["status"] == "ok", "job"] if (record := store.record(job))]
    del told["seconds"]  # From the last start to the last result: this may have been made in pieces.
    told |= {
        "command": command,
        "commits": sorted({*told["commits"], *(str(record["provenance"]["commit"]) for record in records)}),
        "seconds_of_attacks": round(float(frame["seconds"].sum())),
        "seconds_of_jobs": round(sum(record["figures"].get("seconds") or 0 for record in records)),
    }
    about.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    jobs.to_csv(target / "jobs.csv", index=False, float_format=DIGITS, lineterminator="\n")
    (target / "ranking.json").write_text(render(frame, "json", jobs=jobs), encoding="utf-8")
    for kind in PICTURES:
        [picture] = (run / "plots").glob(f"{kind}-*.png")
        shutil.copy(picture, target / f"{kind}.png")
    tables = render(frame, "markdown", jobs=jobs)
    (target / "README.md").write_text(page(told, tables), encoding="utf-8")
    put("price", first_table(tables), ROOT / "docs" / "how-numbers-are-made.md")


def page(told: dict[str, Any], tables: str) -> str:
    """The folder's own page: what was run, its figures, its tables."""
    pictures = "\n\n".join(f"![{kind}]({kind}.png)" for kind in PICTURES)
    return (
        f"# {told['name']}\n\nMade by `{told['command']}` on {_listed(told['device'])} with {_listed(told['threads'])} "
        f"thread: {told['seconds_of_attacks'] / 60:.0f} minutes of attacks and {told['seconds_of_jobs'] / 60:.0f} of "
        f"training, at the commits {', '.join(commit[:10] for commit in told['commits'])}, of which each made a part; "
        "other commits may count its parts as stale. `results.csv` has a row for every attacked image, "
        "`about.json` what the rows of a cell share, `jobs.csv` a row for every training and certificate, "
        "`ranking.json` every figure of the tables; `docs/publish.py` made this folder."
        f"\n\n{pictures}\n\n{tables}"
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
