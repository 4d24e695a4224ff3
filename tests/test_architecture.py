"""The house: who may import whom, how long a file may be, and what every public thing says of itself."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools import rooms as house

ROOT = Path(__file__).parents[1]
MAP = house.rooms()
"""The rooms from top to bottom, as CONTRIBUTING.md lists them: `python -m tools.rooms` prints what they hold."""
SOURCES = house.sources(MAP)
ARROWS = house.arrows(SOURCES)
WINGS = ("leaderboards", "bench", "attacks", "defenses")
"""The wings that are installed; tools/ is not."""
MOST_FILES, FEWEST_FILES = 12, 4
CLASHES = 5
"""Public names that several files define. It may only fall: lower it with each name that is given one meaning."""
HIDDEN_ARROWS = {
    "bench/registry/sources.py": "imports the two abstract classes when a method is asked for: torch takes seconds",
    "bench/conformance/defenses.py": "names the built-in defenses that can do nothing by their modules",
    "leaderboards/site/defense_page.py": "defenses/ is a folder of the site",
}
"""Files that name another room in a string, and why: the list may only shrink."""
COMMAND_LINE = (
    "leaderboards/cli/main.py",
    "leaderboards/cli/report.py",
    "bench/engines/supervisor.py",
    "leaderboards/cli/grids.py",
    "leaderboards/cli/plugins.py",
    "leakboard.py",
)
HEAVY = {
    "torch", "torchvision", "torchmetrics", "opacus", "pandas", "seaborn", "matplotlib", "scipy", "sklearn",
    "skimage", "pydantic", "typer", "numpy", "PIL", "rich", "filelock", "pytest",
}  # fmt: skip
TREES = {ROOT / name: tree for name, tree in SOURCES.items() if name.startswith(WINGS)}
FILES = list(TREES)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def tops(tree):
    return {module.partition(".")[0] for module in house.modules_of(tree)}


def loaded_after(code):
    """The top-level names in sys.modules after a child process has run the code."""
    child = [sys.executable, "-c", f"import sys\n{code}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"]
    done = subprocess.run(child, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_map_of_contributing_lists_every_room_once_with_the_sentence_of_its_init_file():
    assert [path for path, count in Counter(room.path for room in MAP).items() if count > 1] == []
    assert {room.path for room in MAP} == {house.room_of(file) for file in SOURCES}
    said = {room.path: house.first_paragraph(SOURCES[f"{room.path}/__init__.py"]) for room in MAP}
    assert {room.path: room.sentence for room in MAP} == said, "python -m tools.rooms copies the sentences into the map"
    assert all(said.values())


def test_the_layout_of_the_readme_names_every_room():
    layout = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Layout")[2]
    assert [room.path for room in MAP if not re.search(rf"`{room.path.rpartition('/')[2]}/?`", layout)] == []


def test_imports_run_only_down_the_map():
    floor = {room.path: place for place, room in enumerate(MAP)}
    upward = [
        f"{source} imports {target}"
        for source, target in sorted(ARROWS)
        if floor[house.room_of(source)] > floor[house.room_of(target)]
    ]
    assert ARROWS
    assert upward == []


def test_there_are_no_circles_between_rooms_and_between_files():
    assert house.circle(house.between_rooms(ARROWS)) == []
    assert house.circle(ARROWS) == []


def test_a_circle_and_an_import_inside_a_function_are_noticed():
    trees = {
        "bench/a.py": ast.parse("def f():\n    from bench.data import b"),
        "bench/data/b.py": ast.parse("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bench.a"),
    }
    assert house.arrows(trees) == {("bench/a.py", "bench/data/b.py"), ("bench/data/b.py", "bench/a.py")}
    assert sorted(set(house.circle(house.arrows(trees)))) == ["bench/a.py", "bench/data/b.py"]


def test_nothing_that_is_installed_imports_the_public_face_the_tests_or_a_tool():
    found = {name_of(path): tops(tree) & {"leakboard", "tests", "tools"} for path, tree in TREES.items()}
    wrong = {name: modules for name, modules in found.items() if modules}
    assert wrong == {}, "a built-in imports from the rooms below it, as gradient_pruning.py does"


def modules_in(room):
    return [file.rpartition("/")[2].removesuffix(".py") for file in ROOM_FILES if house.room_of(file) == room.path]


ROOM_FILES = [file for file in SOURCES if not file.endswith("__init__.py")]


@pytest.mark.parametrize("room", MAP, ids=lambda room: room.path)
def test_a_room_holds_as_many_files_as_a_reader_can_take_in(room):
    count = len(modules_in(room))
    if not room.catalogue:
        assert count <= MOST_FILES, "make a room of some of them"
    # A wing's own folder may hold rooms alone.
    if count and not room.catalogue and not room.path.startswith("tools"):
        assert count >= FEWEST_FILES, "merge it with the room that reads it"


@pytest.mark.parametrize("room", MAP, ids=lambda room: room.path)
def test_no_three_files_of_a_room_share_the_first_word_of_their_names(room):
    words = Counter(module.partition("_")[0] for module in modules_in(room))
    assert [word for word, count in words.items() if count >= 3] == [], "this is a folder that was not made"


def texts(tree):
    """String constants without docstrings, and chains such as `home / "attacks" / "matching"` as one path."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            # The tree nests to the left, so the walk meets the last part first.
            yield "".join(f"{part}/" for part in reversed(parts))


def rooms_named(tree):
    """The rooms whose folders or modules stand in strings."""
    known, wings = {room.path for room in MAP}, "|".join((*WINGS, "tools"))
    for text in texts(tree):
        paths = re.findall(rf"(?<![\w./-])(?:{wings})/[\w./-]*", text)
        if re.fullmatch(rf"(?:{wings})(?:\.\w+)+", text) and (ROOT / (text.replace(".", "/") + ".py")).exists():
            paths.append(text.replace(".", "/"))
        for path in paths:
            parts = path.strip("/").split("/")
            yield next(room for end in range(len(parts), 0, -1) if (room := "/".join(parts[:end])) in known)


def test_no_room_names_another_room_s_folder_in_a_string():
    hidden = set()
    for path, tree in TREES.items():
        # Presets, boards and published entries lie in a wing's own folder, which its rooms may name.
        own = house.room_of(name_of(path))
        hidden |= {name_of(path) for room in rooms_named(tree) if not f"{own}/".startswith(f"{room}/")}
    assert hidden == HIDDEN_ARROWS.keys()


@pytest.mark.parametrize(
    "code",
    [
        '"bench/data/load.py"',
        'ROOT / "bench" / "data"',
        'Path("bench") / "data"',
        'f"bench/data/{name}"',
        '"bench.data.load"',
        'f(x, "see bench/data/load.py")',
    ],
)
def test_a_room_in_a_string_is_noticed(code):
    assert {*rooms_named(ast.parse(f"x = {code}"))} - {"bench"} == {"bench/data"}


def test_no_more_public_names_have_two_meanings_than_before():
    found = house.clashes(SOURCES)
    assert len(found) <= CLASHES, "\n".join(f"{name}: {', '.join(files)}" for name, files in found.items())


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
    "module", [*WINGS, "leakboard", "defenses.schedule", "attacks.threat", "leaderboards.untrusted.folder"]
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
        assert not calls or name_of(path) in COMMAND_LINE, f"{name_of(path)}:{calls[0].lineno} prints"


def test_nothing_factorises_batches_by_lu():
    """On the CPU and with two threads PyTorch's never end (its issue 141358); Cholesky's and eigh's do."""
    found = re.compile(r"linalg\.(solve|inv|det|slogdet|lu\w*|tensorinv|tensorsolve)\b")
    assert [name_of(path) for path in FILES if found.search(path.read_text())] == []


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
