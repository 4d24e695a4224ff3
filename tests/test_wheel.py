"""What is built and installed is complete, and nothing more; what it needs is declared and pinned."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("attacks", "defenses", "bench", "leaderboards")
IMPORTED_AS = {"tomli-w": "tomli_w", "scikit-learn": "sklearn", "scikit-image": "skimage", "pillow": "PIL"}
NOT_IMPORTED = {
    "foolbox": "bench reads the images in its wheel",
    "scikit-image": "bench reads the images in its wheel",
    "pyarrow": "pandas writes Parquet with it",
}


def call(*arguments, **options):
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def sources():
    """The files of the working tree that git knows or would take in."""
    listed = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    assert listed.returncode == 0, listed.stderr
    return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(sources, tmp_path_factory):
    """The wheel, built from a copy of the sources as without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for source in sources:
        (folder / "copy" / source).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, folder / "copy" / source)
    done = call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "copy")
    assert done.returncode == 0, done.stderr
    assert "is absent from the `packages` configuration" not in done.stdout + done.stderr
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def leakboard(wheel, tmp_path_factory):
    """Runs the installed command from an empty folder; -S keeps this clone's editable install out of the way."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, wheel]
    done = call(*pip)
    assert done.returncode == 0, done.stderr
    here = tmp_path_factory.mktemp("here")
    path = os.pathsep.join([str(folder), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])

    def run(*arguments):
        script = folder / "bin" / "leakboard"
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return call(sys.executable, "-S", "-P", script, *arguments, cwd=here, env=environment)

    return run


def test_the_wheel_holds_every_source_and_preset_of_the_four_rooms_and_nothing_else(wheel, sources):
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = [path for path in sources if path.parts[0] in ROOMS and path.parts[:2] != ("leaderboards", "published")]
    files = [path for path in own if path.suffix in (".py", ".toml", ".txt", ".html") or path.parent.name == "static"]
    assert held == {str(path) for path in files} | {"leakboard.py"}
    assert {
        "bench/presets/quick.toml",
        "bench/conformance/templates/defense.txt",
        "leaderboards/boards/paper-v1.toml",
    } <= held
    assert {
        "leaderboards/site/templates/board.html",
        "leaderboards/site/static/style.css",
        "leaderboards/site/static/site.js",
    } <= held


def test_the_installed_command_helps_lists_and_plans_from_anywhere(leakboard):
    assert "run" in leakboard("--help").stdout
    presets = leakboard("list", "presets")
    assert {"quick", "paper-lenet"} <= {line.split()[0] for line in presets.stdout.splitlines()}, presets.stderr
    defenses = json.loads(leakboard("list", "defenses", "--json").stdout)
    assert {"none", "dp_sgd", "gradient_pruning"} <= {row["name"] for row in defenses}
    few = ['grid.attacks=["linear_layer"]', 'grid.defenses=["none"]', "grid.controls=false"]
    assert leakboard("new", "attack", "mine", "-o", "plugins").returncode == 0
    planned = leakboard("plan", "quick", *[word for override in few for word in ("--set", override)])
    assert planned.returncode == 0, planned.stderr


def test_every_package_that_is_imported_is_declared_and_the_other_way_round():
    known = {*sys.stdlib_module_names, *ROOMS, "leakboard"}
    imported = set()
    for path in [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    declared = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    used = {name for name in declared if IMPORTED_AS.get(name, name) in imported}
    assert imported - known == {IMPORTED_AS.get(name, name) for name in used}
    assert declared - used <= NOT_IMPORTED.keys()


def test_constraints_pin_everything_the_project_needs_and_nothing_by_place():
    lines = (ROOT / "constraints.txt").read_text().split("\n")
    pins = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        match = re.fullmatch(r"([\w.-]+)==([\w.+]+)", line)
        assert match, f"{line!r} is not NAME==VERSION"
        pins[_plain(match[1])] = match[2]
    assert "leakboard" not in pins
    todo = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    todo += [Requirement(line) for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    done = set()
    while todo:
        requirement = todo.pop()
        name = _plain(requirement.name)
        assert name in pins, f"{requirement} has no pin"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement} against {pins[name]}"
        if (name, *requirement.extras) in done:
            continue
        done.add((name, *requirement.extras))
        try:
            needs = requires(requirement.name) or []
        except PackageNotFoundError:  # of the extra `peers`, which is not part of the set-up
            needs = []
        for line in needs:
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                todo.append(inner)


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()
