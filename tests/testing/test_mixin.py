"""The mixin for trial's and unittest's test cases, and what it shares with the fixture."""

from __future__ import annotations

import contextlib
import io
import os
import unittest
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.python import log
from twisted.trial.reporter import TestResult, UncleanWarningsReporterWrapper
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.testing.protocols import Echo
from twistedudp.testing import SimulatedNetworkMixin
from twistedudp.testing._outcome import SEED_VARIABLE, chosen_seeds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime


class Result(TestResult):
    """A reporter that only counts."""

    successes: int

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has not annotated it


def cases(base: Any, options: Mapping[str, object] | None = None, *, leftovers: bool = False) -> Any:
    """Return a class of tests under some kind of test case; in a function, so that no runner finds them."""

    class Cases(SimulatedNetworkMixin, base):  # type: ignore[misc]  # any kind of test case
        network_options = options or {}
        leftovers_wanted = leftovers

        def test_passes(self) -> None:
            port = self.network.reactor("192.0.2.1").listenUDP(9, Echo())
            self.addCleanup(port.stopListening)
            port.write(b"x", ("192.0.2.1", 10))
            self.network.advance(1)

        def test_fails(self) -> None:
            self.test_passes()
            self.fail("on purpose")

        def test_leaves_a_port(self) -> None:
            self.network.reactor("192.0.2.1").listenUDP(9, Echo())

        def test_without(self) -> None:
            self.fail("without a network")

        def test_logs(self) -> None:
            self.network.advance(1)
            log.err(ZeroDivisionError())  # type: ignore[no-untyped-call]  # Twisted has not annotated it

    return Cases


KINDS = (SynchronousTestCase, unittest.TestCase)


class CaseTests(SynchronousTestCase):
    """What runs of these give."""

    def setUp(self) -> None:
        """Choose no seed."""
        self.patch(os, "environ", {name: value for name, value in os.environ.items() if name != SEED_VARIABLE})

    def run_case(self, case: Any, name: str, result: Any = None) -> tuple[str, str]:
        """Run a test; return what failed and what was printed."""
        result = result or Result()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            case(name).run(result)
        # They are the errors of the tests that were run, not of this one.
        self.flushLoggedErrors()
        return " ".join(str(problem) for _, problem in [*result.failures, *result.errors]), printed.getvalue()

    def test_passes(self) -> None:
        """A test that passes prints nothing."""
        for kind in KINDS:
            self.assertEqual(self.run_case(cases(kind, {"delay": 0.25}), "test_passes"), ("", ""))

    def test_fails(self) -> None:
        """One that fails prints the seed, the diagram and the command, for its own runner."""
        os.environ[SEED_VARIABLE] = "7"
        for kind, runner in zip(KINDS, ("twisted.trial", "unittest"), strict=True):
            problem, printed = self.run_case(cases(kind), "test_fails")
            self.assertIn("on purpose", problem)
            self.assertIn("seed 7\n", printed)
            self.assertIn('"x", 1 B, to itself: refused, nobody listens', printed)
            self.assertRegex(
                printed, rf"run it again: TWISTEDUDP_SEED=7 python -m {runner} '?tests\.testing.*test_fails"
            )

    def test_logged_errors(self) -> None:
        """A test that fails by a logged error is reported as well."""
        problem, printed = self.run_case(cases(SynchronousTestCase), "test_logs")
        self.assertIn("ZeroDivisionError", problem)
        self.assertIn("seed 0\n(nothing was sent)\n", printed)

    def test_without_network(self) -> None:
        """A test that has not asked for the network is not reported."""
        self.assertEqual(self.run_case(cases(SynchronousTestCase), "test_without")[1], "")

    def test_leftovers(self) -> None:
        """A port that is left fails the test, unless that is wanted."""
        for kind in KINDS:
            problem, printed = self.run_case(cases(kind), "test_leaves_a_port")
            self.assertRegex(problem, "left something behind:\n.*port 9 of 192.0.2.1 is still bound")
            self.assertIn("leftovers_wanted = True", problem)
            self.assertIn("run it again", printed)
            self.assertEqual(self.run_case(cases(kind, leftovers=True), "test_leaves_a_port"), ("", ""))

    def test_fixed_seed(self) -> None:
        """A seed among the options stays, and is no part of the command."""
        os.environ[SEED_VARIABLE] = "7"
        _, printed = self.run_case(cases(SynchronousTestCase, {"seed": 5}), "test_fails")
        self.assertIn("seed 5\n", printed)
        self.assertIn("run it again: python -m", printed)

    def test_wrapped_reporters(self) -> None:
        """Where a reporter stands in front of the one that counts, failures are seen as well."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            cases(SynchronousTestCase)("test_fails").run(UncleanWarningsReporterWrapper(Result()))
        self.assertIn("run it again", printed.getvalue())

    def test_same_object_again(self) -> None:
        """A test object that is run again, as --until-failure does, has a new network."""
        case = cases(SynchronousTestCase)("test_passes")
        networks = []
        for _ in range(2):
            result = Result()
            case.run(result)
            networks.append(case.network)
            self.assertEqual((result.failures, result.errors, result.successes), ([], [], 1))
        self.assertIsNot(*networks)

    def test_bad_seed(self) -> None:
        """A seed that is none fails the test with a message that says what it must be; so does a range."""
        for text, message in (("x", "'x' is no seed"), ("0-9", "must be one number here")):
            os.environ[SEED_VARIABLE] = text
            self.assertIn(message, self.run_case(cases(SynchronousTestCase), "test_passes")[0])


class DeferredTests(SimulatedNetworkMixin, TestCase):
    """The mixin in one of trial's asynchronous test cases."""

    def test_deferred(self) -> Deferred[None]:
        """A test may return a Deferred, if something moves the simulated time before."""
        reactor: IReactorTime = self.network.reactor()
        done = deferLater(reactor, 3, lambda: None)
        self.network.advance(5)
        return done


class SeedTests(SynchronousTestCase):
    """Seeds from outside."""

    def test_one(self) -> None:
        """A number is one seed, two are all between, nothing is none."""
        self.assertEqual(chosen_seeds("7"), range(7, 8))
        self.assertEqual(chosen_seeds(" 0-99\n"), range(100))
        self.assertEqual(chosen_seeds("18446744073709551615"), range(2**64 - 1, 2**64))
        self.assertIsNone(chosen_seeds(""))

    def test_from_the_environment(self) -> None:
        """Without an argument the environment variable is asked."""
        self.patch(os, "environ", {SEED_VARIABLE: "3"})
        self.assertEqual(chosen_seeds(), range(3, 4))
        del os.environ[SEED_VARIABLE]
        self.assertIsNone(chosen_seeds())

    def test_bad(self) -> None:
        """Anything else is an error."""
        for bad in ("x", "-1", "1-", "9-1", "1.5", "1_0", "\u0663", "1-2-3", "9" * 21):
            self.assertRaises(ValueError, chosen_seeds, bad)
