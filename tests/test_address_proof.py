"""Clients and servers that want addresses proven, on the simulated network: nobody notices, and methods run once."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults

from tests.simulation import CLIENT, CLIENT6, DELAY, PORT, SERVER, SERVER6, Peer, SimulatedTestCase
from twistedudp import RPCMethods, UDPServerService, errors, method
from twistedudp._address_tokens import read_token_key
from twistedudp._msgpack import encode_notification, encode_request
from twistedudp.core._amplification import ALLOWANCE, FACTOR
from twistedudp.impairment import Duplicate, Loss, Reorder
from twistedudp.messages import Response
from twistedudp.protocol import RPCServerProtocol

if TYPE_CHECKING:
    from twistedudp.testing import SimulatedReactor

KEY = bytes(range(32))
HOUR = 3600.0


class Books(RPCMethods):
    """Methods whose results are larger than what they are asked with."""

    def __init__(self) -> None:
        self.runs: Counter[object] = Counter()
        self.waiting: list[Deferred[str]] = []

    @method
    def read(self, number: int) -> str:
        """Return a page."""
        self.runs[number] += 1
        return f"{number}: " + "word " * 100

    @method(idempotent=True)
    def look(self, number: int) -> str:
        """Return a page that one may ask for twice."""
        return self.read(number)

    @method
    def wait(self, number: int) -> Deferred[str]:
        """Return a page when the test says so."""
        self.runs[number] += 1
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @method
    def count(self, number: int) -> int:
        """Return what is as short as the request."""
        self.runs[number] += 1
        return number

    @method
    def refuse(self) -> None:
        """Fail with more words than it was asked with."""
        raise errors.MethodError("closed", "the library is closed on Sundays and on all holidays")


class AddressProofCase(SimulatedTestCase):
    """A server on an address that is no loopback."""

    def setUp(self) -> None:
        """Start it with the defaults, but for its key: a random one would make runs differ."""
        super().setUp()
        self.books = Books()
        self.service = self.start()

    def start(self, on: SimulatedReactor | None = None, interface: str = "::", **options: Any) -> UDPServerService:
        """Start a server until the end of the test."""
        options.setdefault("token_key", KEY)
        service = UDPServerService(on or self.there, PORT, self.books, interface, **options)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def stats(self, service: UDPServerService | None = None) -> Any:
        """Return a server's counters."""
        protocol: Any = (service or self.service).protocol
        return protocol.stats

    def plain(self, host: str = "", port: int = 0) -> tuple[Peer, Any]:
        """Return somebody who speaks for himself, and what he speaks with."""
        peer = Peer()
        listening = self.here.listenUDP(port, peer, host or "")
        self.addCleanup(listening.stopListening)
        return peer, listening


class ClientTests(AddressProofCase):
    """Our own client."""

    def test_unnoticed(self) -> None:
        """The caller gets his result after two round trips; the method ran once; later calls take one."""
        client = self.client()
        started = self.network.clock.seconds()
        self.assertEqual(self.result(client.call("read", 1)), "1: " + "word " * 100)
        self.assertAlmostEqual(self.network.clock.seconds() - started, 4 * DELAY)
        self.assertEqual(self.result(client.call("read", 2)), "2: " + "word " * 100)
        self.assertAlmostEqual(self.network.clock.seconds() - started, 6 * DELAY)
        self.assertEqual(self.books.runs, {1: 1, 2: 1})
        stats: Any = client.stats
        self.assertEqual((stats.unproven, stats.retransmitted, stats.transmitted), (1, 0, 4))
        server = self.stats()
        self.assertEqual((server.requests, server.repeated, server.proofs, server.withheld), (2, 1, 1, 0))

    def test_small_ones(self) -> None:
        """What is no larger than three times its request needs no proof."""
        client = self.client()
        for number in range(50):
            self.assertEqual(self.result(client.call("count", number)), number)
        self.assertEqual(self.stats().errors, {})

    def test_other_kinds(self) -> None:
        """Errors, idempotent calls, the list of methods and echoes come through as well."""
        client = self.client(host=SERVER6)
        error = self.failure(client.call("refuse"))
        self.assertEqual(error.code, "closed")
        self.assertEqual(self.failure(client.call("nothing")).code, "unknown_method")
        self.assertEqual(self.result(client.call("look", 5, idempotent=True))[:2], "5:")
        self.assertIn("read", {served["name"] for served in self.result(client.call("rpc.methods"))})
        self.assertEqual(self.result(client.echo(["hello"] * 20)), ["hello"] * 20)
        self.assertEqual((self.books.runs[5], self.stats().proofs), (1, 1))

    def failure(self, deferred: Deferred[Any]) -> Any:
        """Run the network until a Deferred fails."""
        self.advance(1.0)
        return self.error(deferred, errors.ErrorReplyReceived)

    def test_idempotent_is_kept(self) -> None:
        """The method of an idempotent call runs once too, as the response was kept for the proof."""
        self.assertEqual(self.result(self.client().call("look", 5, idempotent=True))[:2], "5:")
        self.assertEqual(self.books.runs, {5: 1})

    def test_slow_method(self) -> None:
        """The proof is asked for when the response is there, however long that took."""
        client = self.client(timeout=10.0)
        call = client.call("wait", 1)
        self.advance(5.0)
        self.books.waiting[0].callback("x" * 500)
        self.assertEqual(self.result(call), "x" * 500)
        self.assertEqual(self.books.runs, {1: 1})

    def test_a_window_at_once(self) -> None:
        """Of several calls at once one proves the address; all are answered one round trip later than without."""
        started = self.network.clock.seconds()
        client = self.client()
        self.result(gatherResults([client.call("read", number) for number in range(4)]))
        self.assertAlmostEqual(self.network.clock.seconds() - started, 4 * DELAY)
        stats: Any = client.stats
        self.assertEqual((stats.retransmitted, set(self.books.runs.values())), (0, {1}))

    def test_many_at_once(self) -> None:
        """Of many calls at once all are answered, and ran once, though for some it takes a try more."""
        client = self.client(window=64)
        results = self.result(gatherResults([client.call("read", number) for number in range(64)]))
        self.assertEqual(len(results), 64)
        self.assertEqual(set(self.books.runs.values()), {1})

    def test_again_after_an_hour(self) -> None:
        """After an hour the address is proven again, and nobody notices that either."""
        client = self.client()
        for number in range(4):
            self.result(client.call("read", number))
            self.advance(HOUR / 2 + 1.0)
        self.assertEqual((self.stats().proofs, self.books.runs), (2, {0: 1, 1: 1, 2: 1, 3: 1}))

    def test_server_forgot(self) -> None:
        """A server that was started again has the client prove its address again."""
        client = self.client()
        self.result(client.call("read", 1))
        self.result(self.service.stopService() or Deferred())
        self.service.startService()
        again = self.start_again()
        self.assertEqual(self.result(client.call("read", 2))[:2], "2:")
        self.assertEqual(self.stats(again).proofs, 1)

    def start_again(self) -> UDPServerService:
        """Stop the server and start another one."""
        self.result(self.service.stopService() or Deferred())
        return self.start()

    def test_key_changes_in_a_call(self) -> None:
        """The hour, and with it the key, changes between the token and its proof at any place: no call fails."""
        for step in range(-8, 9):
            self.network.advance(2 * HOUR - self.network.clock.seconds() % HOUR - 0.02 + step * DELAY / 2)
            service = self.start(self.network.reactor(f"192.0.2.{50 + step}", f"2001:db8:50::{50 + step}"))
            client = self.client(host=f"192.0.2.{50 + step}")
            self.advance(0.016)
            number = 100 + step
            self.assertTrue(self.result(client.call("read", number)).startswith(f"{number}: "))
            self.assertEqual((self.stats(service).proofs, self.stats(service).rejected), (1, {}))
        self.assertEqual(set(self.books.runs.values()), {1})


class BadNetworkTests(AddressProofCase):
    """The exchange while datagrams are lost, doubled and overtaken, 30 % of each, each way."""

    def test_answered_once(self) -> None:
        """Of clients that all have to prove themselves every call is answered within its deadline, and ran once."""
        clients = 40
        deferreds = []
        for number in range(clients):
            host = self.network.reactor(f"198.51.100.{number + 1}")
            for source, destination in ((host, self.there), (self.there, host)):
                link = self.network.link(source, destination)
                for effect in (Loss(0.3), Duplicate(0.3), Reorder(0.3, 0.05)):
                    link.add(effect)
            client = self.client(reactor=host, timeout=60.0)
            deferreds += [client.call("read", 10 * number + call) for call in range(5)]
        results = self.result(gatherResults(deferreds))
        self.assertEqual(len(results), 5 * clients)
        self.assertEqual(set(self.books.runs.values()), {1})
        self.assertEqual(len(self.books.runs), 5 * clients)
        stats = self.stats()
        self.assertGreaterEqual(stats.proofs, clients)
        self.assertEqual(stats.rejected, {})


class ServerTests(AddressProofCase):
    """What a server takes for a proof, and when it wants one."""

    def token(self, peer: Peer, port: Any, msgid: int = 1, server: str = SERVER) -> bytes:
        """Ask for something large, and return the token that came instead."""
        port.write(encode_request(msgid, "read", [msgid]), (server, PORT))
        self.advance()
        response = peer.messages[-1]
        assert isinstance(response, Response)
        error: Any = response.error
        self.assertEqual(error["code"], "unproven_address")
        token: bytes = error["data"]
        return token

    def prove(self, port: Any, token: bytes, server: str = SERVER) -> None:
        """Send a proof."""
        port.write(encode_notification("rpc.prove", [token]), (server, PORT))
        self.advance()

    def test_by_hand(self) -> None:
        """The exchange with a client that does it itself; it proves the host, at any port of it."""
        peer, port = self.plain()
        token = self.token(peer, port)
        self.assertLessEqual(len(peer.received[-1][0]), ALLOWANCE)
        other, other_port = self.plain()
        self.prove(other_port, token)
        self.assertEqual(other.received, [])
        port.write(encode_request(1, "read", [1]), (SERVER, PORT))
        other_port.write(encode_request(1, "read", [2]), (SERVER, PORT))
        self.advance()
        self.assertEqual([message.error for message in (peer.messages[-1], other.messages[-1])], [None, None])  # type: ignore[union-attr]
        self.assertEqual(self.books.runs, {1: 1, 2: 1})

    def test_refused(self) -> None:
        """Tokens that are forged, of another address, or too old prove nothing, and draw nothing."""
        peer, port = self.plain(CLIENT)
        token = self.token(peer, port)
        peer6, port6 = self.plain(CLIENT6)
        token6 = self.token(peer6, port6, server=SERVER6)
        before = len(peer.received), len(peer6.received)
        self.prove(port, token6)
        self.prove(port6, token, SERVER6)
        self.prove(port, bytes(16))
        self.prove(port, token[:-1] + bytes([token[-1] ^ 1]))
        self.prove(port, b"")
        self.advance(240.0)
        self.prove(port, token)
        self.assertEqual((len(peer.received), len(peer6.received)), before)
        stats = self.stats()
        self.assertEqual((stats.rejected, stats.proofs), ({"bad_token": 6}, 0))
        self.token(peer, port, msgid=2)

    def test_shared_key(self) -> None:
        """Servers that share a key file know one another's tokens; one that has another key does not."""
        folder = tempfile.TemporaryDirectory()  # mktemp() leaves its files behind under pytest
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "key")
        path.write_bytes(KEY)
        path.chmod(0o600)
        hosts = "192.0.2.21", "192.0.2.22", "192.0.2.23"
        keys = read_token_key(path), read_token_key(path), None
        services = [
            self.start(self.network.reactor(host), host, token_key=key) for host, key in zip(hosts, keys, strict=True)
        ]
        peer, port = self.plain()
        token = self.token(peer, port, server=hosts[0])
        for host in hosts[1:]:
            self.prove(port, token, host)
        self.assertEqual([self.stats(service).proofs for service in services], [0, 1, 0])
        self.assertEqual([self.stats(service).rejected["bad_token"] for service in services], [0, 0, 1])

    def wants_proofs(self, servable: Any, interface: str, **told: Any) -> bool:
        """Tell whether a service of its own would have addresses proven."""
        service = UDPServerService(self.network.reactor("198.51.100.1"), PORT, servable, interface, **told)
        service.startService()
        protocol: Any = service.protocol
        self.advance()
        self.result(service.stopService() or Deferred())
        return protocol._responder._outbox.budget is not None

    def test_defaults(self) -> None:
        """A service wants proofs unless it is bound to loopback, or told otherwise."""
        for interface, told, wants in (
            ("127.0.0.1", {}, False), ("::1", {}, False), ("127.0.0.1", {"prove_addresses": True}, True),
            ("", {}, True), ("::", {}, True), ("198.51.100.1", {}, True), ("::", {"prove_addresses": False}, False),
        ):  # fmt: skip
            host, self.network = self.network, type(self.network)()
            self.assertEqual(self.wants_proofs(self.books, interface, **told), wants, (interface, told))
            self.network = host

    def test_protocol_of_its_own(self) -> None:
        """A protocol that was made elsewhere is told the key, and that no proof is wanted, where the service was."""
        for told, wants in (({}, True), ({"token_key": KEY}, True), ({"prove_addresses": False}, False)):
            host, self.network = self.network, type(self.network)()
            protocol = RPCServerProtocol(self.books)
            tokens = self.tokens_of(protocol)
            self.assertEqual(self.wants_proofs(protocol, "::", **told), wants)
            self.assertEqual(self.tokens_of(protocol) is tokens, not told)
            self.network = host

    def tokens_of(self, protocol: RPCServerProtocol) -> Any:
        """Return what makes a protocol's tokens, if it makes any."""
        budget: Any = protocol._responder._outbox.budget
        return None if budget is None else budget.tokens

    def test_short_keys(self) -> None:
        """A key that is too short is refused, wherever it is handed over."""
        self.assertRaises(errors.LocalError, RPCServerProtocol, self.books, token_key=b"short")
        protocol = RPCServerProtocol(self.books)
        self.assertRaises(errors.LocalError, protocol.use_token_key, b"short")
        protocol.trust_addresses()
        protocol.use_token_key(KEY)
        self.assertIsNone(self.tokens_of(protocol))

    def test_proven_by_the_transport(self) -> None:
        """Peers of a transport that has proven their addresses have no budget."""
        protocol = RPCServerProtocol(self.books)
        port = self.here.listenUDP(0, Peer(), "")
        port.proves_addresses = True  # type: ignore[attr-defined]  # as that of DTLS does
        protocol.makeConnection(port)
        self.assertIsNone(protocol._responder._outbox.budget)
        protocol.doStop()
        port.stopListening()
        self.advance()

    def test_loopback(self) -> None:
        """Loopback peers are proven, also where the server is bound to all addresses, unless they are not trusted."""
        for trusts, expected in ((True, []), (False, ["unproven_address"])):
            protocol = RPCServerProtocol(Books(), trusts_loopback=trusts)
            reactor = self.network.reactor()
            listening = reactor.listenUDP(PORT, protocol, "::")
            client = self.client("127.0.0.1", reactor=reactor)
            self.assertEqual(self.result(client.call("read", 1))[:2], "1:")
            self.assertEqual(list(protocol.stats.errors), expected)
            self.result(client.stopService())
            self.result(listening.stopListening() or Deferred())

    def test_hundred_victims(self) -> None:
        """A hundred prefixes in whose names large responses are asked for get 3 times that and 128 bytes, not more."""
        protocol: Any = self.service.protocol
        victims = [f"203.0.113.{number}" for number in range(50)]
        victims += [f"2001:db8:{number:x}::{host:x}" for number in range(50) for host in (1, 2)]
        came: Counter[str] = Counter()
        went: Counter[str] = Counter()
        batch: list[Any] = []
        protocol.transport = FakeTransport(batch)
        for msgid in range(40):
            for victim in victims:
                prefix = victim.rpartition("::")[0] or victim
                for payload in (encode_request(msgid // 2, "read", [msgid // 2]), encode_notification("read", [1])):
                    came[prefix] += len(payload)
                    protocol.datagrams_received([(payload, (victim, 4000))])
            for payload, peer in batch:
                went[peer[0].rpartition("::")[0] or peer[0]] += len(payload)
            batch.clear()
            self.assertEqual({}, {one: went[one] for one in went if went[one] > FACTOR * came[one] + ALLOWANCE})
        self.assertEqual(len(went), 100)


class FakeTransport:
    """Keeps what is written."""

    def __init__(self, batch: list[Any]) -> None:
        self._batch = batch

    def write(self, payload: bytes, peer: Any) -> None:
        """Keep it."""
        self._batch.append((payload, peer))
