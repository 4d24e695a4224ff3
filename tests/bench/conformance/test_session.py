"""The session of pytest that asks the rules: what becomes of each outcome, and that it meddles with nobody's own."""

import os

import pytest

from bench.conformance.cases import Subject, itself
from bench.conformance.findings import Broken, Finding, NotApplicable, Rule
from bench.conformance.session import ask
from defenses.none import NoDefense

SUBJECT = Subject("defense", "none", NoDefense())


def rule(name, check):
    return Rule(name, f"promise of {name}", itself, check)


def raising(error):
    """A check that ends in this error."""

    def check(subject):
        raise error

    return check


def findings(*rules):
    found = []
    ask(rules, SUBJECT, found.append)
    return found


def test_every_outcome_of_a_rule_is_one_finding_in_the_order_of_the_rules():
    assert findings(
        rule("kept", lambda subject: None),
        rule("silent", raising(NotApplicable("nothing to say"))),
        rule("broken", raising(Broken("do this instead"))),
        rule("raising", raising(KeyError("no"))),
        rule("leaving", raising(SystemExit("bye"))),
        rule("last", lambda subject: pytest.fail("asked")),
    ) == [
        Finding("kept", "passed", "promise of kept"),
        Finding("silent", "not applicable", "nothing to say"),
        Finding("broken", "failed", "do this instead"),
        Finding("raising", "failed", "KeyError: 'no'"),
        Finding("leaving", "failed", "SystemExit: bye"),
        Finding("last", "not applicable", "asked when no other rule is broken"),
    ]


def test_a_finding_is_heard_before_the_next_rule_is_asked():
    heard, before = [], []
    rules = [rule(name, lambda subject: before.append(len(heard))) for name in ("one", "two", "three")]
    ask(rules, SUBJECT, heard.append)
    assert before == [0, 1, 2]


def test_a_method_cannot_excuse_itself_in_pytest_s_own_words():
    [finding, _] = findings(rule("skipping", lambda subject: pytest.skip("not me")), rule("last", lambda subject: None))
    assert (finding.status, finding.text) == ("failed", "Skipped: not me")


def test_what_stops_a_session_stops_its_caller():
    heard = []
    with pytest.raises(KeyboardInterrupt):
        ask([rule("one", raising(KeyboardInterrupt())), rule("last", lambda subject: None)], SUBJECT, heard.append)
    assert heard == []


def test_settings_of_pytest_where_it_is_started_count_for_nothing_and_nothing_is_written(tmp_path, monkeypatch, capfd):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --nonsense\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--nonsense")
    monkeypatch.setenv("PYTEST_PLUGINS", "nonsense")
    before = dict(os.environ)
    assert [finding.status for finding in findings(rule("one", lambda subject: print("printed")))] == ["passed"]
    assert dict(os.environ) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conftest.py", "pytest.ini"]
    assert capfd.readouterr() == ("printed\n", "")
