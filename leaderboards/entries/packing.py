"""From a finished run of a board to an entry: cells, jobs and pictures, as JSON and PNG that anybody can check."""

from __future__ import annotations

import hashlib
import json
import shlex
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from bench.columns import HELD_OUT_FIGURES, JSON, OF_ONE_GRID, as_published
from bench.errors import ConfigurationError, suggest
from bench.registry.specs import MethodSpec
from bench.store.store import Store
from bench.trial import wrong_image
from leaderboards.entries.board import boards, load_board
from leaderboards.entries.entry import sheet_of
from leaderboards.entries.schema import FORMAT, LENT, Manifest
from leaderboards.untrusted.strict_png import write_png

NOT_IN_IDENTITY = ("cell", "skip", "blocks", *OF_ONE_GRID)
"""Keys of a cell in a run's plan that the identity of an entry's cell leaves out or states by itself."""
PACKED_FIGURES = (
    "mse", "psnr_db", "ssim", "lpips", "label_accuracy", "identified", "recovered", "feature_error",
    "objective_start", "objective_found", "objective_truth", "update_norm",
)  # fmt: skip
JOB_IDENTITY = (
    "kind", "job", "dataset", "model", "weights", "defense", "defense_name", "images_per_update", "local_steps", "seed",
    "status", "reason",
)  # fmt: skip


@dataclass
class Files:
    """The files of an entry so far, by name."""

    files: dict[str, bytes] = field(default_factory=dict)

    def add_json(self, name: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(value, indent=None, separators=(", ", ": "), allow_nan=False, ensure_ascii=False)
        self.files[name] = text.encode() + b"\n"

    def add_sheet(self, images: np.ndarray) -> str:
        """The name of the sheet of images (n h w c); equal sheets are one file."""
        content = write_png(sheet_of(images))
        name = f"sheets/{hashlib.sha256(content).hexdigest()[:16]}.png"
        self.files[name] = content
        return name

    @property
    def digests(self) -> dict[str, str]:
        return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(self.files.items())}


def cell_file(
    store: Store, cell: dict[str, Any], cells: list[dict[str, Any]], folder: Files, made: list[dict[str, Any]]
) -> dict[str, Any]:
    """The content of a cell's file; adds its sheet to the folder and its provenance to `made`."""
    parameters = {key: json.loads(cell[key]) for key in JSON}
    identity = {key: value for key, value in as_published(cell).items() if key not in NOT_IN_IDENTITY} | parameters
    status, reason = _status(store, cell)
    found: dict[str, Any] = {"identity": {"cell": cell["cell"], **identity}, "status": status, "reason": reason}
    found |= {"sheet": None, "of": _lender(cell, cells), "nulls": {}, "columns": None, "identification_pool": None}
    found |= {"weights_accuracy": None, "updates": [], "seconds": None, "device": None}
    if status != "ok":
        return found
    records = [record for block in cell["blocks"] if (record := store.record(block["id"])) is not None]
    rows = [row for record in records for row in record["images"]]
    images, labels = [], []
    for block, record in zip(cell["blocks"], records, strict=True):
        stored = store.arrays(block["id"])
        for row in record["images"]:
            for place in _places(row["position"]):
                images.append(stored["images"][place].transpose(1, 2, 0))
                labels.append(int(stored["labels"][place]))
    made += [record["provenance"] for record in records]
    columns = {key: [row[key] for row in rows] for key in ("image", "trial", "true_label")} | {"found_label": labels}
    columns |= {key: _numbers([row[key] for row in rows]) for key in PACKED_FIGURES}
    # They joined after entries were published, which do not have them.
    later = {key: _numbers([row.get(key) for row in rows]) for key in ("identified_by_likelihood", *HELD_OUT_FIGURES)}
    columns |= {key: values for key, values in later.items() if values is not None}
    return found | {
        "sheet": None if found["of"] else folder.add_sheet(np.stack(images)),
        "nulls": records[0]["nulls"],
        "columns": columns,
        "identification_pool": rows[0]["identification_pool"],
        "weights_accuracy": records[0].get("weights", {}).get("accuracy"),
        "updates": [record["update_sha256"] for record in records],
        "seconds": _number(sum(record["cost"]["seconds"] for record in records)),
        "device": records[0]["provenance"]["device"],
    }


def _status(store: Store, cell: dict[str, Any]) -> tuple[str, str]:
    """The worst status of the cell's blocks, and why; raises ConfigurationError where the run has not finished."""
    if cell["skip"] is not None:
        return "skipped", cell["skip"]
    for block in cell["blocks"]:
        status = store.status_of(block["id"], block["fingerprint"])
        if status in ("pending", "stale"):
            title = f"{cell['attack']} / {cell['defense']}"
            raise ConfigurationError(f"{title} is {status}: finish the run with the command that began it, then pack")
        if status != "ok":
            return status, store.reason(cell, block["id"], status)
    return "ok", ""


def _places(position: tuple[int, int | list[int]]) -> list[tuple[int, ...]]:
    """The places of an image's reconstructions among those of its block: one, or that of each held-out client."""
    trial, slots = position
    return [(trial, client, slot) for client, slot in enumerate(slots)] if isinstance(slots, list) else [(trial, slots)]


def _lender(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str | None:
    """The cell whose reconstructions the control `wrong_image` shows to another client."""
    if cell["attack_name"] != wrong_image.NAME:
        return None
    lender = json.loads(cell["attack_parameters"])["of"]
    return next(
        other["cell"] for other in cells if other["attack"] == lender and all(other[key] == cell[key] for key in LENT)
    )


def packed_jobs(store: Store, defenses: Collection[str]) -> Iterator[dict[str, Any]]:
    """Trainings and certificates of these defenses (their labels) as `jobs.json` has them.

    Raises ConfigurationError where one is not finished.
    """
    from bench.store.store import JOB_COUNTS, JOB_FIGURES, JOB_TEXTS, LATER_JOB_FIGURES

    for row in store.jobs_frame().astype(object).to_dict("records"):
        if row["defense"] not in defenses:
            continue
        if row["status"] in ("pending", "stale"):
            raise ConfigurationError(f"{row['job']} is {row['status']}: finish the run with the command that began it")
        texts = {key: row.get(key) for key in JOB_TEXTS if key != "weights"}
        figures = {key: _number(row.get(key)) for key in (*JOB_FIGURES, *JOB_COUNTS)}
        figures |= {key: value for key in LATER_JOB_FIGURES if (value := _number(row.get(key))) is not None}
        identity = {key: row[key] for key in JOB_IDENTITY}
        identity["defense_parameters"] = json.loads(row["defense_parameters"])
        yield identity | {"reason": row["reason"] or "", "texts": texts, "figures": figures}


def _numbers(values: list[Any]) -> list[float | None] | None:
    return None if all(value is None for value in values) else [_number(value) for value in values]


def _number(value: Any) -> float | None:
    """The number with seven significant digits, as many as a float32 holds; None for NaN."""
    if value is None or value is np.nan or value != value:
        return None
    return float(f"{float(value):.7g}")


@dataclass(frozen=True)
class Author:
    """The submitter of an entry, and the place of its defense's code where that is not built in."""

    submitter: str
    note: str = ""
    """A sentence or two about the defense."""
    repository: str | None = None
    """The public https address of the code."""
    commit: str | None = None
    """The commit that holds the file, 40 hex digits."""
    file: Path | None = None
    """The file of the defense, which is on this machine too."""

    @property
    def plugin(self) -> dict[str, Any] | None:
        given = {"repository": self.repository, "commit": self.commit, "file": self.file}
        if not any(given.values()):
            return None
        if missing := [name for name, value in given.items() if not value]:
            raise ConfigurationError(f"the plugin's {' and '.join(missing)} missing: a re-run needs all three")
        assert self.file is not None, "all three are there"
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"cannot read the plugin {self.file}: {error.strerror}") from error
        named = self.file.as_posix() if not self.file.is_absolute() else self.file.name
        return given | {"file": named, "sha256": hashlib.sha256(content).hexdigest()}


def write_entry(run: Path, target: Path, name: str, author: Author, defenses: Collection[str] = ()) -> list[str]:
    """Write the entry `name` into the folder `target`/`name`; returns the labels of its defenses.

    Of the defenses in the run go in those of these names, all but the undefended client unless given. Raises
    ConfigurationError where the run is of no board, unfinished, or `target`/`name` is there already.
    """
    store = Store.existing(run)
    plan, resolved = store.plan(), _resolved(run / "run.toml")
    if "board" not in resolved or plan["name"] not in boards():
        raise ConfigurationError(f"{run} is no run of a board; make one with `leakboard run board:NAME --defense ...`")
    chosen = _chosen(plan["cells"], defenses)
    folder = Files()
    truth = store.truth()
    cells = [cell for cell in plan["cells"] if cell["defense"] in chosen]
    made: list[dict[str, Any]] = []
    for cell in cells:
        folder.add_json(f"cells/{cell['cell']}.json", cell_file(store, cell, plan["cells"], folder, made))
    jobs = list(packed_jobs(store, chosen))
    made += [record["provenance"] for row in jobs if (record := store.record(row["job"])) is not None]
    folder.add_json("jobs.json", {"jobs": jobs})
    resolved["grid"]["defenses"] = list(dict.fromkeys(_call(cell) for cell in cells))
    manifest = {
        "format": FORMAT,
        "board": plan["name"],
        "board_sha256": load_board(plan["name"]).digest,
        "name": name,
        "submitter": author.submitter,
        "note": author.note,
        "command": _command(plan["name"], cells, author.file),
        "plugin": author.plugin,
        "environment": _environment(made),
        "config": resolved,
        "truth": folder.add_sheet(truth),
        "tile": list(truth.shape[1:]),
        "files": folder.digests,
    }
    try:
        Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{place}: {first['msg']}, got {str(first['input'])[:80]!r}") from error
    folder.add_json("entry.json", manifest)
    _write(folder, target / name)
    return list(chosen)


def _resolved(path: Path) -> dict[str, Any]:
    """The configuration of a run as it was written: what it names may be in a plugin that is not here."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}; give the command that began the run again"
        ) from error


def _call(cell: dict[str, Any]) -> str:
    """The cell's defense with all its parameters, as a grid names it."""
    parts = zip(cell["defense_name"].split(" | "), json.loads(cell["defense_parameters"]), strict=True)
    return " | ".join(MethodSpec.of(name, parameters).call for name, parameters in parts)


def _chosen(cells: list[dict[str, Any]], names: Collection[str]) -> dict[str, None]:
    """The labels of the defenses that go in, in the order of the grid."""
    known = list(dict.fromkeys(cell["defense_name"] for cell in cells))
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"the run's plan has no defense {name!r}; {suggest(name, known)}; results of earlier commands stay: "
                "give the run's command again with all defenses"
            )
    wanted = list(names) or [name for name in known if name != "none"] or ["none"]
    return dict.fromkeys(cell["defense"] for cell in cells if cell["defense_name"] in wanted)


def _environment(made: list[dict[str, Any]]) -> dict[str, Any]:
    distinct = lambda name: sorted({m[name] for m in made if m[name] is not None})  # noqa: E731
    if len(versions := {json.dumps([m["packages"], m["python"], m["platform"]]) for m in made}) > 1:
        raise ConfigurationError(f"the run was made by {len(versions)} sets of versions; make it anew with one")
    if not made:
        raise ConfigurationError("no cell of these defenses has a result: there is nothing to pack")
    first = made[0]
    told = {"packages": first["packages"], "python": first["python"], "platform": first["platform"]}
    return told | {"devices": distinct("device"), "threads": distinct("threads"), "commits": distinct("commit")}


def _command(board: str, cells: list[dict[str, Any]], plugin: Path | None) -> str:
    words = ["leakboard", "run", f"board:{board}"]
    for defense in dict.fromkeys(cell["defense"] for cell in cells):
        words += ["--defense", defense]
    required = load_board(board).rules.required
    for attack in dict.fromkeys(cell["attack"] for cell in cells if not cell["control"]):
        words += ["--attack", attack] if attack not in required else []
    return shlex.join([*words, *(["--plugin", plugin.name] if plugin else [])])


def _write(folder: Files, target: Path) -> None:
    try:
        target.mkdir(parents=True)
        for name in dict.fromkeys(Path(name).parent for name in folder.files):
            (target / name).mkdir(exist_ok=True)
        for name, content in folder.files.items():
            (target / name).write_bytes(content)
    except FileExistsError as error:
        raise ConfigurationError(f"{target} is there already; give another --name, or remove it first") from error
    except OSError as error:
        raise ConfigurationError(f"cannot write {target}: {error.strerror}") from error
