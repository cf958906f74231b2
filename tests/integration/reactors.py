"""Ports on every reactor, backend and address family, for tests against the real kernel.

Theory of operation: a test is written once, in a class derived from :class:`PortCase`, which :func:`variants` decorates
to make a class of it for each combination. A reactor is a real one, made for the test and never installed, and runs
only while the test waits for something. So what plain sockets send before that is all in the kernel's queue when a port
begins to read, and which datagrams meet in a batch does not depend on chance. The backend is chosen by the environment
variable, for services have no argument for it. A backend that was not built is a skip, and a failure where
``TWISTEDUDP_REQUIRE_COMPILED`` demands it.
"""

from __future__ import annotations

import os
import time
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import pytest
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.contracts.case import BatchPeer, Peer, echo
from tests.contracts.providers import REACTORS as CONTRACT_REACTORS
from tests.contracts.providers import OurPorts, missing_backend
from tests.integration.sockets import has_ipv6_loopback, plain_socket
from tests.simulation import LogCollector
from twistedudp.transport._backend import BACKENDS, ENVIRONMENT_VARIABLE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import DatagramProtocol

    from tests.integration.netns import NetworkNamespace
    from twistedudp.address import Address

__all__ = [
    "FAMILIES",
    "IPV4",
    "IPV6",
    "REACTORS",
    "BatchPeer",
    "Family",
    "Peer",
    "PortCase",
    "echo",
    "missing_backend",
    "variants",
]

REQUIRE_COMPILED = "TWISTEDUDP_REQUIRE_COMPILED"

QUIET = 0.15
"""Seconds for which a reactor with nothing to do is watched: one that spins makes thousands of turns in them."""

QUIET_TURNS = 8
"""Read turns in which what is under way may end meanwhile."""

QUIET_SHARE = 0.5
"""... and of the time, the share that may be spent: one that spins spends all that the machine gives it."""

_T = TypeVar("_T")


class Family(NamedTuple):
    """A family of addresses."""

    name: str
    host: str
    """The loopback address."""
    any_host: str
    """All addresses."""
    near: str
    """An address for the loopback device of a namespace, beside the usual one."""
    far: str
    """Another, in another network."""
    bits: int
    """Of an address."""
    most: int
    """Bytes of the largest payload."""


IPV4 = Family("IPv4", "127.0.0.1", "0.0.0.0", "198.18.0.1", "198.19.0.1", 32, 65507)  # noqa: S104  # in a namespace, and asked by name
IPV6 = Family("IPv6", "::1", "::", "fd00::1", "fd01::1", 128, 65527)
FAMILIES = (IPV4, IPV6)


def _uvloop_reactor() -> AsyncioSelectorReactor:
    try:
        import uvloop  # noqa: PLC0415  # it may be missing
    except ImportError:
        raise SkipTest("uvloop is not installed: pip install uvloop") from None
    return AsyncioSelectorReactor(uvloop.new_event_loop())


REACTORS: Mapping[str, Callable[[], Any]] = {**CONTRACT_REACTORS, "Uvloop": _uvloop_reactor}
"""What makes each kind of reactor."""


class PortCase(SynchronousTestCase):
    """A test on one reactor, one backend and one family; :func:`variants` sets the three.

    Attributes:
        ports: Makes ports on the reactor and lets it run.
        log: What was logged; a warning or an error that a test does not take out fails it.
    """

    reactor_name: ClassVar[str]
    backend: ClassVar[str]
    family: ClassVar[Family]
    patience: ClassVar[float] = 20.0

    def setUp(self) -> None:
        """Make the reactor, and let every port take the backend."""
        if missing := missing_backend(self.backend):
            if os.environ.get(REQUIRE_COMPILED):
                self.fail(f"{REQUIRE_COMPILED} is set, but: {missing}")
            raise SkipTest(missing)
        if self.family is IPV6 and not has_ipv6_loopback():
            raise SkipTest("this machine has no IPv6")
        self._set_environment(ENVIRONMENT_VARIABLE, self.backend)
        self.ports = _ports_of(self.reactor_name)
        self.ports.patience = self.patience
        self.addCleanup(self.ports.close)
        self.reactor = self.ports.reactor
        self.log = LogCollector()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(self._assert_nothing_logged)
        self._open: list[Any] = []
        self.addCleanup(self._stop_all)

    def listen(self, protocol: DatagramProtocol, interface: str | None = None, port: int = 0, **options: Any) -> Any:
        """Return a port that is stopped at the end of the test, and check who serves it."""
        made = self.ports.listen(protocol, self.family.host if interface is None else interface, port, **options)
        self._open.append(made)
        self.assertEqual(made.backend, self.backend)
        return made

    def plain(self, host: str | None = None, port: int = 0) -> socket.socket:
        """Return a plain socket that is closed at the end of the test."""
        made = plain_socket(self.family.host if host is None else host, port)
        self.addCleanup(made.close)
        return made

    def serve(self, service: Any) -> Any:
        """Start a service, which is stopped at the end of the test."""
        service.startService()
        self.addCleanup(lambda: self.fired(service.stopService()))
        return service

    def inside(self, namespace: NetworkNamespace) -> None:
        """Enter a namespace until the end of the test."""
        entered = namespace.entered()
        entered.__enter__()
        self.addCleanup(entered.__exit__, None, None, None)

    def wait(self, condition: Callable[[], bool], complaint: Callable[[], object] | str) -> None:
        """Run the reactor until a condition holds, which it must."""
        if not self.ports.run_until(condition):
            self.fail(str(complaint if isinstance(complaint, str) else complaint()))

    def fired(self, deferred: Deferred[_T]) -> _T:
        """Run the reactor until a Deferred fires, and return its result or raise its error."""
        outcome: list[_T | Failure] = []
        deferred.addBoth(outcome.append)
        self.wait(lambda: bool(outcome), "the Deferred never fired")
        [result] = outcome
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def run_for(self, seconds: float) -> None:
        """Run the reactor without looking at anything meanwhile."""
        self.reactor.callLater(seconds, self.reactor.crash)
        self.reactor.run(installSignalHandlers=False)

    def assert_quiet(self, *ports: Any) -> None:
        """Check that reactor and ports rest when there is nothing to do."""
        self.ports.settle()
        turns = sum(port.stats.turns for port in ports)
        spent = time.thread_time()
        self.run_for(QUIET)
        spent = time.thread_time() - spent
        self.assertLessEqual(sum(port.stats.turns for port in ports) - turns, QUIET_TURNS)
        self.assertLess(spent, QUIET * QUIET_SHARE)

    def assert_answers(self, port: Any, asking: socket.socket, payload: bytes = b"still there?") -> None:
        """Check that an echo port answers a plain socket."""
        sent = port.stats.datagrams_sent
        asking.sendto(payload, self.address_of(port))
        self.wait(lambda: port.stats.datagrams_sent > sent, "no answer was sent")
        self.assertEqual(asking.recv(65535), payload)

    def address_of(self, port: Any) -> Address:
        """Return where a port can be reached: on loopback where it is bound to every address."""
        host = port.getHost()
        return self.family.host if host.host == self.family.any_host else host.host, host.port

    def _set_environment(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(lambda: os.environ.pop(name) if before is None else os.environ.__setitem__(name, before))

    def _assert_nothing_logged(self) -> None:
        globalLogPublisher.removeObserver(self.log)
        self.assertEqual(self.log.warnings, [])

    def _stop_all(self) -> None:
        for port in self._open:
            stopping = port.stopListening()
            if stopping is not None:
                self.fired(stopping)


def _ports_of(reactor_name: str) -> OurPorts:
    made: OurPorts = type(f"{reactor_name}Ports", (OurPorts,), {"make_reactor": staticmethod(REACTORS[reactor_name])})()
    return made


def variants(
    namespace: dict[str, Any],
    *,
    reactors: Iterable[str] = tuple(REACTORS),
    backends: Iterable[str] = BACKENDS,
    families: Iterable[Family] = FAMILIES,
) -> Callable[[type[PortCase]], None]:
    """Put a test case for each combination in the place of the class that is decorated.

    Of those on other reactors than the usual one, every second is marked slow: those that stay still meet each reactor
    with each backend and each family.

    Args:
        namespace: ``globals()`` of the test module.
        reactors: The names of the reactors.
        backends: The names of the backends.
        families: The families of addresses.

    Returns:
        A decorator. It leaves None under the class's own name, for a test runner would run it by itself.
    """

    def decorate(case: type[PortCase]) -> None:
        for reactor, (row, backend), (column, family) in product(reactors, enumerate(backends), enumerate(families)):
            name = f"{case.__name__}{backend.title()}{reactor}{family.name}Tests"
            members = {"reactor_name": reactor, "backend": backend, "family": family}
            made = type(name, (case,), {**members, "__module__": case.__module__})
            if reactor != "EPoll" and (row + column + list(REACTORS).index(reactor)) % 2:
                made = pytest.mark.slow(made)
            # trial has looked at the combination that is used most, pytest looks at the others too.
            namespace[name] = made if (reactor, backend) == ("EPoll", BACKENDS[0]) else pytest.mark.heavy(made)

    return decorate
