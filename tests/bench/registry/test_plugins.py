"""Plugins as their authors try them: single files and installed packages, good and broken."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import leakboard
from bench.engines.run import prepare
from bench.errors import ConfigurationError
from bench.registry.registry import Registry
from leaderboards.cli.grids import listing

ROOT = Path(__file__).parents[3]
FILES = ROOT / "tests/plugins"
SHORT = ["grid.controls=false", 'grid.attacks=["linear_layer"]']

DIES_ONCE = '''
import os, signal
from dataclasses import dataclass
from pathlib import Path
from leakboard import Defense

@dataclass(frozen=True)
class Deadly(Defense):
    """Kills its process the first time."""

    mark: str

    def transform(self, task, update, rng):
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(update)
'''


def command(*arguments, cwd, path=()):
    """The command in a child process, as a user calls it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-P", "-m", "leakboard", *map(str, arguments)]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_document_s_plugin_runs_from_another_folder_beside_one_that_dies_once(grid_file, tmp_path):
    """With relative paths, in a folder whose own `attacks` and `bench` must not be taken for ours."""
    document = (ROOT / "docs/add-a-defense.md").read_text()
    [text] = re.findall(r'```python\n("""my_defense\.py.*?)```', document, re.DOTALL)
    (tmp_path / "my_defense.py").write_text(text)
    (tmp_path / "deadly.py").write_text(DIES_ONCE)
    here = tmp_path / "elsewhere"
    for room in ("attacks", "bench"):
        (here / room).mkdir(parents=True)
        (here / room / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    defenses = 'grid.defenses=["none","my_defense","deadly(mark=\'died\')"]'
    done = command(
        "run", "../small.toml", "-o", "run", "--no-report", "--plugin", "../my_defense.py", "--plugin", "../deadly.py",
        "--set", defenses, "--set", SHORT[0], "--set", SHORT[1], cwd=here,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "killed by signal 9" in done.stderr
    frame = leakboard.Run(here / "run").frame()
    assert (frame["status"] == "ok").all()
    psnr = frame.groupby("defense")["psnr_db"].mean()
    assert psnr["none"] == psnr["deadly(mark='died')"] == 100
    assert psnr["my_defense"] < 30


def test_files_of_every_role_run_with_axes_and_in_chains(grid_file, tmp_path):
    run = leakboard.run(
        grid_file,
        output=tmp_path / "run",
        plugins=sorted(FILES.glob("*.py")),
        overrides=[
            SHORT[0],
            "grid.images=8",  # Of two pairs, both may be dealt to themselves: then no weight changes anything.
            'grid.attacks=[{name="absolute_matching",iterations=[2,3]}]',
            'grid.defenses=["none",{name="sign_compression",scale=[1,2]},'
            '"in_pairs | mix_up(weight=[0.5,0.9]) | sign_compression(scale=3)","in_pairs"]',
        ],
    )
    frame = run.frame()
    assert run.counts() == {"ok": 12}
    assert list(frame["attack"].unique()) == [f"absolute_matching(iterations={n})" for n in (2, 3)]
    norms = frame.groupby("defense")["update_norm"].mean()
    assert norms["sign_compression(scale=2.0)"] == pytest.approx(2 * norms["sign_compression"])
    chains = [name for name in norms.index if name.startswith("in_pairs | mix_up")]
    assert len(chains) == 2
    assert norms[chains[0]] != norms[chains[1]]
    pairs = frame[frame["defense"].str.startswith("in_pairs")]
    assert (pairs["images_per_update"] == 2).all()
    assert (frame["objective_found"] < frame["objective_start"]).all()
    alone = frame[frame["defense"] == "none"]
    assert (alone["objective_truth"] < alone["objective_found"]).all()  # the author's own objective is asked, too


def test_listing_with_a_plugin_shows_its_parameters_and_stays_json_when_it_prints(tmp_path):
    text = (FILES / "sign_compression.py").read_text()
    (tmp_path / "loud.py").write_text(text + "\nprint('hello')\n")
    done = command("list", "defenses", "--json", "--plugin", "loud.py", cwd=tmp_path)
    [row] = [row for row in json.loads(done.stdout) if row["name"] == "loud"]
    assert row["parameters"] == [{"name": "scale", "type": "float", "default": 1.0, "required": False}]
    assert row["summary"].startswith("Share each entry's sign")
    assert row["origin"] == f"file {tmp_path / 'loud.py'}"
    assert "hello" in done.stderr


def test_two_files_of_one_name_are_refused(tmp_path):
    other = tmp_path / "mix_up.py"
    shutil.copy(FILES / "mix_up.py", other)
    with pytest.raises(ConfigurationError, match=f"two plugin files have the same name: .* and {other}; rename one"):
        Registry([FILES / "mix_up.py", other])
    assert Registry([other, other]).cls("defense", "mix_up").__name__ == "MixUp"


HEAD = """
from __future__ import annotations
from dataclasses import dataclass, field
from leakboard import Defense, Task
"""
TAIL = """
    def transform(self, task, update, rng):
        return update
"""
CLASSES = {
    "changeable": ("@dataclass\nclass A(Defense):\n    scale: float = 1.0", "write @dataclass(frozen=True)"),
    "undecorated": (
        "@dataclass(frozen=True)\nclass _B(Defense):\n    a: int = 1" + TAIL + "class A(_B):\n    b: int = 1",
        "class A has parameters but lacks @dataclass(frozen=True)",
    ),
    "constructor": (
        "class A(Defense):\n    def __init__(self, a=1):\n        self.a = a",
        "class A has parameters but lacks @dataclass(frozen=True)",
    ),
    "mutable_default": ("@dataclass(frozen=True)\nclass A(Defense):\n    a: list = []", "use default_factory"),
    "misspelt": ("@dataclass(frozen=True)\nclass A(Defense):\n    a: flaot = 1.0", "name 'flaot' is not defined"),
    "no_value": (
        "@dataclass(frozen=True)\nclass A(Defense):\n    a: Task = None",
        "the default of a must be Task, which no grid file can hold",
    ),
    "wrong_default": (
        "@dataclass(frozen=True)\nclass A(Defense):\n    a: int = 'x'",
        "the default of a must be int, got 'x'",
    ),
    "reserved": ("@dataclass(frozen=True)\nclass A(Defense):\n    name: str = 'x'", "use the key 'name'; rename"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_whose_parameters_cannot_be_read_is_listed_as_broken_with_the_reason(tmp_path, name):
    text, reason = CLASSES[name]
    (tmp_path / f"{name}.py").write_text(HEAD + text + TAIL)
    registry = Registry([tmp_path / f"{name}.py"])
    [row] = [row for row in listing("defenses", registry) if row["name"] == name]
    assert reason in row["broken"]
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        registry.expand("defense", [name])
    assert registry.expand("defense", ["none"])


def test_a_class_without_parameters_needs_no_dataclass_and_a_default_may_be_made_by_a_factory(tmp_path):
    (tmp_path / "plain.py").write_text(HEAD + "class A(Defense):\n    scale = 2.0" + TAIL)
    made = "@dataclass(frozen=True)\nclass A(Defense):\n    layers: list[int] = field(default_factory=lambda: [1, 2])"
    (tmp_path / "made.py").write_text(HEAD + made + TAIL)
    registry = Registry([tmp_path / "plain.py", tmp_path / "made.py"])
    [[plain]], [[one], [two]] = (
        registry.expand("defense", ["plain"]),
        registry.expand("defense", ["made", "made(layers=[3])"]),
    )
    assert plain.items == ()
    assert (one.parameters, two.parameters) == ({"layers": (1, 2)}, {"layers": (3,)})
    assert registry.build("defense", one).layers == [1, 2]
    with pytest.raises(ConfigurationError, match=r"A sets it without a type; write scale: float = 2\.0 in a dataclass"):
        registry.expand("defense", ["plain(scale=3.0)"])


ATTACK = """
import torch
from leakboard import Attack, Reconstruction

class A(Attack):
    def reconstruct(self, observation, seeds):
        t, b = observation.trials, observation.images
        images, labels = torch.rand(t, b, *observation.task.input_shape), torch.zeros(t, b, dtype=torch.long)
        {body}

    def objective(self, observation, images, labels):
        {objective}
"""
FINE = "return Reconstruction(images, labels)"
ZERO = "[u.zero_() for u in observation.updates.values()]"
ATTACKS = {
    "writes_updates": (f"{ZERO}; {FINE}", "return None", "wrote into updates"),
    "writes_params": ("[p.zero_() for p in observation.params.values()]; " + FINE, "return None", "wrote into params"),
    "writes_labels": ("observation.labels.zero_(); " + FINE, "return None", "wrote into labels"),
    "objective_writes": (FINE, ZERO, "objective wrote into updates"),
    "objective_shape": (FINE, "return torch.zeros(())", "objective has shape ()"),
    "no_reconstruction": ("return images", "return None", "returned Tensor; return a leakboard.Reconstruction"),
    "float_labels": ("return Reconstruction(images, labels.float())", "return None", "returned labels"),
    "short": ("return Reconstruction(images[:1], labels)", "return None", "returned images"),
    "trace": ("return Reconstruction(images, labels, trace={0: images})", "return None", "trace[0] has shape"),
    "too_bright": ("return Reconstruction(images + 2, labels)", "return None", "clamp them to [0, 1]"),
    "choices": (FINE[:-1] + ", choices={'penalty': float('nan')})", "return None", "is nan; give a finite"),
    "raises": ("raise RuntimeError('out of luck')", "return None", "out of luck"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_broken_attack_is_a_failed_cell_and_harms_no_other(grid_file, tmp_path, name):
    body, objective, reason = ATTACKS[name]
    path = tmp_path / f"{name}.py"
    path.write_text(ATTACK.format(body=body, objective=objective))
    overrides = [SHORT[0], f'grid.attacks=["{name}","linear_layer"]', 'grid.defenses=["none"]']
    frame = leakboard.run(grid_file, output=tmp_path / "run", plugins=[path], overrides=overrides).frame()
    [own] = frame[frame["attack_name"] == name].itertuples()
    assert own.status == "error"
    assert reason in own.reason
    assert (frame.loc[frame["attack_name"] == "linear_layer", "psnr_db"] == 100).all()


PLANNING = {
    "schedule_raises": ("def schedule(self, schedule): raise KeyError('no luck')", "KeyError: 'no luck' ("),
    "schedule_type": ("def schedule(self, schedule): return 3", "schedule returned int, not a Schedule"),
    "schedule_range": (
        "def schedule(self, schedule): return dataclasses.replace(schedule, images=0)",
        "images must be at least 1, got 0",
    ),
    "prepare_raises": (f"prepare = lambda self, model: 1 / 0{TAIL}", "ZeroDivisionError: division by zero ("),
    "prepare_type": (f"prepare = lambda self, model: None{TAIL}", "prepare returned NoneType; return the model"),
    "check_raises": (
        "check = lambda self, task, labels: 1 / 0\n    reconstruct = None",
        "ZeroDivisionError: division by zero (",
    ),
}


@pytest.mark.parametrize("name", PLANNING)
def test_a_method_that_fails_while_the_grid_is_planned_is_named_before_anything_runs(grid_file, tmp_path, name):
    body, reason = PLANNING[name]
    kind = "attack" if name == "check_raises" else "defense"
    path = tmp_path / f"{name}.py"
    path.write_text(
        f"import dataclasses\nfrom leakboard import Attack, Defense\nclass A({kind.title()}):\n    {body}\n"
    )
    with pytest.raises(ConfigurationError, match=rf"{kind} {name}: .*{re.escape(reason)}"):
        prepare(grid_file, Registry([path]), overrides=[f'grid.{kind}s=["{name}"]'])


def test_an_attack_that_draws_from_the_global_generator_gives_the_same_bytes_again(grid_file, tmp_path):
    path = tmp_path / "careless.py"
    path.write_text(ATTACK.format(body=FINE, objective="return None"))
    stored = []
    for name in ("one", "two"):
        overrides = [SHORT[0], 'grid.attacks=["careless"]']
        run = leakboard.run(grid_file, output=tmp_path / name, plugins=[path], overrides=overrides)
        stored.append(sorted(file.read_bytes() for file in (run.folder / "blocks").glob("*.npz")))
        torch.rand(1)
    assert stored[0] == stored[1]


SETUP = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.2"
[tool.setuptools]
py-modules = {modules}
[project.entry-points."leakboard.{kind}s"]
{points}
"""


def install(folder, target, name, kind, modules, points):
    """Build a package of modules with entry points and install it, as pip does it, without a network."""
    folder.mkdir()
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    setup = SETUP.format(name=name, kind=kind, modules=json.dumps(list(modules)), points="\n".join(points))
    (folder / "pyproject.toml").write_text(setup)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", str(target), str(folder)], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder for PYTHONPATH with two installed packages: a defense and a broken one, and an attack."""
    folder = tmp_path_factory.mktemp("packages")
    modules = {"packed_signs": (FILES / "sign_compression.py").read_text(), "packed_sick": "import no_such_module\n"}
    points = ['packed = "packed_signs:SignCompression"', 'sick = "packed_sick:Sick"']
    install(folder / "one", folder / "site", "packed-defenses", "defense", modules, points)
    modules = {"packed_matching": (FILES / "absolute_matching.py").read_text()}
    points = ['packed_matching = "packed_matching:AbsoluteMatching"']
    install(folder / "two", folder / "site", "packed-attacks", "attack", modules, points)
    return folder / "site"


def test_an_installed_package_is_listed_and_runs(installed, grid_file, tmp_path):
    listed = command("list", "defenses", "--json", "--verify", cwd=tmp_path, path=[installed])
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["packed"]["origin"] == "package packed-defenses 1.2 (packed_signs:SignCompression)"
    assert rows["packed"]["parameters"][0]["name"] == "scale"
    assert rows["sick"]["broken"] == "ModuleNotFoundError: No module named 'no_such_module'" + (
        f" ({installed / 'packed_sick.py'}:1)"
    )
    arguments = ["--set", SHORT[0], "--set", 'grid.attacks=["packed_matching(iterations=2)"]']
    arguments += ["--set", 'grid.defenses=["none",{name="packed",scale=[1.0,2.0]}]', "--no-report", "-o", "run"]
    done = command("run", grid_file, *arguments, cwd=tmp_path, path=[installed])
    assert done.returncode == 0, done.stderr
    assert leakboard.Run(tmp_path / "run").counts() == {"ok": 3}


def test_a_broken_package_stops_only_a_run_that_asks_for_it(installed, grid_file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installed))
    with pytest.raises(
        ConfigurationError, match=r"defense sick from package packed-defenses 1\.2 .* is broken: Module"
    ):
        leakboard.run(grid_file, output=tmp_path / "run", overrides=[*SHORT, 'grid.defenses=["none","sick"]'])
    assert not (tmp_path / "run").exists()
    assert leakboard.run(grid_file, output=tmp_path / "run", overrides=SHORT).counts() == {"ok": 3}


@pytest.mark.parametrize(
    ("name", "other"), [("none", "built-in"), ("packed", r"package packed-defenses 1\.2 \(packed_signs:Sign.*\)")]
)
def test_a_package_s_name_that_is_taken_names_both_origins(installed, tmp_path, monkeypatch, name, other):
    info = tmp_path / "clash-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clash\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[leakboard.defenses]\n{name} = clash:X\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(installed))
    clash = r"package clash 0\.1 \(clash:X\)"
    with pytest.raises(ConfigurationError, match=f"{name} is defined twice: {other} and {clash}; rename one"):
        Registry().descriptions("defense")


COUNTING = '''
"""A plugin that writes down each time it is executed."""

import os
from dataclasses import dataclass

from leakboard import Defense, Generator, Task, Update

with open(os.environ["EXECUTIONS"], "a") as file:
    file.write("x")


@dataclass(frozen=True)
class Counting(Defense):
    """Halve the update (heuristic)."""

    def transform(self, task: Task, update: Update, rng: Generator) -> Update:
        return {name: u / 2 for name, u in update.items()}
'''


def test_a_plugin_is_executed_once_by_a_run(grid_file, tmp_path, monkeypatch):
    path, executions = tmp_path / "counting.py", tmp_path / "executions"
    path.write_text(COUNTING)
    monkeypatch.setenv("EXECUTIONS", str(executions))
    overrides = [*SHORT, 'grid.defenses=["none","counting"]']
    run = leakboard.run(grid_file, output=tmp_path / "run", plugins=[path], overrides=overrides)
    assert run.counts() == {"ok": 2}
    assert executions.read_text() == "x"
