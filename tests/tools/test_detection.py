"""docs/what-a-check-can-detect.md lists the rules of a check and its tolerances as the code has them."""

import re
from itertools import pairwise

import pytest

from leaderboards.checks import rerun
from leaderboards.checks.rules import ENTRY_RULES
from tools.detection import DETECTION_PAGE, figure_table, rule_table


@pytest.mark.parametrize(("mark", "table"), [("rules", rule_table), ("figures", figure_table)])
def test_the_page_shows_the_table_of_the_code(mark, table):
    shown = re.search(
        rf"<!-- {mark} -->\n(.*?)\n<!-- end of {mark} -->", DETECTION_PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert shown is not None
    assert shown[1] == table(), "run python -m tools.detection"


def test_every_rule_has_a_name_of_its_own_and_says_what_breaks_it():
    assert len({rule.name for rule in ENTRY_RULES}) == len(ENTRY_RULES)
    for line in rule_table().splitlines()[2:]:
        assert all(cell.strip() for cell in line.strip("|").split("|")), line


def test_rules_of_one_promise_stand_together():
    promises = [rule.promise for rule in ENTRY_RULES]
    changes = sum(first != second for first, second in pairwise(promises))
    assert changes == len(set(promises)) - 1


def test_every_figure_that_is_compared_is_on_the_page():
    assert {own for own in vars(rerun).values() if isinstance(own, rerun.ComparedFigure)} == set(rerun.COMPARED_FIGURES)
