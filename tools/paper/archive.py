"""A run in three small files, from which the page can be made again: results.csv, run.toml and about.json."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import tomli_w

from bench.columns import EARLIER, THREAT, column_names
from bench.grid.config import load_config, to_toml
from bench.grid.reading import presets
from bench.store.store import Store

if TYPE_CHECKING:
    from leaderboards.figures.gallery import StoredImages

OF_A_CELL = [
    *column_names("id", "setting"), "weights_accuracy",
    *(name for name in column_names("attack") if name != "recovers_labels"),
    *column_names("defense"), *column_names("seed"), *column_names("schedule"), *THREAT, "threat_class",
]  # fmt: skip
"""Columns that say the same in all rows of a cell."""
OF_AN_IMAGE = (
    "cell", "status", "reason", "image", "trial", "psnr_db", "ssim", "identified", "identification_pool", "recovered",
    "update_norm", "underpowered",
)  # fmt: skip


SIX_DIGITS = "%.6g"
"""The format of figures in results.csv."""


@dataclass(frozen=True)
class Result:
    """The results of a run, from its own folder or from an archive."""

    name: str
    frame: pd.DataFrame
    """A row for each attacked image, with the columns above."""
    about: dict[str, Any]
    """Dataset, command, commits, machine and time, as `about_run` has them."""
    images: StoredImages | None
    """Private images and reconstructions; None of an archive, which keeps no pictures."""


def read(folder: Path) -> Result:
    """The result in a run's folder, or in one that `write_archive` made, which has no pictures."""
    if (folder / "plan.json").is_file():
        from leaderboards.figures.gallery import StoredImages

        store = Store.existing(folder)
        about = about_run(store)
        return Result(about["name"], _rounded(store.frame()), about, StoredImages(store))
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    cells = pd.DataFrame([EARLIER | cell for cell in about.pop("cells")], columns=OF_A_CELL)
    kinds = {"cell": "str", "reason": "str"}
    rows = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""], dtype=kinds)
    rows["reason"] = rows["reason"].astype(object).fillna("")
    return Result(about["name"], rows.merge(cells, on="cell", how="left", validate="many_to_one"), about, None)


def write_archive(run: Path, folder: Path) -> None:
    """Publish a finished run into `folder`; figures keep six digits."""
    store = Store.existing(run)
    frame = store.frame()
    cells = frame[OF_A_CELL].drop_duplicates("cell")
    about = about_run(store) | {"cells": json.loads(cells.to_json(orient="records"))}
    folder.mkdir(parents=True, exist_ok=True)
    images = _rounded(frame)[list(OF_AN_IMAGE)]
    images.to_csv(folder / "results.csv", index=False, float_format=SIX_DIGITS, lineterminator="\n")
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.copy(run / "run.toml", folder / "run.toml")


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as it comes back from the file, so that the page is the same from both."""
    floats = [name for name in OF_AN_IMAGE if frame[name].dtype == "float64"]
    return frame.assign(**{name: [float(SIX_DIGITS % value) for value in frame[name]] for name in floats})


def about_run(store: Store) -> dict[str, Any]:
    """Name, dataset, command, commit, machine and time of a run.

    The time is from the plan to the last result, training included, and pauses too if there were any.
    """
    plan = store.plan()
    blocks = [block["id"] for _, block, status in store.states() if status == "ok"]
    made = [record["provenance"] for record in map(store.record, blocks) if record is not None]
    last = max((store.blocks / f"{block}.json").stat().st_mtime for block in blocks)
    return {
        "name": plan["name"],
        "dataset": plan["dataset_title"],
        "command": command(store.folder / "run.toml"),
        "commits": sorted({str(m["commit"]) for m in made}),
        "device": sorted({m["device"] for m in made}),
        "threads": sorted({m["threads"] for m in made}),
        "seconds": round(last - (store.folder / "run.toml").stat().st_mtime),
    }


def command(run_toml: Path) -> str:
    """The command that made a run: its preset, and every setting that is not the preset's; of another grid its name."""
    made = tomllib.loads(run_toml.read_text(encoding="utf-8"))
    words = ["leakboard", "run", made["name"]]
    if made["name"] in presets():
        usual = tomllib.loads(to_toml(load_config(made["name"])))
        for section in ("grid", "engine"):
            for key, value in made[section].items():
                if usual[section].get(key) != value:
                    words += ["--set", f"{section}.{key}={in_one_line(value)}"]
    return shlex.join(words)


def in_one_line(value: Any) -> str:
    """A value as TOML writes it behind a key: lists and tables without a line break."""
    # Only inside a list of lists does tomli-w never give a table a section of its own.
    words = " ".join(tomli_w.dumps({"value": [[value]]}).split())
    return words.removeprefix("value = [ [ ").removesuffix(", ], ]")


if __name__ == "__main__":
    *runs, target = map(Path, sys.argv[1:])
    for one in runs:
        write_archive(one, target / one.name)
