"""The rules as pytest tests, one for each rule of the method at hand; `bench.conformance.session` runs them."""

from __future__ import annotations

from bench.conformance.cases import Subject, kept_global_state, seed_everything
from bench.conformance.findings import Broken, NotApplicable, Rule


def test_rule(rule: Rule, subject: Subject) -> None:
    """The rule holds: no case breaks it, and it applies to at least one of them.

    Raises `Broken`, with the case in the message, or `NotApplicable`; whatever else the method raises goes through.
    """
    reasons: list[str] = []
    applies = 0
    with kept_global_state():
        for case in rule.cases(subject):
            seed_everything(0)
            try:
                rule.check(case)
                applies += 1
            except NotApplicable as reason:
                reasons.append(str(reason))
            except Broken as broken:
                where = getattr(case, "title", "")
                raise Broken(f"{broken}{where and f' [{where}]'}") from broken
    if reasons and not applies:
        raise NotApplicable(reasons[0])
