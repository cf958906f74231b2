"""What the tests of client and server over DTLS share: certificates, and two simulated hosts that speak it.

Theory of operation: OpenSSL is real and goes by the real clock; the network is simulated. As long as nothing of a
handshake is lost, none of OpenSSL's timers matters, and a test can say what happens when.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from tests.dtls.authority import Authority
from tests.simulation import PORT, SERVER, SimulatedTestCase
from twistedudp.dtls import DTLSContext
from twistedudp.methods import RPCMethods, current_peer, method
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from tests.dtls.authority import Credentials
    from twistedudp.client import UDPClientService
    from twistedudp.testing import SimulatedReactor

__all__ = ["Counter", "SecureTestCase", "World", "world"]


class World(NamedTuple):
    """An authority, another one, and certificates of the first."""

    authority: Authority
    other: Authority
    server: Credentials
    alice: Credentials

    def server_context(self, **options: Any) -> DTLSContext:
        """Return a server's context."""
        return DTLSContext.server(self.server.certificate, self.server.key, **options)

    def client_context(self, **options: Any) -> DTLSContext:
        """Return the context of a client that trusts the authority."""
        return DTLSContext.client(**{"ca": self.authority.certificate, **options})

    def alice_context(self) -> DTLSContext:
        """Return the context of a client that has a certificate."""
        return self.client_context(certificate=self.alice.certificate, key=self.alice.key)


@cache
def world() -> World:
    """Return the certificates, made once."""
    authority = Authority()
    hosts = ["server.example", "localhost", "127.0.0.1", "::1", SERVER]
    return World(
        authority,
        Authority("Another CA"),
        authority.issue(hosts, common_name="server.example"),
        authority.issue(["alice"], common_name="alice"),
    )


class Counter(RPCMethods):
    """Something that must not be run twice, and something that may be."""

    def __init__(self) -> None:
        self.total = 0
        self.looked = 0
        self.waiting: list[Deferred[Any]] = []

    @method
    def add(self, number: int) -> int:
        """Add a number."""
        self.total += number
        return self.total

    @method(idempotent=True)
    def look(self) -> int:
        """Return the total."""
        self.looked += 1
        return self.total

    @method
    def who(self) -> list[str | int | None]:
        """Return who asks."""
        peer = current_peer()
        return [peer.host, peer.port, peer.certificate_name]

    @method
    def wait(self) -> Deferred[object]:
        """Return a Deferred that the test fires."""
        self.waiting.append(Deferred())
        return self.waiting[-1]


class SecureTestCase(SimulatedTestCase):
    """A server and clients over DTLS."""

    def secure_server(
        self, serves: Any, *, on: SimulatedReactor | None = None, context: DTLSContext | None = None, **options: Any
    ) -> UDPServerService:
        """Serve something until the end of the test."""
        reactor = on or self.there
        dtls = context or world().server_context()
        server = UDPServerService(reactor, PORT, serves, "::", dtls=dtls, **options)
        server.startService()

        def stop() -> None:
            if not reactor.crashed:
                server.stopService()

        self.addCleanup(stop)
        return server

    def secure_client(self, host: str = SERVER, **options: Any) -> UDPClientService:
        """Return a running client that trusts the authority."""
        options.setdefault("dtls", world().client_context())
        return self.client(host, **options)
