"""What the tests of the compiled backend stand on: ports without a reactor, beside plain sockets.

Theory of operation: a datagram that is sent on the loopback interface is in the receiver's queue when the system call
returns, or, if the machine is busy, before one that is sent later. So a test sends, lets the port have one turn by
:meth:`MmsgCase.turn`, and looks at what has come back; which datagrams meet in a batch does not depend on chance, and
what is waited for is a datagram that a socket has sent to itself. A plain socket with UDP_GRO gets a run of the port's
as the one buffer that it was on its way through the kernel, and so sees which datagrams shared it.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.contracts.case import BatchPeer, Peer
from tests.contracts.providers import REQUIRE_COMPILED, missing_backend
from twistedudp.transport import _kernel, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twistedudp.address import Address

__all__ = ["KINDS", "Client", "MmsgCase", "Slow", "require_compiled"]

KINDS: tuple[type[Peer], ...] = (Peer, BatchPeer)
"""Protocols that take datagrams one by one, and several at once."""

_PATIENCE = 10.0
"""Seconds to wait for what must come at once."""

_SPACE = 4 * 1024 * 1024
"""Bytes of a client's receive buffer, as far as the kernel grants it."""


def require_compiled() -> None:
    """Leave a test out where the compiled backend is missing; fail where it must be there.

    Raises:
        SkipTest: It was not built.
        AssertionError: It was not built, although the environment demands it.
    """
    reason = missing_backend("mmsg")
    if reason and os.environ.get(REQUIRE_COMPILED, "") not in ("", "0"):
        raise AssertionError(reason)
    if reason:
        raise SkipTest(reason)


class Client:
    """A plain socket.

    Attributes:
        handle: The socket.
        address: What a port calls it.
    """

    def __init__(self, host: str) -> None:
        self.handle = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.handle.settimeout(_PATIENCE)
        self.handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SPACE)
        self.handle.bind((host, 0))
        self.address: Address = self.handle.getsockname()[:2]

    def send(self, payload: bytes, port: Any, host: str | None = None) -> None:
        """Send a datagram to a port, at the client's own address or another."""
        self.handle.sendto(payload, (host or self.address[0], port.getHost().port))

    def send_together(self, payload: bytes, size: int, port: Any) -> None:
        """Send a buffer that the kernel cuts into datagrams of a size."""
        self.handle.sendmsg([payload], [_kernel.segment_option(size)], 0, (self.address[0], port.getHost().port))

    def take_buffers(self) -> None:
        """Let :meth:`buffers` tell what was sent together."""
        self.handle.setsockopt(socket.IPPROTO_UDP, _kernel.UDP_GRO, 1)

    def received(self) -> list[bytes]:
        """Return the datagrams that wait."""
        return [payload for payload, _ in self.received_from()]

    def received_from(self) -> list[tuple[bytes, Address]]:
        """Return the datagrams that wait, and whence they came."""
        self._mark()
        found: list[tuple[bytes, Address]] = []
        while True:
            payload, sender = self.handle.recvfrom(65536)
            if sender[:2] == self.address:
                return found
            found.append((payload, sender[:2]))

    def buffers(self) -> list[list[bytes]]:
        """Return the datagrams that wait, those that came in one buffer as one list."""
        self._mark()
        found: list[list[bytes]] = []
        while True:
            payload, ancillary, _, sender = self.handle.recvmsg(65536, 64)
            if sender[:2] == self.address:
                return found
            size = len(payload) or 1
            for level, kind, data in ancillary:
                if (level, kind) == (socket.IPPROTO_UDP, _kernel.UDP_GRO):
                    size = _kernel.parse_segment_size(data)
            found.append([payload[at : at + size] for at in range(0, len(payload), size)] or [b""])

    def _mark(self) -> None:
        """Send a datagram to itself, before which all that was sent to it has arrived."""
        self.handle.sendto(b"", self.address)


class Slow:
    """Takes its time for each datagram, and notes them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, peer: Peer, datagram: bytes, addr: Address) -> None:
        """Be busy, and answer."""
        ends = time.perf_counter() + self.seconds
        while time.perf_counter() < ends:
            pass
        peer.port.write(datagram, addr)


class MmsgCase(SynchronousTestCase):
    """Ports over the compiled backend, on a reactor that only takes notes."""

    def setUp(self) -> None:
        """Make the reactor."""
        require_compiled()
        self.reactor: Any = MemoryReactorClock()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.marking = self.client()

    def listen(self, protocol: Any, interface: str = "127.0.0.1", **options: Any) -> Any:
        """Listen until the test ends."""
        options.setdefault("backend", "mmsg")
        port: Any = listen(self.reactor, 0, protocol, interface, **options)
        self.addCleanup(port.connectionLost)
        return port

    def client(self, host: str = "127.0.0.1") -> Client:
        """Return a client that is closed when the test ends."""
        made = Client(host)
        self.addCleanup(made.handle.close)
        return made

    def clients(self, count: int) -> list[Client]:
        """Return several of them."""
        return [self.client() for _ in range(count)]

    def turn(self, port: Any) -> None:
        """Let a port have one read turn, as the reactor does when there is something to read."""
        self.marking.received()
        port.doRead()

    def serve(self, *ports: Any) -> None:
        """Let ports have turns and timers until nothing waits for them, as a reactor does.

        A turn may end at any datagram, for it is bounded by time, and the machine may be busy.
        """
        self.marking.received()
        for _ in range(10_000):
            readable = [port for port in ports if port.fileno() >= 0 and select.select([port.fileno()], [], [], 0)[0]]
            for port in readable:
                port.doRead()
            if self.reactor.getDelayedCalls():
                self.tick()
            elif not readable:
                return
        self.fail("a port that is never done")

    def tick(self) -> None:
        """Run the timer that is due first, and no other, as a turn of the reactor does."""
        call = min(self.reactor.getDelayedCalls(), key=lambda each: each.getTime())
        self.reactor.calls.remove(call)
        call.called = 1
        call.func(*call.args, **call.kw)

    def answer(
        self,
        kind: type[Peer],
        clients: Sequence[Client],
        writes: Callable[[Any, list[Address]], object],
        **options: Any,
    ) -> Any:
        """Let each client ask once, have all written while the last of them is being delivered, and return the port.

        On a machine that is busy a turn may end in the midst of this; then it is done again, with another port.

        Args:
            kind: What kind of protocol is to write.
            clients: Eight at most, for that is what a port reads at first.
            writes: Called with the port and the addresses of the clients, as the port gave them.
            options: For :func:`~twistedudp.transport.listen`.
        """

        def on_datagram(peer: Peer, *_: object) -> None:
            if len(peer.received) == len(clients):
                writes(peer.port, peer.peers)

        for _ in range(5):
            protocol = kind(on_datagram)
            port = self.listen(protocol, **options)
            for client in clients:
                client.send(b"go", port)
            self.turn(port)
            if len(protocol.received) == len(clients):
                break
            port.connectionLost()
        self.assertEqual([client.address for client in clients], protocol.peers)
        return port

    def write_all(self, clients: Sequence[Client], plan: Iterable[tuple[int, bytes]], kind: type[Peer] = Peer) -> Any:
        """Have a plan of answers written, each to the client of that index, and return the port."""

        def writes(port: Any, addresses: list[Address]) -> None:
            for index, payload in plan:
                port.write(payload, addresses[index])

        return self.answer(kind, clients, writes)
