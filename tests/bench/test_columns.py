"""A column of a cell is declared in one place, and a new switch of the threat model reaches every reader from there."""

import ast
import subprocess
import sys
from pathlib import Path

from attacks.threat import switches
from bench.columns import COLUMNS, FACTS, METHOD, QUESTION, THREAT
from bench.store.store import Store
from leakboard import run

ROOT = Path(__file__).parents[2]
FILES = [path for room in ("attacks", "bench", "leaderboards", "tools") for path in (ROOT / room).rglob("*.py")]
ACTING = {
    "leaderboards/entries/board.py",
    "leaderboards/figures/gallery.py",
    "leaderboards/evidence/attempt.py",
    "leaderboards/tables/notes.py",
}
"""Files that say what a fact means, beside those that ask a `ThreatModel` for it."""
SOME = {"leaderboards/checks/check.py"}
"""It prints a part of the question."""

TRIAL = """
import sys
from types import ModuleType
from pathlib import Path

module = ModuleType("attacks.threat")
text, mark = Path("attacks/threat.py").read_text(), "    @property\\n    def identity"
assert text.count(mark) == 1
field = '    luck: bool = _fact(False, "lucky number", "`true`: a lucky number helps", since=9)\\n\\n'
sys.modules["attacks.threat"] = module
exec(compile(text.replace(mark, field + mark), "attacks/threat.py", "exec"), module.__dict__)

import leakboard
from leaderboards.evidence.question import questions
from leaderboards.tables.scores import render_scores

frame = leakboard.run(sys.argv[1], output=sys.argv[2]).frame()
old = leakboard.run(sys.argv[1], output=sys.argv[3], overrides=["grid.threat.luck=false"]).frame()
assert set(frame["luck"]) == {False, True}
assert set(old["cell"]) == set(frame.loc[~frame["luck"], "cell"]), "ids at the default hold nothing of it"
assert not set(old["cell"]) & set(frame.loc[frame["luck"], "cell"])
(question,) = questions(frame)
assert [attempt.label for attempt in question.defenses[0].attempts] == [
    "linear_layer", "linear_layer, lucky number known"
]
assert "lucky number known" in render_scores(frame, "text")
"""
GRID = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 2
attacks = ["linear_layer"]
defenses = ["none"]
threat = { luck = [false, true] }
[engine]
threads = 1
"""


def constants(tree):
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_a_switch_needs_its_declaration_alone_to_reach_grids_ids_rows_evidence_and_tables(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    child = [sys.executable, "-c", TRIAL, *(str(tmp_path / name) for name in ("grid.toml", "both", "old"))]
    done = subprocess.run(child, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_plan_holds_the_declared_columns_and_no_other(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID.replace("threat = { luck = [false, true] }\n", ""))
    run(str(tmp_path / "grid.toml"), output=tmp_path / "run")
    cell = Store(tmp_path / "run").plan()["cells"][0]
    assert sorted(cell) == sorted([*(column.name for column in COLUMNS), "skip", "blocks"])


def test_no_file_but_those_that_act_on_it_names_a_published_fact():
    naming = {p.relative_to(ROOT).as_posix() for p in FILES if constants(ast.parse(p.read_text())) & set(FACTS)}
    assert naming == ACTING


def test_no_list_of_columns_spells_a_field_of_the_threat_model():
    names, spelling = {column.name for column in COLUMNS}, set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                own = {item.value for item in node.elts if isinstance(item, ast.Constant)} & names
                if len(own) > 1 and own & set(THREAT):
                    spelling.add(path.relative_to(ROOT).as_posix())
    assert spelling == SOME


def test_the_order_of_exported_columns_stays():
    assert QUESTION == ["dataset", "model", "weights", "labels", "batch_norm", "releases"]
    assert METHOD == [
        "attack", "attack_name", "attack_order", "control", "defense", "defense_name", "defense_order",
        "defense_parameters", "audited", "threat_class", "images_per_update", "local_steps",
    ]  # fmt: skip
    assert [switch.name for switch in switches()] == THREAT
