"""The house: who may import whom, how long a file may be, and what every public thing says of itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("leaderboards", "bench", "attacks", "defenses")
"""From left to right: a room imports itself and rooms to its right."""
COMMAND_LINE = (
    "leaderboards/cli/main.py",
    "leaderboards/cli/report.py",
    "bench/engines/supervisor.py",
    "leaderboards/cli/grids.py",
    "leaderboards/cli/plugins.py",
    "leakboard.py",
)
PRINTS = (*COMMAND_LINE, "bench/registry/sources.py")
"""bench/registry/sources.py: a child process answers its parent on standard output."""
HEAVY = {
    "torch", "torchvision", "torchmetrics", "opacus", "pandas", "seaborn", "matplotlib", "scipy", "sklearn",
    "skimage", "pydantic", "typer", "numpy", "PIL",
}  # fmt: skip
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(tree):
    """Every module that a tree imports, also inside functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def tops(tree):
    return {module.partition(".")[0] for module in imports(tree)}


def loaded_after(code):
    """The top-level names in sys.modules after a child process has run the code."""
    child = [sys.executable, "-c", f"import sys\n{code}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"]
    done = subprocess.run(child, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_only_to_the_right(room):
    forbidden = {*ROOMS[: ROOMS.index(room)], "leakboard", "tests"}
    found = {name_of(p): tops(t) & forbidden for p, t in TREES.items() if p.is_relative_to(ROOT / room)}
    assert found
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_only_dp_sgd_and_the_accounting_import_opacus():
    found = {name_of(p) for p, tree in TREES.items() if "opacus" in tops(tree)}
    assert found == {"defenses/noise/dp_sgd.py", "defenses/accounting.py"}


def test_a_guarantee_is_read_without_torch_and_opacus():
    assert loaded_after("import defenses.accounting") & {"torch", "opacus"} == set()


def test_the_client_and_the_adversary_need_no_tool_of_the_referee():
    forbidden = {"pydantic", "typer", "pandas", "seaborn", "matplotlib", "tqdm", "bench", "leaderboards"}
    for path, tree in TREES.items():
        if name_of(path).startswith(("attacks/", "defenses/")):
            assert not tops(tree) & forbidden, name_of(path)


@pytest.mark.parametrize(
    "module", [*ROOMS, "leakboard", "defenses.schedule", "attacks.threat", "leaderboards.untrusted.folder"]
)
def test_a_room_s_door_imports_nothing_heavy(module):
    assert loaded_after(f"import {module}") & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        "leaderboards.tables.scores",
        "leaderboards.figures.all_figures",
        "leaderboards.cli.main",
        "leaderboards.site.build",
        "bench.store.store",
    ],
)
def test_results_are_read_without_torch(module):
    assert "torch" not in loaded_after(f"import {module}")


def test_the_command_line_s_own_modules_import_nothing_slow():
    assert loaded_after("import leaderboards.cli.main, leaderboards.cli.grids") & (HEAVY - {"typer"}) == set()


def test_a_file_holds_at_most_400_lines():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_nothing_prints_below_the_command_line():
    for path, tree in TREES.items():
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
        assert not calls or name_of(path) in PRINTS, f"{name_of(path)}:{calls[0].lineno} prints"


def test_every_module_and_every_public_function_and_class_says_what_it_is():
    silent = []
    for path, tree in TREES.items():
        things = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        public = [tree, *(node for node in things if not node.name.startswith("_"))]
        silent += [f"{name_of(path)}: {getattr(n, 'name', 'module')}" for n in public if not ast.get_docstring(n)]
    assert silent == []


def test_no_tracked_file_names_a_place_on_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    place = re.compile(rb"(?<![\w.])/(home|Users|root|work)/\w+")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path.suffix not in (".png", ".svg") and path != Path(__file__):
            found = place.search(path.read_bytes())
            assert found is None, f"{name} holds {found.group().decode()}"
