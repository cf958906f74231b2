"""A server and clients of DTLS on a simulated network, with real Connections or with such that only pretend.

OpenSSL's timers go by the real clock, but nothing needs them here as long as nothing is lost: virtual time passes at
once. Where something is lost on purpose the Connections pretend, or the test says why it takes real time.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.authority import Authority
from tests.dtls.fakes import FakePolicy
from twistedudp import transport
from twistedudp.dtls import DTLSClient, DTLSContext, DTLSEndpoint, DTLSLimits
from twistedudp.testing import Arrival, SimulatedNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.dtls.authority import Credentials
    from twistedudp.address import Address
    from twistedudp.testing import Datagram, SimulatedReactor

__all__ = [
    "Lose",
    "Notes",
    "Stranger",
    "World",
    "authority",
    "client_context",
    "notes",
    "server_context",
    "strange_authority",
]

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"
PORT = 4433
NAME = "server.example"


class Notes(DatagramProtocol):
    """Writes down what it is told, and echoes if asked to."""

    noisy = False

    def __init__(self, *, echoes: bool = False) -> None:
        self.payloads: list[bytes] = []
        self.peers: list[Address] = []
        self.told: list[tuple[Any, ...]] = []
        self.echoes = echoes
        self.fails = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note a payload."""
        self.payloads.append(datagram)
        self.peers.append(addr)
        if self.fails:
            raise RuntimeError("the protocol's own fault")
        if self.echoes and self.transport is not None:
            self.transport.write(datagram, addr)

    def peer_verified(self, addr: Address, certificate_name: str | None) -> None:
        """Note a session."""
        self.told.append(("verified", addr, certificate_name))

    def peer_lost(self, addr: Address, reason: str) -> None:
        """Note the end of one."""
        self.told.append(("lost", addr, reason))

    def session_failed(self, error: Exception) -> None:
        """Note a failure."""
        self.told.append(("failed", error))

    def peer_unreachable(self, peer: Address, reason: Any, quoted: bytes) -> None:
        """Note what the network says."""
        self.told.append(("unreachable", peer, reason.reason, quoted))

    def reasons(self, word: str) -> list[Any]:
        """Return the last part of what was told under a word."""
        return [told[-1] for told in self.told if told[0] == word]


@cache
def authority() -> Authority:
    """Return the authority that everybody trusts."""
    return Authority()


@cache
def strange_authority() -> Authority:
    """Return one that nobody trusts."""
    return Authority("Other CA")


@cache
def server_credentials() -> Credentials:
    """Return the server's."""
    return authority().issue([NAME, SERVER])


@cache
def client_credentials(name: str) -> Credentials:
    """Return a client's."""
    return authority().issue([name])


def server_context(**options: Any) -> DTLSContext:
    """Return a context for the server."""
    return DTLSContext.server(*server_credentials(), **options)


def client_context(name: str = "", **options: Any) -> DTLSContext:
    """Return a context for a client; with a certificate where it has a name."""
    if name:
        options |= client_credentials(name)._asdict()
    return DTLSContext.client(**{"ca": authority().certificate, **options})


class World(SynchronousTestCase):
    """A server at ``SERVER`` and a host for clients at ``CLIENT``."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork()
        self.there = self.network.reactor(SERVER)
        self.here = self.network.reactor(CLIENT)

    def now(self) -> float:
        """Return the virtual time."""
        return self.there.seconds()

    def serve(self, context: Any = None, **options: Any) -> DTLSEndpoint:
        """Serve an echo."""
        limits = DTLSLimits(**options)
        endpoint = DTLSEndpoint(
            Notes(echoes=True), context or server_context(), reactor=self.there, limits=limits, random_bytes=counted()
        )
        transport.listen(self.there, PORT, endpoint, SERVER)
        return endpoint

    def serve_fake(self, **options: Any) -> tuple[DTLSEndpoint, FakePolicy]:
        """Serve an echo with Connections that pretend."""
        policy = FakePolicy(self.now, is_server=True)
        return self.serve(policy, **options), policy

    def client(
        self, context: Any = None, *, name: str = NAME, host: SimulatedReactor | None = None, **options: Any
    ) -> DTLSClient:
        """Return a client of the server."""
        limits = DTLSLimits(**options)
        address = (SERVER, PORT)
        return DTLSClient(host or self.here, address, name, context or client_context(), Notes(), limits=limits)

    def fake_client(self, **options: Any) -> tuple[DTLSClient, FakePolicy]:
        """Return a client with Connections that pretend."""
        policy = FakePolicy(self.now, is_server=False)
        return self.client(policy, **options), policy

    def opened(self, client: DTLSClient) -> DTLSClient:
        """Return a client after it has got its session."""
        waiting = client.open(5.0)
        self.network.advance(1.0)
        self.assertIsNone(self.successResultOf(waiting))
        return client

    def stranger(self, host: SimulatedReactor | None = None) -> Stranger:
        """Return a port that sends what a test wants."""
        stranger = Stranger()
        transport.listen(host or self.here, 0, stranger, CLIENT if host is None else host.addresses[0])
        return stranger

    def datagrams(self, *, to_server: bool) -> list[bytes]:
        """Return what was sent so far in one direction."""
        return [row.payload_sent for row in self.network.trace if (row.destination == (SERVER, PORT)) is to_server]

    def real_time(self, seconds: float, until: Callable[[], bool]) -> None:
        """Let virtual time go with the real clock, by which OpenSSL's timers go (G12), until something is so."""
        end = time.monotonic() + seconds
        last = time.monotonic()
        while not until() and last < end:
            time.sleep(0.002)
            now = time.monotonic()
            self.network.advance(now - last)
            last = now

    def settle(self) -> None:
        """Let everything arrive."""
        self.network.advance(0.2)


class Lose:
    """A link effect: lose what a test chooses.

    Attributes:
        lost: What was lost.
    """

    def __init__(self, chosen: Callable[[bytes], bool]) -> None:
        self.lost: list[bytes] = []
        self._chosen = chosen

    def __call__(self, datagram: Datagram, _now: float, _rng: random.Random, /) -> list[Arrival]:
        """Let a datagram through, or not."""
        if self._chosen(datagram.payload):
            self.lost.append(datagram.payload)
            return []
        return [Arrival(datagram)]


class Stranger(DatagramProtocol):
    """A peer without DTLS."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note it."""
        self.received.append(datagram)

    def send(self, datagram: bytes) -> None:
        """Send to the server."""
        port: Any = self.transport
        port.write(datagram, (SERVER, PORT))

    @property
    def address(self) -> Address:
        """Its own."""
        port: Any = self.transport
        host = port.getHost()
        return host.host, host.port


def notes(owner: Any) -> Notes:
    """Return the protocol of an endpoint or a client."""
    protocol = owner.protocol
    assert isinstance(protocol, Notes)
    return protocol


def counted() -> Any:
    """Return what makes random bytes, each call others, and the same in each run."""
    number = 0

    def random_bytes(size: int) -> bytes:
        nonlocal number
        number += 1
        return number.to_bytes(size, "big")

    return random_bytes
