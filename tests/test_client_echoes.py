"""The client's echoes: bytes to any RFC 862 server, and values to that or to an rpc server."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import gatherResults

from tests.simulation import PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp import errors
from twistedudp.echo import EchoProtocol
from twistedudp.methods import RPCMethods

NUMBERS = [3.14159, 2.71828, 1.41421]


class EchoBytesTests(SimulatedTestCase):
    """Raw bytes."""

    def test_same_bytes(self) -> None:
        """What was sent comes back, from our own echo server as well."""
        self.serve(EchoProtocol())
        client = self.client()
        for data in (b"hello", b"", bytes(range(256)), struct.pack("3d", *NUMBERS)):
            self.assertEqual(self.result(client.echo_bytes(data)), data)

    def test_datagram_is_the_data(self) -> None:
        """The datagram holds the data and nothing else."""
        peer = self.peer()
        self.client().echo_bytes(b"\x94\x00\x01").addErrback(lambda _: None)
        self.advance()
        self.assertEqual([payload for payload, _ in peer.received], [b"\x94\x00\x01"])

    def test_largest(self) -> None:
        """Each family's largest datagram goes and comes back; one byte more is DatagramTooLarge."""
        self.serve(EchoProtocol())
        for host, largest in ((SERVER, 65507), (SERVER6, 65527)):
            client = self.client(host)
            data = bytes(largest)
            self.assertEqual(self.result(client.echo_bytes(data)), data)
            error = self.error(client.echo_bytes(data + b"x"), errors.DatagramTooLarge)
            self.assertEqual((error.size, error.limit), (largest + 1, largest))

    def test_too_large_for_any(self) -> None:
        """Before the address is known, what no family carries is refused at once."""
        self.network.names["server.example"] = (SERVER,)
        client = self.client("server.example")
        self.assertEqual(self.error(client.echo_bytes(bytes(65528)), errors.DatagramTooLarge).limit, 65527)

    def test_bytes_like(self) -> None:
        """A bytearray or memoryview is taken as it is now; later changes do not matter. Nothing else is bytes."""
        self.serve(EchoProtocol())
        client = self.client()
        data: Any = bytearray(b"before")
        echo = client.echo_bytes(data)
        data[:] = b"after!"
        self.assertEqual(self.result(echo), b"before")
        view: Any = memoryview(data)
        self.assertEqual(self.result(client.echo_bytes(view)), b"after!")
        for wrong in (5, "text", [1, 2]):
            not_bytes: Any = wrong
            self.assertRaises(TypeError, client.echo_bytes, not_bytes)
        self.assertEqual(len(self.sent()), 2)

    def test_equal_ones(self) -> None:
        """Equal bytes that wait at once leave from different ports, and each gets one answer."""
        peer = self.peer()
        client = self.client()
        echoes = [client.echo_bytes(b"same") for _ in range(3)]
        echoes.append(client.echo_bytes(b"other"))
        self.advance()
        ports = [addr[1] for _, addr in peer.received]
        self.assertEqual((len(set(ports[:3])), ports[3]), (3, ports[0]))
        peer.send(b"same", 1)
        peer.send(b"same", 1)
        self.advance()
        self.assertEqual([echo.called for echo in echoes], [False, True, False, False])
        self.assertEqual(set(self.ports_bound()), {ports[0], ports[2]})
        peer.send(b"same", 0)
        peer.send(b"same", 2)
        peer.send(b"other", 3)
        self.assertEqual(self.result(gatherResults(echoes)), [b"same", b"same", b"same", b"other"])
        self.assertEqual(client.stats.rejected, {"malformed": 1})  # the second answer to one: bytes that mean nothing

    def test_ports_are_closed(self) -> None:
        """A port that an equal echo needed is closed when no echo needs it any more; the usual one stays."""
        self.serve(EchoProtocol())
        client = self.client()
        usual = set()
        for _ in range(5):
            echoes = [client.echo_bytes(b"same") for _ in range(4)]
            self.assertEqual(len(self.ports_bound()), 4)
            self.result(gatherResults(echoes))
            self.advance()
            usual.update(self.ports_bound())
        self.assertEqual(len(usual), 1)

    def test_port_of_two_kinds_of_bytes(self) -> None:
        """A port of their own that several echoes share is closed when the last of them has ended."""
        peer = self.peer()
        client = self.client()
        for data in (b"a", b"b"):
            for _ in range(2):
                client.echo_bytes(data).addErrback(lambda _: None)
        self.advance()
        self.assertEqual(len(self.ports_bound()), 2)
        for number, left in ((1, 2), (3, 1)):
            peer.send(peer.received[number][0], number)
            self.advance()
            self.assertEqual(len(self.ports_bound()), left)

    def test_port_that_is_needed_again(self) -> None:
        """A port of their own that becomes free, and is taken by the next equal echo in that instant, stays open."""
        peer = self.peer()
        client = self.client()
        first, second = client.echo_bytes(b"same"), client.echo_bytes(b"same")
        again = second.addCallback(lambda _: client.echo_bytes(b"same"))
        self.advance()
        peer.send(b"same", 1)
        self.advance()
        self.assertEqual(len(self.ports_bound()), 2)
        for number in (0, 2):
            peer.send(b"same", number)
        self.advance()
        self.assertEqual((self.successResultOf(first), self.successResultOf(again)), (b"same", b"same"))
        self.assertEqual(client.stats.retransmitted, 0)

    def test_too_many_equal_ones(self) -> None:
        """As many equal echoes as there are ports for may wait; the next one is TooManyRequests."""
        self.serve(EchoProtocol())
        client = self.client()
        echoes = [client.echo_bytes(b"same") for _ in range(256)]
        self.assertIn("256 echoes", str(self.error(client.echo_bytes(b"same"), errors.TooManyRequests)))
        self.assertEqual(self.result(client.echo_bytes(b"else")), b"else")
        self.assertEqual(self.result(gatherResults(echoes)), [b"same"] * 256)

    def test_wrong_bytes(self) -> None:
        """Other bytes, a part of them, or the right ones from somebody else are no answer."""
        peer, stranger = self.peer(), self.peer(9)
        client = self.client()
        echo = client.echo_bytes(b"exactly")
        self.advance()
        peer.send(b"exactl")
        peer.send(b"exactly!")
        stranger.received.append(peer.received[0])
        stranger.send(b"exactly")
        self.advance()
        self.assertNoResult(echo)
        self.assertEqual(sum(client.stats.rejected.values()), 3)
        peer.send(b"exactly")
        self.advance()
        self.assertEqual(self.successResultOf(echo), b"exactly")

    def test_like_a_response(self) -> None:
        """Bytes that look like a message are still only bytes: requests in flight do not mind."""
        peer = self.peer()
        client = self.client()
        call = client.call("x")
        self.advance()
        like_a_response = b"\x94\x01\xce" + peer.request().msgid.to_bytes(4, "big") + b"\xc0\x07"
        echo = client.echo_bytes(like_a_response)
        self.advance()
        peer.send(like_a_response)
        self.advance()
        self.assertEqual(self.successResultOf(echo), like_a_response)
        self.assertNoResult(call)
        peer.send(like_a_response)
        self.advance()
        self.assertEqual(self.successResultOf(call), 7)


class EchoValueTests(SimulatedTestCase):
    """Structured values."""

    VALUES = (NUMBERS, {"a": {"b": [1, None, True]}}, "text", b"bytes", None, 2**64 - 1, -1.5)

    def test_echo_server(self) -> None:
        """A plain echo server gives values back."""
        self.serve(Echo())
        client = self.client()
        for value in self.VALUES:
            self.assertEqual(self.result(client.echo(value)), value)
        self.assertEqual(client.stats.answered, len(self.VALUES))

    def test_rpc_server(self) -> None:
        """An rpc server gives values back by its own method echo."""
        protocol = self.serve_methods(RPCMethods())
        client = self.client()
        for value in self.VALUES:
            self.assertEqual(self.result(client.echo(value)), value)
        self.assertEqual(protocol.stats.responses, len(self.VALUES))

    def test_neither(self) -> None:
        """A reflection from anybody but the server asked, or with a byte changed, is no answer."""
        peer, stranger = self.peer(), self.peer(9)
        client = self.client()
        echo = client.echo("value")
        self.advance()
        request = peer.received[0][0]
        stranger.received.append(peer.received[0])
        stranger.send(request)
        peer.send(request[:-1] + b"E")
        self.advance()
        self.assertNoResult(echo)
        self.assertEqual(client.stats.rejected, {"not_a_response": 2})
        peer.respond(None, error={"code": "no", "message": "never"})
        self.advance()
        self.assertEqual(self.error(echo, errors.ErrorReplyReceived).code, "no")

    def test_mixed(self) -> None:
        """Calls, values and bytes in flight together do not disturb one another."""
        self.serve_methods(RPCMethods())
        self.serve(EchoProtocol(), port=7)
        rpc, echo = self.client(), self.client(port=7)
        waiting = [rpc.echo(number) for number in range(50)]
        waiting += [echo.echo(number) for number in range(50)]
        waiting += [echo.echo_bytes(bytes([number])) for number in range(50)]
        expected = [*range(50), *range(50), *(bytes([number]) for number in range(50))]
        self.assertEqual(self.result(gatherResults(waiting)), expected)
        self.assertEqual(len({record.source for record in self.network.trace.select(destination=(SERVER, PORT))}), 1)
