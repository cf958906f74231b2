"""What the tests of the client and of the rpc server share: two simulated hosts, and peers that follow a script.

Theory of operation: everything runs on a :class:`~twistedudp.testing.SimulatedNetwork`, so no test opens a socket or
waits. Each test ends with its services stopped, an empty clock and an empty log, which the base class checks.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import ILogObserver, LogLevel, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twistedudp import _msgpack
from twistedudp.client import UDPClientService
from twistedudp.protocol import RPCServerProtocol
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred
    from twisted.logger import LogEvent

    from twistedudp.address import Address
    from twistedudp.messages import Message, Request
    from twistedudp.methods import RPCMethods
    from twistedudp.testing import SimulatedReactor
    from twistedudp.testing._port import SimulatedPort

SERVER = "192.0.2.1"
SERVER6 = "2001:db8::1"
CLIENT = "192.0.2.2"
CLIENT6 = "2001:db8::2"
PORT = 10000

DELAY = 0.001
"""Seconds that a datagram takes on the simulated network."""


class NoJitter(random.Random):
    """Random message ids, but no jitter, so that a test can say when a retransmission is due."""

    def random(self) -> float:
        """Return the smallest possible jitter."""
        return 0.0


class Peer(DatagramProtocol):
    """A server that keeps what it gets and answers when the test says so.

    Attributes:
        received: The datagrams with where they came from.
    """

    noisy = False

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Address]] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep a datagram."""
        self.received.append((datagram, addr))

    @property
    def messages(self) -> list[Message]:
        """What was received, decoded."""
        return [_msgpack.decode_untrusted(datagram) for datagram, _ in self.received]

    def request(self, number: int = -1) -> Request:
        """Return one of the requests received."""
        message = self.messages[number]
        assert hasattr(message, "msgid")
        return message  # type: ignore[return-value]  # a test that got anything else fails at the next line

    def send(self, payload: bytes, number: int = -1) -> None:
        """Send bytes to where a datagram came from."""
        assert self.transport is not None
        self.transport.write(payload, self.received[number][1])

    def respond(self, result: object, number: int = -1, error: object = None) -> None:
        """Answer one of the requests received."""
        self.send(_msgpack.encode_response(self.request(number).msgid, error, result), number)


class Echo(DatagramProtocol):
    """An RFC 862 server without any scruples."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send it back."""
        assert self.transport is not None
        self.transport.write(datagram, addr)


@implementer(ILogObserver)
class LogCollector:
    """Keeps what is logged.

    Attributes:
        events: The events.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        """Keep an event."""
        self.events.append(event)

    @property
    def warnings(self) -> list[str]:
        """The warnings and errors, as text with their tracebacks."""
        return [eventAsText(event) for event in self.events if event["log_level"] >= LogLevel.warn]


class SimulatedTestCase(SynchronousTestCase):
    """A server host and a client host.

    Attributes:
        network: The network; each datagram takes ``DELAY`` seconds.
        there: The server's host.
        here: The client's host.
        log: What was logged during the test.
    """

    names: Mapping[str, tuple[str, ...]] = {}

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(delay=DELAY, names=self.names)
        self.there = self.network.reactor(SERVER, SERVER6)
        self.here = self.network.reactor(CLIENT, CLIENT6)
        self.log = LogCollector()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        self.addCleanup(self.assert_all_quiet)

    def assert_all_quiet(self) -> None:
        """Check that nothing is left but what is under way and closings: no delayed call, no logged error."""
        self.network.advance(100 * DELAY)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertEqual([failure.getTraceback() for failure in self.flushLoggedErrors()], [])

    def serve(
        self,
        protocol: DatagramProtocol,
        port: int = PORT,
        interface: str = "::",
        *,
        on: SimulatedReactor | None = None,
    ) -> SimulatedPort:
        """Serve a protocol until the end of the test."""
        listening = (on or self.there).listenUDP(port, protocol, interface, 65535)
        self.addCleanup(listening.stopListening)
        return listening

    def peer(self, port: int = PORT, interface: str = "::", *, on: SimulatedReactor | None = None) -> Peer:
        """Serve a scripted peer until the end of the test."""
        peer = Peer()
        self.serve(peer, port, interface, on=on)
        return peer

    def serve_methods(self, methods: RPCMethods, **options: Any) -> RPCServerProtocol:
        """Serve rpc methods until the end of the test."""
        protocol = RPCServerProtocol(methods, clock=self.network.clock.seconds, **options)
        self.serve(protocol)
        return protocol

    def client(
        self, host: str = SERVER, port: int = PORT, *, reactor: Any = None, start: bool = True, **options: Any
    ) -> UDPClientService:
        """Return a client, by default a started one without jitter, that is stopped at the end of the test."""
        options.setdefault("rng", NoJitter(1))
        client = UDPClientService(self.here if reactor is None else reactor, host, port, **options)
        self.addCleanup(client.stopService)
        if start:
            client.startService()
        return client

    def advance(self, seconds: float = 10 * DELAY) -> None:
        """Let virtual time pass; the default is enough for an answer to come back."""
        self.network.advance(seconds)

    def result(self, deferred: Deferred[Any]) -> Any:
        """Run the network until a Deferred fires, and return its result or raise its error."""
        return self.network.run_until(deferred)

    def error(self, deferred: Deferred[Any], kind: type[BaseException]) -> Any:
        """Return the error that a Deferred has failed with."""
        return self.failureResultOf(deferred, kind).value

    def sent(self, *, to: Address | None = None) -> list[tuple[float, bytes]]:
        """Return when the client's host sent what."""
        return [
            (record.time, record.payload)
            for record in self.network.trace.select(destination=to)
            if record.source[0] in (CLIENT, CLIENT6, "127.0.0.1", "::1") and record.source[1] != PORT
        ]

    def ports_bound(self) -> list[int]:
        """Return the numbers of the ports that are bound on the client's host, the server's port apart."""
        return [number for number in self.here.host._bound if number != PORT]
