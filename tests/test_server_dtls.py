"""A server over DTLS: each session is a peer of its own, with the name in its certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.secure import Counter, SecureTestCase, world
from tests.simulation import SERVER, SimulatedTestCase
from twistedudp import _msgpack
from twistedudp.address import SessionAddress
from twistedudp.dtls import DTLSContext
from twistedudp.errors import DTLSHandshakeFailed, LocalError
from twistedudp.messages import Response
from twistedudp.methods import CurrentPeer
from twistedudp.protocol import RPCServerProtocol
from twistedudp.server import UDPServerService

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address

ADDRESS = ("192.0.2.9", 4000)
OTHER = ("192.0.2.9", 4001)


class FakeSessions:
    """A transport with sessions, which keeps what is written to which of them.

    Attributes:
        numbers: The sessions that are open, by address.
        written: What was written, with the number of the session.
    """

    payload_limit = 1163
    proves_addresses = True

    def __init__(self, protocol: Any) -> None:
        self.numbers: dict[Address, int] = {}
        self.written: list[tuple[object, int]] = []
        self._next = 1
        self._protocol = protocol
        self._protocol.makeConnection(self)

    def session_number(self, addr: Address) -> int | None:
        """Return the number of the session with an address."""
        return self.numbers.get(addr)

    def opened(self, addr: Address, name: str | None) -> None:
        """Open a session, in the place of one that is open; the end of that one is told last."""
        replaced = addr in self.numbers
        self.numbers[addr] = self._next
        self._next += 1
        self._protocol.peer_verified(addr, name)
        if replaced:
            self._protocol.peer_lost(addr, "replaced")

    def lost(self, addr: Address) -> None:
        """End a session."""
        del self.numbers[addr]
        self._protocol.peer_lost(addr, "closed")

    def write(self, payload: bytes, addr: Address) -> None:
        """Send a datagram."""
        message = _msgpack.decode_untrusted(payload)
        assert isinstance(message, Response)
        self.written.append((message.error or message.result, self.numbers[addr]))

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Send several."""
        for payload, addr in datagrams:
            self.write(payload, addr)
        return []


class SessionTests(SynchronousTestCase):
    """The rpc server's protocol on a transport with sessions."""

    def setUp(self) -> None:
        """Serve a counter."""
        self.counter = Counter()
        self.protocol = RPCServerProtocol(self.counter, clock=lambda: 0.0)
        self.sessions = FakeSessions(self.protocol)

    def ask(self, addr: Address, method: str, *params: object, msgid: int = 7) -> None:
        """Have a request arrive."""
        self.protocol.datagramReceived(_msgpack.encode_request(msgid, method, params), addr)

    def test_repeated(self) -> None:
        """A request that is repeated in its session does not run again."""
        self.sessions.opened(ADDRESS, None)
        self.ask(ADDRESS, "add", 1)
        self.ask(ADDRESS, "add", 1)
        self.assertEqual((self.counter.total, self.sessions.written), (1, [(1, 1), (1, 1)]))

    def test_new_session(self) -> None:
        """The same bytes in another session on the same address are another request: no kept response is for it."""
        self.sessions.opened(ADDRESS, "alice")
        self.ask(ADDRESS, "who")
        self.sessions.opened(ADDRESS, "mallory")
        self.ask(ADDRESS, "who")
        self.assertEqual(self.sessions.written, [([*ADDRESS, "alice"], 1), ([*ADDRESS, "mallory"], 2)])
        self.sessions.lost(ADDRESS)
        self.sessions.opened(ADDRESS, None)
        self.ask(ADDRESS, "who")
        self.assertEqual(self.sessions.written[2:], [([*ADDRESS, None], 3)])

    def test_late_result(self) -> None:
        """A result is sent in the session that asked for it, and in no later one of the same address."""
        self.sessions.opened(ADDRESS, "alice")
        self.ask(ADDRESS, "wait")
        self.sessions.opened(ADDRESS, "mallory")
        self.counter.waiting[0].callback("alice's secret")
        self.assertEqual(self.sessions.written, [])
        self.ask(ADDRESS, "add", 1)
        self.assertEqual(self.sessions.written, [(1, 2)])

    def test_ended(self) -> None:
        """What is running for a session that has ended is answered nowhere."""
        self.sessions.opened(ADDRESS, "alice")
        self.ask(ADDRESS, "wait")
        self.sessions.lost(ADDRESS)
        self.counter.waiting[0].callback("late")
        self.assertEqual(self.sessions.written, [])

    def test_batch(self) -> None:
        """Of a batch, each request is its own session's."""
        self.sessions.opened(ADDRESS, "alice")
        self.sessions.opened(OTHER, "bob")
        request = _msgpack.encode_request(1, "who", ())
        self.protocol.datagrams_received([(request, ADDRESS), (request, OTHER), (request, ADDRESS)])
        self.assertEqual(
            self.sessions.written,
            [([*ADDRESS, "alice"], 1), ([*OTHER, "bob"], 2), ([*ADDRESS, "alice"], 1)],
        )

    def test_limit(self) -> None:
        """What does not fit a record is answered with the error that says so."""
        self.sessions.opened(ADDRESS, None)
        self.ask(ADDRESS, "echo", "x" * 1200)
        ((error, _),) = self.sessions.written
        assert isinstance(error, dict)
        self.assertEqual(error["code"], "result_too_large")


class SessionAddressTests(SynchronousTestCase):
    """The address of a peer within one session."""

    def test_equal_to_itself(self) -> None:
        """It is equal to itself alone, in comparisons, in dicts and beside plain addresses."""
        one, two = SessionAddress(ADDRESS), SessionAddress(ADDRESS)
        self.assertEqual(one, one)
        self.assertNotEqual(one, two)
        self.assertNotEqual(one, ADDRESS)
        self.assertNotEqual(ADDRESS, one)
        self.assertEqual(len({one: 1, two: 2, ADDRESS: 3}), 3)
        self.assertTrue(one in (two, one))
        self.assertFalse(one in (two, ADDRESS))

    def test_as_an_address(self) -> None:
        """It is a host and a port like any other."""
        host, port = SessionAddress(ADDRESS)
        self.assertEqual((host, port), ADDRESS)


class Upper(DatagramProtocol):
    """A protocol that knows nothing of DTLS."""

    noisy = False

    def __init__(self) -> None:
        self.senders: list[Address] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Shout back."""
        self.senders.append(addr)
        assert self.transport is not None
        self.transport.write(datagram.upper(), addr)


class ServiceTests(SecureTestCase):
    """``UDPServerService(dtls=...)``."""

    def test_any_protocol(self) -> None:
        """A protocol that knows nothing of DTLS is served unchanged; its peers are plain addresses to it."""
        upper = Upper()
        server = self.secure_server(upper)
        self.assertIs(server.protocol, upper)
        client = self.secure_client()
        made = client.echo_bytes(b"LOUD")
        self.assertEqual(self.result(made), b"LOUD")
        self.assertIs(type(upper.senders[0]), tuple)

    def test_names(self) -> None:
        """Methods learn the verified name of who calls; nothing of it where certificates are not asked for."""
        self.secure_server(Counter(), context=world().server_context(client_ca=world().authority.certificate))
        alice = self.secure_client(dtls=world().alice_context())
        self.assertEqual(self.result(alice.call("who"))[2], "alice")

    def test_no_name(self) -> None:
        """Where the server asks for no certificate, there is no name, though the client would have one."""
        self.secure_server(Counter())
        alice = self.secure_client(dtls=world().alice_context())
        self.assertEqual(self.result(alice.call("who"))[2], None)

    def test_allowed(self) -> None:
        """Who is not on the list is refused, with a certificate of the right authority too."""
        authority = world().authority
        server = self.secure_server(
            Counter(), context=world().server_context(client_ca=authority.certificate, allow=["alice"])
        )
        self.assertEqual(self.result(self.secure_client(dtls=world().alice_context()).call("add", 1)), 1)
        mallory = authority.issue(["mallory"], common_name="mallory")
        context = world().client_context(certificate=mallory.certificate, key=mallory.key)
        call = self.secure_client(dtls=context).call("add", 1)
        self.advance(0.5)
        self.error(call, DTLSHandshakeFailed)
        assert server.dtls_stats is not None
        self.assertEqual(server.dtls_stats.failed["not_allowed"], 2)  # the client tries twice

    def test_started_again(self) -> None:
        """A service that is started again has sessions anew, and what it has run is remembered all the same."""
        counter = Counter()
        server = self.secure_server(counter)
        client = self.secure_client()
        self.assertEqual(self.result(client.call("add", 1)), 1)
        server.stopService()
        self.advance()
        server.startService()
        self.assertEqual(self.result(client.call("add", 1)), 2)
        assert server.dtls_stats is not None
        self.assertEqual(server.dtls_stats.opened, 1)

    def test_discoverable(self) -> None:
        """A server with DTLS is not discoverable: what is asked and answered there is in the clear."""
        with self.assertRaisesRegex(LocalError, "exclude each other"):
            UDPServerService(self.there, 0, Counter(), dtls=world().server_context(), discoverable="x")

    def test_reload(self) -> None:
        """A context that is reloaded changes nothing for sessions that are open."""
        context = world().server_context()
        self.secure_server(Counter(), context=context)
        client = self.secure_client()
        self.assertEqual(self.result(client.call("add", 1)), 1)
        context.reload()
        self.assertEqual(self.result(client.call("add", 1)), 2)
        self.assertEqual(self.result(self.secure_client().call("add", 1)), 3)


class PlainTests(SimulatedTestCase):
    """What stays as it was without DTLS."""

    def test_no_name(self) -> None:
        """A peer has no certificate's name."""
        self.serve_methods(Counter())
        host, _, name = self.result(self.client().call("who"))
        self.assertEqual((host.startswith("192.0.2"), name), (True, None))
        self.assertEqual(CurrentPeer(SERVER, 1), CurrentPeer(SERVER, 1, None))

    def test_wrong_role(self) -> None:
        """A client's context serves nobody, and a server's calls nobody."""
        server = UDPServerService(self.there, 0, Counter(), dtls=world().client_context())
        self.assertRaises(LocalError, server.startService)
        client = self.client(dtls=world().server_context())
        call = client.call("add", 1)
        self.advance()
        self.error(call, LocalError)
        self.assertIsInstance(world().server_context(), DTLSContext)
