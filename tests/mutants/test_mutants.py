"""The list of mutants does not rot: every mistake can still be made, and its tests are still there."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("mutants_run", Path(__file__).with_name("run.py"))
RUNNER = sys.modules["mutants_run"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(RUNNER)
ROOT, MUTANTS = RUNNER.ROOT, RUNNER.mutants()
MISTAKES = {mutant.name: mutant for mutant in MUTANTS}


def test_every_mutant_has_a_name_of_its_own():
    assert len(MISTAKES) == len(MUTANTS)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mutant_s_text_occurs_once_and_its_tests_exist(name):
    mutant = MISTAKES[name]
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    changed = mutant.applied(source)
    assert changed != source
    ast.parse(changed)
    assert mutant.tests
    for test in mutant.tests:
        path, _, function = test.partition("::")
        assert function, f"{test}: name the narrowest test, not a file"
        named = re.sub(r"\[.*", "", function)
        assert re.search(rf"^def {named}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), test


def test_a_text_that_is_not_there_or_there_twice_is_refused():
    mutant = MUTANTS[0]
    with pytest.raises(ValueError, match="occurs 0 times"):
        mutant.applied("")
    with pytest.raises(ValueError, match="occurs 2 times"):
        mutant.applied(2 * mutant.text)


def test_what_is_not_yet_applicable_is_still_not_there():
    """When the file appears, its mistake has to be made on purpose: move the entry to the mutants."""
    for entry in RUNNER.table()["not_yet"]:
        assert not (ROOT / entry["until"]).exists(), f"write the mutant {entry['name']!r}: {entry['mistake']}"
        assert Path(entry["until"]).suffix == ".py"
