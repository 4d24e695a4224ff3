"""The rules of the conformance suite and their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "not applicable"]


class Broken(AssertionError):
    """A method breaks a rule; the message says what, where and what to do."""


class NotApplicable(Exception):
    """A rule has nothing to say of a method; the message says why."""


@dataclass(frozen=True)
class Rule:
    """One promise of every method.

    `cases` makes of a subject what the rule is asked of, one after the other; `check` returns nothing, or raises
    `Broken` or `NotApplicable`. A rule holds when no case breaks it and it applies to at least one of them.
    """

    name: str
    promise: str
    cases: Callable[[Any], Iterable[Any]]
    check: Callable[[Any], None]


@dataclass(frozen=True)
class Finding:
    """The answer of one rule; `text` is the promise kept, the fault that broke it, or the reason it does not apply."""

    rule: str
    status: Status
    text: str

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    def __str__(self) -> str:
        return f"{self.status:<14}  {self.rule:<11}  {self.text}"
