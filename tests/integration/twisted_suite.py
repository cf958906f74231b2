"""Twisted's own tests of UDP ports, run over ours; a program, because a process has one reactor.

``python -m tests.integration.twisted_suite REACTOR OWNER`` runs them, with ``ours`` as OWNER on our port and with
``twisted`` on Twisted's own, and prints what became of each, and how many ports each backend served, as JSON. The
backend is chosen by ``TWISTEDUDP_BACKEND``. With ``--without-multicast`` the tests are left out that send to groups,
by whatever network card the machine has.

Theory of operation: the tests are those of the Twisted that is installed. They ask a reactor for ports, so that it is
enough to give each reactor other methods ``listenUDP`` and ``listenMulticast``, and the module ``twisted.internet.udp``
another ``Port``. Beside the tests of ports there are those of two protocols which use them for real: DNS and SIP.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import TestCase

from twistedudp.transport import DatagramPort, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.internet.asyncioreactor import AsyncioSelectorReactor

__all__ = ["REACTORS", "WITHOUT_MULTICAST", "main"]

WITHOUT_MULTICAST: Final = "--without-multicast"

REACTORS: Final = {
    "epoll": "twisted.internet.epollreactor.EPollReactor",
    "poll": "twisted.internet.pollreactor.PollReactor",
    "select": "twisted.internet.selectreactor.SelectReactor",
    "asyncio": f"{__name__}.asyncio_reactor",
    "uvloop": f"{__name__}.uvloop_reactor",
}
"""What makes each reactor, for tests which have one of their own."""

CASES: Final = (
    "twisted.test.test_udp:UDPTests",
    "twisted.test.test_udp:ReactorShutdownInteractionTests",
    "twisted.internet.test.test_udp_internals:ErrorsTests",
    "twisted.names.test.test_names:ServerDNSTests",
    "twisted.test.test_sip:LiveTests",
)
MULTICAST_CASES: Final = ("twisted.test.test_udp:MulticastTests", "twisted.test.test_udp:MulticastTestsIPv6")

TCP_ONLY: Final = "test_zoneTransferConnectionFails"
"""A test of these that has nothing to do with UDP, and takes six seconds to find that nobody answers."""

PATIENCE: Final = 15.0
"""Seconds after which a test has failed: what they wait for takes milliseconds, and trial's own 120 are too long."""

_served: Counter[str] = Counter()


def main(reactor_name: str, owner: str, *options: str) -> None:
    """Run the tests and print their outcomes.

    Args:
        reactor_name: One of :data:`REACTORS`.
        owner: ``ours`` or ``twisted``: whose ports.
        options: :data:`WITHOUT_MULTICAST` or nothing.
    """
    _install(reactor_name)
    TestCase.timeout = PATIENCE  # type: ignore[attr-defined]  # trial looks for it
    from twisted.internet import reactor, udp  # noqa: PLC0415  # it has just been chosen

    if owner == "ours":
        _put_our_ports_on(reactor)
        udp.Port = _OurPort  # type: ignore[assignment,misc]  # that is the point
    loader: Any = TestLoader()
    outcomes = Outcomes()
    for name in (*CASES, *(() if WITHOUT_MULTICAST in options else MULTICAST_CASES)):
        module, _, case = name.partition(":")
        found = getattr(importlib.import_module(module), case, None)
        if found is not None:  # older releases of Twisted have no tests of IPv6 groups
            _run(loader.loadClass(found), outcomes)
    for case in _reactor_cases(reactor_name, owner):
        _run(loader.loadClass(case), outcomes)
    json.dump({"outcomes": outcomes.found, "ports served by": _served}, sys.stdout)


class Outcomes(TestResult):
    """Notes what became of each test.

    Attributes:
        found: By the test's module, class and method: ``passed``, ``skipped: ...``, or what it failed with.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.found: dict[str, str] = {}

    def addSuccess(self, test: Any) -> None:
        """Note a success; of a test that also had an error, that is what counts."""
        self.found.setdefault(test.id(), "passed")

    def addSkip(self, test: Any, reason: Any) -> None:
        """Note a skip."""
        self.found[test.id()] = f"skipped: {reason}"

    def addFailure(self, test: Any, fail: Any) -> None:
        """Note a failed assertion."""
        self._add(test, fail)

    def addError(self, test: Any, error: Any) -> None:
        """Note another failure, also one of cleaning up."""
        self._add(test, error)

    def _add(self, test: Any, failure: Any) -> None:
        message = failure.getErrorMessage() if hasattr(failure, "getErrorMessage") else repr(failure[1])
        kind = failure.type if hasattr(failure, "type") else failure[0]
        self.found[test.id()] = f"{kind.__name__}: {message}"


def asyncio_reactor(case: Any) -> AsyncioSelectorReactor:
    """Return an asyncio reactor with a loop of its own, for one test."""
    return _on_loop(case, asyncio.new_event_loop())


def uvloop_reactor(case: Any) -> AsyncioSelectorReactor:
    """Return an asyncio reactor on uvloop, for one test."""
    import uvloop  # noqa: PLC0415  # it may be missing

    return _on_loop(case, uvloop.new_event_loop())


def _on_loop(case: Any, loop: asyncio.AbstractEventLoop) -> AsyncioSelectorReactor:
    from twisted.internet.asyncioreactor import AsyncioSelectorReactor  # noqa: PLC0415  # the reactor is chosen late

    case.addCleanup(loop.close)
    return AsyncioSelectorReactor(loop)


def _install(reactor_name: str) -> None:
    """Make the reactor of this process the one that is asked for."""
    if reactor_name == "uvloop":
        import uvloop  # noqa: PLC0415  # it may be missing

        importlib.import_module("twisted.internet.asyncioreactor").install(uvloop.new_event_loop())
    elif reactor_name == "asyncio":
        importlib.import_module("twisted.internet.asyncioreactor").install(asyncio.new_event_loop())
    else:
        importlib.import_module(f"twisted.internet.{reactor_name}reactor").install()


def _put_our_ports_on(reactor: Any) -> None:
    """Let a reactor make our ports, with the arguments and defaults of its own."""

    def listen_udp(port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Any:
        return _counted(listen(reactor, port, protocol, interface, maxPacketSize))

    def listen_multicast(
        port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192, listenMultiple: bool = False
    ) -> Any:
        return _counted(listen(reactor, port, protocol, interface, maxPacketSize, reuse_port=listenMultiple))

    reactor.listenUDP = listen_udp
    reactor.listenMulticast = listen_multicast


def _counted(port: Any) -> Any:
    _served[port.backend] += 1
    return port


class _OurPort(DatagramPort):
    """Our port behind the arguments of ``twisted.internet.udp.Port``."""

    def __init__(
        self, port: Any, proto: Any, interface: str = "", maxPacketSize: int = 8192, reactor: Any = None
    ) -> None:
        super().__init__(reactor, port, proto, interface, maxPacketSize)


def _reactor_cases(reactor_name: str, owner: str) -> Iterator[type[Any]]:
    """Yield the test cases that build a reactor for each test, for one kind of reactor."""
    from twisted.internet.test.test_udp import UDPServerTestsBuilder  # noqa: PLC0415  # it wants a reactor installed

    class Builder(UDPServerTestsBuilder):
        _reactors = [REACTORS[reactor_name]]  # noqa: RUF012  # Twisted has no types there

        def buildReactor(self) -> Any:
            built: Any = super().buildReactor()  # type: ignore[no-untyped-call]  # likewise
            if owner == "ours":
                _put_our_ports_on(built)
            return built

    for name, case in Builder.makeTestCaseClasses().items():
        case.__module__ = UDPServerTestsBuilder.__module__
        case.__qualname__ = name
        yield case


def _run(suite: Any, outcomes: Outcomes) -> None:
    for test in suite:
        if not test.id().endswith(TCP_ONLY):
            test.run(outcomes)


if __name__ == "__main__":
    # As the module, and not as __main__, for the reactors are found by its name.
    importlib.import_module("tests.integration.twisted_suite").main(*sys.argv[1:])
