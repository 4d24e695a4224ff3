"""Break the code on purpose, one mistake at a time, and demand that the named tests go red.

`make mutants`, or `python tests/mutants/run.py [NAME]...` for some of them. Every mutant of `mutants.toml` is put into
a copy of the tree of its own; its tests run in a process of their own, in which that copy comes first.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("mutants.toml")
ROOMS = ("attacks", "defenses", "bench", "leaderboards")
COPIED = (*ROOMS, "tests", "leakboard.py", "pyproject.toml", "docs", "tools")
# What the tests import beside the project, so that a process starts in a second; never the project itself.
LIBRARIES = [
    "pytest", "hypothesis.strategies", "torch._dynamo", "torch.func", "torch.fx.experimental.proxy_tensor",
    "torchvision", "opacus", "scipy.stats", "scipy.optimize", "pandas", "pydantic", "torchmetrics.functional.image",
    "skimage.metrics", "sklearn.datasets", "safetensors.torch", "typer",
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One mistake: in `file`, `text`, which occurs once, becomes `instead`, and some of `tests` must fail."""

    name: str
    mistake: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The file's source with the mistake; raises ValueError unless its text occurs exactly once."""
        found = source.count(self.text)
        if found != 1:
            raise ValueError(f"mutant {self.name}: its text occurs {found} times in {self.file}, not once")
        return source.replace(self.text, self.instead)

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")


def table() -> dict[str, Any]:
    """What `mutants.toml` says: "mutant" and "not_yet", lists of tables; the second may be missing."""
    return {"not_yet": [], **tomllib.loads(TABLE.read_text(encoding="utf-8"))}


def mutants() -> list[Mutant]:
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in table()["mutant"]]


def copy_tree(folder: Path) -> None:
    """The packages and the tests, without bytecode: a mutant may have its original's size and second."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def outcome(tests: tuple[str, ...], mutant: Mutant | None) -> tuple[str, str]:
    """The colour of the tests, green, red or broken, and the line that says why; in a process without the project."""
    import importlib

    with tempfile.TemporaryDirectory(prefix="mutant-") as temporary:
        folder = Path(temporary).resolve()
        copy_tree(folder)
        if mutant is not None:
            path = folder / mutant.file
            path.write_text(mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
        log = folder / "log.txt"
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        os.environ["LEAKBOARD_CACHE"] = str(folder / "cache")
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        already = [name for name in sys.modules if name.split(".")[0] in (*ROOMS, "leakboard")]
        if already:
            return "broken", f"{already[0]} was imported before the mistake was made"
        importlib.invalidate_caches()
        for name in (*ROOMS, *([mutant.module] if mutant else [])):
            try:
                module = importlib.import_module(name)
            except Exception as error:
                return "broken", f"{name} cannot be imported: {error!r}"
            if not str(module.__file__).startswith(str(folder)):
                return "broken", f"{name} was imported from {module.__file__}"
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", *tests])
        sys.stdout.flush()
        said = log.read_text(errors="replace")
    if code == 0:
        return "green", ""
    failures = re.findall(r"^FAILED .*$", said, re.MULTILINE)
    # An error of collection or of a fixture is no failed claim.
    if code == 1 and failures:
        return "red", failures[0].removeprefix("FAILED ")
    return "broken", f"pytest ended with {int(code)}: {said[-1500:]}"


def main(names: list[str]) -> int:
    """Print every mutant with its fate; 0 if all were killed, 1 if not, 2 for a name that is not in the table."""
    chosen = [mutant for mutant in mutants() if not names or mutant.name in names]
    unknown = set(names) - {mutant.name for mutant in chosen}
    if unknown:
        print(f"no mutant is called {', '.join(sorted(unknown))}; see {TABLE.name}")
        return 2
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    started = time.perf_counter()
    with ProcessPoolExecutor(2, mp_context=context, max_tasks_per_child=1) as pool:
        by_file: dict[str, set[str]] = {}
        for mutant in chosen:
            for test in mutant.tests:
                by_file.setdefault(test.partition("::")[0], set()).add(test)
        files = [(file, pool.submit(outcome, tuple(sorted(tests)), None)) for file, tests in by_file.items()]
        mutated = [(mutant, pool.submit(outcome, mutant.tests, mutant)) for mutant in chosen]
        wrong = 0
        for file, future in files:
            fate, line = future.result()
            if fate != "green":
                wrong += 1
                print(f"without any mistake {file} is {fate}: {line}", flush=True)
        killed = 0
        for mutant, future in mutated:
            fate, line = future.result()
            killed += fate == "red"
            shown = {"red": "killed  ", "green": "SURVIVED"}.get(fate, "BROKEN  ")
            print(f"{shown}  {mutant.name}: {mutant.mistake}\n          {line}".rstrip(), flush=True)
    for entry in table()["not_yet"]:
        print(f"not yet   {entry['name']}: {entry['reason']}")
    print(f"killed {killed} of {len(chosen)} in {time.perf_counter() - started:.0f} s")
    return 0 if killed == len(chosen) and not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
