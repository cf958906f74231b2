"""Twisted's own tests of UDP ports pass on ours, but for those that a table of docs/port.md names.

Theory of operation: each reactor needs a process (see :mod:`tests.integration.twisted_suite`). Some of Twisted's tests
send to groups by whatever network card there is; therefore all of them run in a network of their own, and where none
can be made these are left out. A test on the list that passes after all is a failure here: the list would be wrong.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.checkout import ROOT
from tests.integration.netns import Wire, missing_for_namespaces
from tests.integration.twisted_suite import WITHOUT_MULTICAST
from twistedudp.errors import LocalError
from twistedudp.transport._backend import ENVIRONMENT_VARIABLE, choose_backend

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTERNALS: Final = "it hands the port a socket object of its own and calls doRead: a backend reads only the real one"

DIFFERENCES: Final = {
    "test_udp_internals.ErrorsTests.test_connectedReadImmediateError": _INTERNALS,
    "test_udp_internals.ErrorsTests.test_readImmediateError": _INTERNALS,
    "test_udp_internals.ErrorsTests.test_readUnknownError": _INTERNALS,
    "test_udp_internals.ErrorsTests.test_socketReadNormal": _INTERNALS,
}
"""Tests of Twisted's that must fail on our port, and why; docs/port.md has the same."""

SKIPPED: Final = {"test_udp.MulticastTestsIPv6.testTTL"}
"""Tests that Twisted skips with its own ports as well."""

LEAST_TESTS: Final = {True: 65, False: 55}
"""How many there are at least (of Twisted 24.7), with multicast and without: nothing may be left out unnoticed."""

LEAST_PORTS: Final = 60
"""How many ports they make at least, all of which the backend under test must serve."""

PATIENCE: Final = 300.0
"""Seconds for all tests on one reactor, which take about two."""


class TwistedSuite:
    """Twisted's tests on every reactor, with one backend.

    Attributes:
        backend: Its name.
    """

    backend: str

    def test_epoll(self) -> None:
        """On the epoll reactor."""
        self.check("epoll")

    def test_poll(self) -> None:
        """On the poll reactor."""
        self.check("poll")

    def test_select(self) -> None:
        """On the select reactor."""
        self.check("select")

    def test_asyncio(self) -> None:
        """On the asyncio reactor."""
        self.check("asyncio")

    def test_uvloop(self) -> None:
        """On the asyncio reactor with uvloop."""
        try:
            import uvloop  # noqa: F401, PLC0415  # it may be missing
        except ImportError:
            raise SkipTest("uvloop is not installed: pip install uvloop") from None
        self.check("uvloop")

    def check(self: Any, reactor: str) -> None:
        """Run the tests: all pass but those of the list, and these do not."""
        if reactor == "epoll" and not sys.platform.startswith("linux"):
            raise SkipTest("epoll exists on Linux only")
        try:
            choose_backend(self.backend)
        except LocalError as error:
            raise SkipTest(str(error)) from None
        outcomes, served = run_suite(reactor, "ours", self.backend)
        self.assertEqual([self.backend], list(served), "what served the ports")
        self.assertGreaterEqual(served[self.backend], LEAST_PORTS)
        failed = {test: outcome for test, outcome in outcomes.items() if outcome != "passed" and test not in SKIPPED}
        unexpected = {test: outcome for test, outcome in failed.items() if test not in DIFFERENCES}
        self.assertEqual({}, unexpected, f"Twisted's tests that fail on our port with {reactor}")
        self.assertEqual(set(), set(DIFFERENCES) - set(failed), "tests that pass after all: take them off the list")


@pytest.mark.heavy
class ScalarTests(TwistedSuite, SynchronousTestCase):
    """With the backend in plain Python."""

    backend = "scalar"


@pytest.mark.heavy
class CompiledTests(TwistedSuite, SynchronousTestCase):
    """With the compiled backend."""

    backend = "mmsg"


@pytest.mark.heavy
class YardstickTests(SynchronousTestCase):
    """The yardstick itself."""

    def test_on_twisted(self) -> None:
        """On Twisted's own port all tests pass here: what fails on ours is ours."""
        outcomes, served = run_suite("select", "twisted", "scalar")
        failed = {test: outcome for test, outcome in outcomes.items() if outcome != "passed" and test not in SKIPPED}
        self.assertEqual(({}, {}), (failed, served))

    def test_with_multicast(self) -> None:
        """The tests of groups are among them."""
        missing = missing_for_namespaces()
        if missing:
            raise SkipTest(missing)
        outcomes, _ = run_suite("select", "twisted", "scalar")
        self.assertIn("test_udp.MulticastTests.test_multicast", outcomes)


class TableTests(SynchronousTestCase):
    """The list and the documentation."""

    def test_table(self) -> None:
        """The table in docs/port.md has the tests of the list with the reasons of the list, and no others."""
        page = (ROOT / "docs" / "port.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(\w+\.\w+\.test\w+)` \| (.+) \|$", page, re.MULTILINE)
        self.assertEqual(DIFFERENCES, {test: reason.replace("`", "") for test, reason in rows})
        self.assertEqual(len(DIFFERENCES), len(rows))


def run_suite(reactor: str, owner: str, backend: str) -> tuple[dict[str, str], dict[str, int]]:
    """Run Twisted's tests in a process of their own.

    Args:
        reactor: The reactor's name.
        owner: ``ours`` or ``twisted``.
        backend: The backend of our ports.

    Returns:
        What became of each test, by the last names of its module, class and method; and how many ports each backend
        served.
    """
    with _network() as options:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.twisted_suite", reactor, owner, *options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)]), ENVIRONMENT_VARIABLE: backend},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    if done.returncode:
        raise AssertionError(f"Twisted's tests on {reactor} could not be run:\n{done.stderr}")
    told = json.loads(done.stdout)
    outcomes = {_short(test): outcome for test, outcome in told["outcomes"].items()}
    least = LEAST_TESTS[not options]
    if len(outcomes) < least:
        raise AssertionError(f"only {len(outcomes)} tests were run, there must be {least}: {sorted(outcomes)}")
    return outcomes, told["ports served by"]


def _short(test: str) -> str:
    """Return a test's name without its package, and without the reactor in the name of its class."""
    module, case, method = test.split(".")[-3:]
    return f"{module}.{case.partition('Builder_')[0]}.{method}"


@contextmanager
def _network() -> Iterator[list[str]]:
    """Be in a network where groups can be joined, if one can be made; give the options for where none can be."""
    if missing_for_namespaces():
        yield [WITHOUT_MULTICAST]
        return
    with ExitStack() as stack:
        wire = stack.enter_context(Wire())
        # "nodad": an address is of no use while it is still being looked for elsewhere (RFC 4862).
        wire.here.run("ip", "address", "add", "2001:db8::2/64", "dev", "veth0", "nodad")
        wire.here.run("ip", "route", "add", "default", "dev", "veth0")
        stack.enter_context(wire.here.entered())
        yield []
