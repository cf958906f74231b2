"""trial as scripts/test runs it: the installed package in front of the checkout, results written down.

Theory of operation: the interpreter put this folder in front of its path; instead the checkout goes to the end of it,
so that ``tests`` is found there, and ``twistedudp`` in site-packages. trial has no report that a program can read, so
its result class is told to write one. ``--without-slow`` leaves out what ``@pytest.mark.slow`` marks, as pytest's
``-m "not slow"`` does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.python import reflect
from twisted.scripts.trial import run
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader

if TYPE_CHECKING:
    from collections.abc import Callable


def _record(path: Path) -> None:
    """Make trial write each test's outcome to a file, one JSON object a line."""

    def recording(outcome: str, original: Callable[..., None]) -> Callable[..., None]:
        def add(result: TestResult, test: Any, *details: Any) -> None:
            if type(result).__module__ != TestResult.__module__:  # a test's own, of cases that fail on purpose
                original(result, test, *details)
                return
            with path.open("a") as file:
                file.write(
                    json.dumps({"test": test.id(), "outcome": outcome, "reason": " ".join(map(str, details[-1:]))})
                    + "\n"
                )
            original(result, test, *details)

        return add

    for outcome, method in (
        ("passed", "addSuccess"),
        ("failed", "addFailure"),
        ("failed", "addError"),
        ("failed", "addUnexpectedSuccess"),
        ("skipped", "addSkip"),
        ("expected failure", "addExpectedFailure"),
    ):
        setattr(TestResult, method, recording(outcome, getattr(TestResult, method)))


def _without_slow(loader: TestLoader, case: type) -> list[str]:
    """Return the names of a class's tests, those without the marks ``slow`` and ``heavy``, which pytest has run."""
    if _is_slow(sys.modules[case.__module__]):
        return []
    names: list[str] = reflect.prefixedMethodNames(case, loader.methodPrefix)  # type: ignore[no-untyped-call]  # Twisted's
    return [name for name in names if not _is_slow(case) and not _is_slow(getattr(case, loader.methodPrefix + name))]


def _is_slow(marked: object) -> bool:
    marks = getattr(marked, "pytestmark", [])  # a module's is a single one, or a list
    return any(mark.name in {"slow", "heavy"} for mark in (marks if isinstance(marks, list) else [marks]))


if __name__ == "__main__":
    sys.path[0:1] = []
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    if "--without-slow" in sys.argv:
        sys.argv.remove("--without-slow")
        TestLoader.getTestCaseNames = _without_slow  # type: ignore[method-assign]  # trial has no option for it
    if "TWISTEDUDP_TRIAL_RECORD" in os.environ:
        _record(Path(os.environ["TWISTEDUDP_TRIAL_RECORD"]))
    run()
