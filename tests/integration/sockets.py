"""Plain sockets and a real reactor: what the integration tests of client and rpc server share.

Theory of operation: a datagram that is sent on loopback is in the receiver's queue when ``sendto`` returns. So a plain
socket can be used from the reactor's own thread without waiting: what the other side has sent is there or is not. What
has to happen inside of the reactor is waited for turn by turn, without sleeping; trial's own timeout is the limit.
"""

from __future__ import annotations

import resource
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.simulation import LogCollector
from twistedudp.client import UDPClientService
from twistedudp.server import UDPServerService
from twistedudp.testing._resolver import SimulatedResolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.protocol import DatagramProtocol

    from twistedudp.address import Address
    from twistedudp.methods import RPCMethods

LIMIT = 65535
PATIENCE = 20.0
"""Seconds after which a blocking socket gives up; far more than anything takes on a busy machine."""


def plain_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a bound socket as any program would make it, which gives up after a while."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, port))
    made.settimeout(PATIENCE)
    return made


def address_of(bound: socket.socket) -> Address:
    """Return the address that a socket is bound to."""
    host, port = bound.getsockname()[:2]
    return host, port


def waiting_in(bound: socket.socket) -> list[bytes]:
    """Return the datagrams that wait in a socket, without waiting for more."""
    found = []
    bound.settimeout(0)
    try:
        while True:
            found.append(bound.recv(LIMIT))
    except BlockingIOError:
        return found
    finally:
        bound.settimeout(PATIENCE)


def has_ipv6_loopback() -> bool:
    """Tell whether this machine has ::1."""
    try:
        plain_socket("::1").close()
    except OSError:
        return False
    return True


def more_open_files(wanted: int) -> Callable[[], None]:
    """Allow this process so many open files, if it may, and return what takes that back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class RealTestCase(TestCase):
    """Servers and clients on the real reactor, stopped at the end of the test, and nothing in the log."""

    timeout = 60

    def setUp(self) -> None:
        """Learn the reactor."""
        from twisted.internet import reactor  # noqa: PLC0415  # not before the runner has chosen it

        self.reactor: Any = reactor
        self.log = LogCollector()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(self.assert_nothing_logged)

    def assert_nothing_logged(self) -> None:
        """Check that there was no warning and no error."""
        globalLogPublisher.removeObserver(self.log)
        self.assertEqual(self.log.warnings, [])

    def server(self, serves: DatagramProtocol | RPCMethods, interface: str = "127.0.0.1") -> UDPServerService:
        """Return a running server on a free port."""
        server = UDPServerService(self.reactor, 0, serves, interface)
        server.startService()
        self.addCleanup(server.stopService)
        return server

    def client(self, host: str, port: int, **options: Any) -> UDPClientService:
        """Return a running client."""
        client = UDPClientService(self.reactor, host, port, **options)
        client.startService()
        self.addCleanup(client.stopService)
        return client

    def client_of(self, server: UDPServerService, **options: Any) -> UDPClientService:
        """Return a running client of a server."""
        assert server.address is not None
        return self.client(*server.address, **options)

    def plain(self, host: str = "127.0.0.1") -> socket.socket:
        """Return a plain socket that is closed at the end of the test."""
        made = plain_socket(host)
        self.addCleanup(made.close)
        return made

    async def turn(self) -> None:
        """Let the reactor turn once; then what was sent in the callback of a request has left."""
        await deferLater(self.reactor, 0)

    def names(self, table: dict[str, tuple[str, ...]]) -> None:
        """Let host names resolve as in a table, whatever this machine's own names are."""
        resolver = SimulatedResolver(self.reactor, lambda name: table.get(name, ()), lambda: 0.0)
        self.addCleanup(self.reactor.installNameResolver, self.reactor.installNameResolver(resolver))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor turn until something has happened."""
        while not condition():
            await self.turn()
