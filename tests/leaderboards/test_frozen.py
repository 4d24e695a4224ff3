"""Frozen boards keep the ids and ranks that they had when they were frozen, whatever is added since."""

import json

import pytest

from bench.data.fashion_mnist import DEBIAN_FASHION_MNIST
from leaderboards.checks.rules import check_rules
from leaderboards.checks.submission import Submission
from leaderboards.entries.published import PUBLISHED, published
from tools.frozen import TABLE, ids, ranks

STORED = json.loads(TABLE.read_text())
NEEDS_FASHION = pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
BOARDS = [pytest.param(name, marks=[NEEDS_FASHION] * name.startswith("fashion")) for name in STORED]
ENTRIES = [
    pytest.param(path.parent.parent.name, path.parent.name, marks=[NEEDS_FASHION] * ("fashion" in path.parts[-3]))
    for path in sorted(PUBLISHED.glob("*-v1/*/entry.json"))
]


def test_every_board_with_entries_is_in_the_table():
    assert sorted({path.parent.parent.name for path in PUBLISHED.glob("*-v1/*/entry.json")}) == sorted(STORED)


@pytest.mark.parametrize("name", BOARDS)
def test_a_frozen_board_plans_the_ids_that_its_entries_have(name):
    found = published(name)
    assert ids(found) == STORED[name]["ids"]
    planned = {one for own in STORED[name]["ids"].values() for one in own}
    assert {cell.identity.cell for entry in found.entries for cell in entry.cells} <= planned


@pytest.mark.parametrize("name", STORED)
def test_a_frozen_board_ranks_as_it_did(name):
    assert ranks(published(name)) == STORED[name]["ranks"]


@pytest.mark.slow
@pytest.mark.parametrize(("board", "name"), ENTRIES)
def test_a_published_entry_holds_to_every_rule_of_its_check(board, name):
    found = published(board)
    [entry] = [own for own in found.entries if own.name == name]
    report = check_rules(Submission(entry, found, PUBLISHED / board / name))
    assert [(answer.rule.name, answer.faults) for answer in report.broken] == []
