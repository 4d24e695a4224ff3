"""docs/reference.md is what the code says, and what only words can say names nothing that is not there."""

import re
from pathlib import Path

from pydantic import BaseModel

import leakboard
from bench.grid.config import Config
from bench.grid.sections import BoardRules
from tools import reference as reference_page
from tools.reference import commands, section_in

ROOT = Path(__file__).resolve().parents[2]
NOTES = reference_page.words_for_the_page()
JOBS = """
[grid]
dataset = "digits"
models = [{ name = "mlp", hidden = [16] }]
images = 2
attacks = ["posterior_mean", "linear_layer"]
defenses = ["none", "dp_sgd"]
public = 40
threat = { public = true }
[utility]
rounds = 2
clients = 2
seeds = [0]
[certificate]
candidates = 2
trials = 2
[engine]
threads = 1
"""


def dotted(model: type[BaseModel], under=""):
    for name, field in model.model_fields.items():
        key = f"{under}.{name}".lstrip(".")
        yield key
        inner = section_in(field.annotation)
        if inner is not None:
            yield from dotted(inner, key)


def named(table):
    return [name for names in NOTES[table] for name in names.split(", ")]


def test_the_page_is_what_the_code_says():
    assert reference_page.REFERENCE_PAGE.read_text(encoding="utf-8") == reference_page.reference_page(), (
        "run `make reference`"
    )


def test_every_key_of_a_grid_file_has_words_and_no_other_has():
    of_grids = [key for key in dotted(Config) if key.partition(".")[0] != "board"]
    assert sorted(NOTES["keys"]) == sorted([*of_grids, *dotted(BoardRules, "board")])


def test_every_column_of_a_run_has_words_and_no_other_has(tmp_path):
    (tmp_path / "jobs.toml").write_text(JOBS)
    run = leakboard.run(str(tmp_path / "jobs.toml"), output=tmp_path / "run")
    assert sorted(named("columns")) == sorted(run.frame().columns)
    assert sorted(named("job_columns")) == sorted(run.store.jobs_frame().columns)


def test_every_variable_that_the_code_reads_has_words_and_no_other_has():
    sources = [p.read_text(encoding="utf-8") for room in ("attacks", "defenses", "bench", "leaderboards")
               for p in (ROOT / room).rglob("*.py")]  # fmt: skip
    read = {name for text in sources for name in re.findall(r'environ\.\w+\("(\w+)"', text)}
    read |= {name for text in sources for name in re.findall(r'^BOARDS = "(\w+)"', text, re.MULTILINE)}
    assert sorted(NOTES["environment"]) == sorted(read)


def test_an_option_stands_as_it_is_typed():
    text = "\n".join(commands())
    for words in (
        "### `leakboard run SPEC`",
        "### `leakboard submit check DIR...`",
        "`-o RUN`, `--output RUN`",
        "`--set KEY=VALUE` (may be repeated)",
        "`--verify`, `--no-verify`",
        "| `--port N` | `8000` |",
    ):
        assert words in text
    assert "--overrides" not in text
    assert "--no-no-report" not in text
