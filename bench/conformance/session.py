"""One pytest session over the rules of one method, untouched by the settings of whoever starts it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from bench.conformance.cases import Subject
from bench.conformance.findings import Broken, Finding, NotApplicable, Rule
from bench.registry.sources import failure

_TESTS = Path(__file__).with_name("test_rules.py")
_OFF = (
    "cacheprovider",  # It writes into the user's folder.
    "terminal",
    # What follows takes over handlers of the whole process, which may belong to a session around this one.
    "capture",
    "debugging",
    "faulthandler",
    "logging",
    "threadexception",
    "unraisableexception",
    "warnings",
)
"""Parts of pytest that are switched off."""
_ARGUMENTS = (
    f"--rootdir={_TESTS.parent}",
    f"--config-file={os.devnull}",
    "--noconftest",
    "--disable-plugin-autoload",
    "--import-mode=importlib",
    "--assert=plain",
    *(word for part in _OFF for word in ("-p", f"no:{part}")),
    str(_TESTS),
)


def ask(rules: Sequence[Rule], subject: Subject, on_finding: Callable[[Finding], None]) -> None:
    """Run the test of every rule, in order; `on_finding` hears of each one as it ends.

    The last rule is asked only when no other is broken: it would fail for the same reason once more.
    """
    session = _Session(rules, subject, on_finding)
    with _no_settings():
        code = pytest.main([*_ARGUMENTS], plugins=[session])
    if session.stopped is not None:
        raise session.stopped
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the session of pytest ended with code {code}")


class _Session:
    """Hooks of pytest that hand the rules to the tests and make findings of the outcomes."""

    def __init__(self, rules: Sequence[Rule], subject: Subject, on_finding: Callable[[Finding], None]) -> None:
        self.rules, self.subject, self.on_finding = rules, subject, on_finding
        self.broken = False
        self.stopped: BaseException | None = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test a rule."""
        rows = [(rule, self.subject) for rule in self.rules]
        metafunc.parametrize(("rule", "subject"), rows, ids=[rule.name for rule in self.rules])

    def pytest_runtest_setup(self, item: pytest.Function) -> None:
        """Keep the last rule from a method that breaks another."""
        if self.broken and item.callspec.params["rule"] is self.rules[-1]:
            raise NotApplicable("asked when no other rule is broken")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Function, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Tell what became of a rule."""
        report = yield
        rule = cast(Rule, item.callspec.params["rule"])
        if call.excinfo is not None:
            self.on_finding(self._finding(rule, call.excinfo.value))
        elif call.when == "call":
            self.on_finding(Finding(rule.name, "passed", rule.promise))
        return report

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember what ended the session, to raise it again outside."""
        self.stopped = excinfo.value

    def _finding(self, rule: Rule, error: BaseException) -> Finding:
        if isinstance(error, NotApplicable):
            return Finding(rule.name, "not applicable", str(error))
        self.broken = True
        if isinstance(error, Broken):
            return Finding(rule.name, "failed", str(error))
        source = Path(inspect.getfile(type(self.subject.method)))
        return Finding(rule.name, "failed", failure(error, source))


@contextmanager
def _no_settings() -> Iterator[None]:
    """Take the environment variables of pytest away: options of the user's, and the name of a test around this one."""
    kept = {name: os.environ.pop(name) for name in [*os.environ] if name.startswith("PYTEST_")}
    try:
        yield
    finally:
        os.environ.update(kept)
