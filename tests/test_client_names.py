"""How the client finds its server: names, several addresses, refusals, families, interfaces."""

from __future__ import annotations

import errno
from typing import Any, cast

from tests.simulation import CLIENT, CLIENT6, DELAY, PORT, SERVER, SERVER6, SimulatedTestCase
from twistedudp import errors
from twistedudp.client import UDPClientService
from twistedudp.interfaces import Unreachable

NOBODY = "192.0.2.77"
"""An address that no host has: what is sent there vanishes."""


class LookupTests(SimulatedTestCase):
    """Names are looked up when the service starts, and again after that failed."""

    names = {"server.example": (SERVER,), "both.example": (SERVER6, SERVER), "six.example": (SERVER6,)}  # noqa: RUF012  # never changed

    def test_calls_wait(self) -> None:
        """Calls, echoes and notifications made before the name is known leave when it is."""
        self.network.lookup_delay = 0.5
        peer = self.peer()
        client = self.client("server.example")
        client.notify("first")
        calls = [client.call("second"), client.call("third"), client.echo_bytes(b"fourth")]
        self.advance(0.4)
        self.assertEqual(peer.received, [])
        self.advance(0.11)
        payloads = [payload for payload, _ in peer.received]
        self.assertEqual(len(payloads), 4)
        for part in (b"first", b"second", b"third", b"fourth"):
            self.assertEqual(len([payload for payload in payloads if part in payload]), 1)
        for call in calls:
            call.cancel()
            self.failureResultOf(call)

    def test_wait_within_the_deadline(self) -> None:
        """The deadline runs while the name is looked up, and the error says that nothing was sent."""
        self.network.lookup_delay = 5.0
        client = self.client("server.example")
        call = client.call("x", timeout=1.0)
        self.advance(0.9999)
        self.assertNoResult(call)
        self.advance(0.0001)
        error = self.error(call, errors.RequestTimedOut)
        self.assertEqual((error.attempts, error.elapsed, error.peers), (0, 1.0, ()))
        self.assertIn("after 0 datagrams", str(error))
        self.advance(5.0)

    def test_only_one_lookup(self) -> None:
        """However many calls wait, the name is looked up once."""
        self.network.lookup_delay = 0.5
        client = self.client("server.example")
        for _ in range(10):
            client.call("x", timeout=0.1).addErrback(lambda _: None)
        lookups = [call for call in self.here.getDelayedCalls() if call.getTime() == 0.5]
        self.assertEqual(len(lookups), 1)
        self.advance(1.0)

    def test_looked_up_at_start(self) -> None:
        """A client that has been running for a while sends its first call at once."""
        self.network.lookup_delay = 0.5
        peer = self.peer()
        client = self.client("server.example")
        self.advance(1.0)
        client.call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual(len(peer.received), 1)

    def test_unknown_name(self) -> None:
        """A name that does not resolve fails all that wait at once, and is not looked up again for nobody."""
        self.network.lookup_delay = 0.1
        client = self.client("nobody.example")
        calls = [client.call("x"), client.echo_bytes(b"x")]
        client.notify("x")
        self.advance(0.1)
        for call in calls:
            error = self.error(call, errors.HostNotFound)
            self.assertEqual(error.host, "nobody.example")
            self.assertIn("check the spelling", str(error))
        self.assertEqual((client.stats.failed, client.stats.notifications_dropped), (2, 1))
        self.assertEqual([call for call in self.here.getDelayedCalls() if call.getTime() > 2.0], [])
        self.advance(3.0)
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_later_success(self) -> None:
        """After a failure the next command looks the name up anew: a call, or a notification."""
        peer = self.peer()
        client = self.client("new.example")
        call = client.call("x")
        self.advance()
        self.error(call, errors.HostNotFound)
        self.network.names["new.example"] = (SERVER,)
        client.notify("y")
        self.advance()
        call = client.call("z")
        self.advance()
        peer.respond("here")
        self.advance()
        self.assertEqual(self.successResultOf(call), "here")
        self.assertEqual(len(peer.received), 2)

    def test_retry_in_an_errback(self) -> None:
        """A call made in the errback of one that failed by its name leads to one more look-up, and no recursion."""
        client = self.client("nobody.example")
        call = client.call("x").addErrback(lambda _: client.call("y"))
        self.advance()
        self.error(call, errors.HostNotFound)
        self.assertEqual(client.stats.failed, 2)

    def test_numeric_needs_no_resolver(self) -> None:
        """A numeric host is not looked up, on a reactor without a resolver."""
        del self.here.nameResolver
        peer = self.peer()
        for host in (SERVER, SERVER6):
            self.client(host).call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual([addr[0] for _, addr in peer.received], [CLIENT, CLIENT6])

    def test_address_family(self) -> None:
        """address_family leaves out the other family's addresses."""
        peer = self.peer()
        for family, source in (("ipv4", CLIENT), ("ipv6", CLIENT6)):
            options: Any = {"address_family": family}
            self.client("both.example", **options).call("x").addErrback(lambda _: None)
            self.advance()
            self.assertEqual(peer.received[-1][1][0], source)

    def test_no_address_of_the_family(self) -> None:
        """A host without an address of the family wanted does not resolve, and the error says why."""
        for host in ("six.example", SERVER6):
            call = self.client(host, address_family="ipv4").call("x")
            self.advance()
            self.assertIn("no ipv4 address", str(self.error(call, errors.HostNotFound)))

    def test_echo_too_large_for_the_family(self) -> None:
        """A raw echo that only IPv6 carries fails when the name turns out to be an IPv4 address."""
        call = self.client("server.example").echo_bytes(bytes(65508))
        self.advance()
        error = self.error(call, errors.DatagramTooLarge)
        self.assertEqual((error.size, error.limit), (65508, 65507))


class SeveralAddressesTests(SimulatedTestCase):
    """A name with several addresses: they are tried in order, one after the other refuses."""

    names = {"both.example": (SERVER6, SERVER), "three.example": (SERVER6, NOBODY, SERVER)}  # noqa: RUF012  # never changed

    def test_in_order(self) -> None:
        """The first address is the resolver's first."""
        peer = self.peer()
        self.client("both.example").call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual([addr[0] for _, addr in peer.received], [CLIENT6])

    def test_localhost(self) -> None:
        """The name localhost just works with the server on one of its addresses only, whichever it is."""
        for interface in ("127.0.0.1", "::1"):
            peer = self.peer(PORT, interface, on=self.here)
            client = self.client("localhost")
            for number in range(2):
                call = client.call("x", number)
                self.advance()
                peer.respond(number)
                self.advance()
                self.assertEqual(self.successResultOf(call), number)
            self.assertEqual(client.stats.transmitted, 2 if interface == "::1" else 3)
            assert peer.transport is not None
            peer.transport.stopListening()
            self.advance()

    def test_all_refuse(self) -> None:
        """When every address has refused the call fails at once, with the last one's reason."""
        client = self.client("both.example")
        call = client.call("x")
        self.advance()
        error = self.error(call, errors.PeerUnreachable)
        self.assertEqual((error.peer, error.reason), ((SERVER, PORT), "Connection refused"))
        self.assertIn("is a server running there?", str(error))
        self.assertEqual(client.stats.refused, 2)

    def test_refused_then_silent(self) -> None:
        """A refusal moves the call on; the deadline is still the call's own, and the error names all addresses."""
        self.peer(interface=SERVER)
        client = self.client("both.example")
        call = client.call("x")
        self.advance(2.0)
        error = self.error(call, errors.RequestTimedOut)
        self.assertEqual(error.peers, ((SERVER6, PORT), (SERVER, PORT)))

    def test_echoes_move_too(self) -> None:
        """Raw and structured echoes are moved on as calls are."""
        peer = self.peer(interface=SERVER)
        client = self.client("both.example")
        raw, value = client.echo_bytes(b"raw"), client.echo("value")
        self.advance()
        for number in range(2):
            peer.send(peer.received[number][0], number)
        self.advance()
        self.assertEqual((self.successResultOf(raw), self.successResultOf(value)), (b"raw", "value"))


class RefusalTests(SimulatedTestCase):
    """ICMP errors: at once, for the request that they quote, and for no other."""

    def test_at_once(self) -> None:
        """Nobody listens: call, echo and echo_bytes fail after one round trip."""
        client = self.client()
        calls = [client.call("x"), client.echo("x"), client.echo_bytes(b"datagram"), client.echo_bytes(b"")]
        self.advance(2 * DELAY)
        for call in calls:
            error = self.error(call, errors.PeerUnreachable)
            self.assertEqual((error.peer, error.reason), ((SERVER, PORT), "Connection refused"))
        self.assertEqual((client.stats.refused, client.stats.retransmitted), (4, 0))

    def test_port_goes_on(self) -> None:
        """After a refusal the same port is used, and a server that has come up meanwhile answers."""
        client = self.client()
        call = client.call("x")
        self.advance()
        self.error(call, errors.PeerUnreachable)
        peer = self.peer()
        call = client.call("y")
        self.advance()
        peer.respond("up")
        self.advance()
        self.assertEqual(self.successResultOf(call), "up")
        self.assertEqual(len({record.source for record in self.network.trace.select(destination=(SERVER, PORT))}), 1)

    def test_notification(self) -> None:
        """A refused notification is nobody's: the error is counted."""
        client = self.client()
        client.notify("x")
        self.advance()
        self.assertEqual(client.stats.rejected, {"unmatched_icmp": 1})

    def test_forged(self) -> None:
        """An error that quotes nothing that waits, or is about another peer or port, is counted and ignored."""
        peer = self.peer()
        client = self.client()
        call, raw = client.call("x"), client.echo_bytes(b"raw datagram")
        self.advance()
        payload = peer.received[0][0]
        refused = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)
        pump = client._pump
        for address, quoted, socket in (
            ((SERVER, PORT), b"something else", 0),
            ((SERVER, PORT), payload[:4], 0),
            ((SERVER, PORT), b"", 0),
            ((SERVER, PORT), b"raw", 0),
            ((SERVER, 9), payload, 0),
            ((SERVER6, PORT), payload, 0),
            ((SERVER6, PORT), b"raw datagram", 0),
            ((SERVER, PORT), payload, 1),
        ):
            pump.peer_unreachable(address, refused, quoted, socket)
        self.assertNoResult(call)
        self.assertNoResult(raw)
        self.assertEqual(client.stats.rejected, {"unmatched_icmp": 8})
        pump.peer_unreachable((SERVER, PORT), refused, payload[:8], 0)
        self.error(call, errors.PeerUnreachable)
        pump.peer_unreachable((SERVER, PORT), refused, b"raw data", 0)
        self.error(raw, errors.PeerUnreachable)

    def test_retry_refused(self) -> None:
        """With retry_refused a server that is being restarted is asked until it answers, or until the deadline."""
        client = self.client(retry_refused=True)
        call, lost = client.call("x"), client.call("y", timeout=0.2)
        self.advance(0.2)
        self.error(lost, errors.RequestTimedOut)
        self.assertNoResult(call)
        peer = self.peer()
        self.advance(0.1)
        peer.respond("back")
        self.advance()
        self.assertEqual(self.successResultOf(call), "back")

    def test_silent_host(self) -> None:
        """A host that says nothing of closed ports cannot be told from a slow one: the deadline ends the call."""
        self.there.silent = True
        call = self.client().call("x", timeout=1.0)
        self.advance(1.0)
        self.error(call, errors.RequestTimedOut)


class AddressTests(SimulatedTestCase):
    """What cannot be an address is refused when the client is made."""

    def test_invalid(self) -> None:
        """Hosts, ports and interfaces that cannot be one are InvalidAddress, also a ValueError."""
        for host, port, interface, what in (
            ("", 1, "", "host=''"),
            (SERVER, 0, "", "port=0"),
            (SERVER, -1, "", "port=-1"),
            (SERVER, 65536, "", "port=65536"),
            (SERVER, cast("int", "10000"), "", "port='10000'"),
            (SERVER, 1, "eth0", "interface='eth0'"),
            (SERVER, 1, CLIENT6, "different address families"),
            (SERVER6, 1, CLIENT, "different address families"),
            ("0.0.0.0", 1, "", "every address"),  # noqa: S104  # it is refused
            ("::", 1, "", "every address"),
        ):
            with self.assertRaisesRegex(errors.InvalidAddress, what):
                UDPClientService(self.here, host, port, interface=interface)
        self.assertTrue(issubclass(errors.InvalidAddress, ValueError))

    def test_impossible_names(self) -> None:
        """Names that no resolver can be asked for are refused too: it would fail with a traceback in the log."""
        for host in ("a..b", ".", "x" * 64 + ".example", "lone\ud800surrogate"):
            with self.assertRaisesRegex(errors.InvalidAddress, "host="):
                UDPClientService(self.here, host, 1)

    def test_names_that_can_be(self) -> None:
        """Names that are merely unusual are left to the resolver."""
        for host in ("localhost", "server.example.", "bücher.example", "under_score", "x" * 63):
            UDPClientService(self.here, host, 1)

    def test_sizes(self) -> None:
        """The largest datagram must be one that UDP carries."""
        for size in (0, -1, 65528):
            self.assertRaisesRegex(
                ValueError, "max_datagram_size", UDPClientService, self.here, SERVER, 1, max_datagram_size=size
            )
        UDPClientService(self.here, SERVER, 1, max_datagram_size=65527)

    def test_broadcast(self) -> None:
        """A broadcast or multicast address is BroadcastNotSupported: a request has one peer."""
        for host in ("255.255.255.255", "224.0.0.1", "ff02::1"):
            error = self.assertRaises(errors.BroadcastNotSupported, UDPClientService, self.here, host, 1)
            self.assertEqual(error.host, host)
            self.assertIn("one server", str(error))

    def test_broadcast_by_name(self) -> None:
        """A broadcast address that only the kernel knows for one fails each call when it is sent, and nothing else."""
        self.network.names["all.example"] = ("255.255.255.255",)
        client = self.client("all.example")
        calls = [client.call("x"), client.echo("x"), client.echo_bytes(b"x")]
        client.notify("x")
        self.advance()
        for call in calls:
            self.assertEqual(self.error(call, errors.BroadcastNotSupported).host, "255.255.255.255")
        self.assertEqual(client.stats.failed, 3)
        self.assertEqual(len(self.network.trace), 0)


class InterfaceTests(SimulatedTestCase):
    """Where the client sends from."""

    def setUp(self) -> None:
        """Give the client's host a second address."""
        super().setUp()
        self.here = self.network.reactor("192.0.2.3", "192.0.2.4", "2001:db8::4")

    def test_interface(self) -> None:
        """The interface chooses among the host's addresses."""
        peer = self.peer()
        for interface in ("192.0.2.3", "192.0.2.4"):
            self.client(interface=interface).call("x").addErrback(lambda _: None)
            self.advance()
            self.assertEqual(peer.received[-1][1][0], interface)
        self.client(SERVER6, interface="2001:db8::4").call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual(peer.received[-1][1][0], "2001:db8::4")

    def test_other_family(self) -> None:
        """An interface of one family is never passed over by asking an address of the other."""
        self.network.names["both.example"] = (SERVER6, SERVER)
        peer = self.peer()
        self.client("both.example", interface="192.0.2.4").call("x").addErrback(lambda _: None)
        self.advance()
        self.assertEqual(peer.received[-1][1][0], "192.0.2.4")

    def test_contradiction(self) -> None:
        """An interface and an address family that exclude each other are refused."""
        with self.assertRaisesRegex(errors.InvalidAddress, "contradict"):
            UDPClientService(self.here, "both.example", PORT, interface="192.0.2.4", address_family="ipv6")
        UDPClientService(self.here, "both.example", PORT, interface="192.0.2.4", address_family="ipv4")

    def test_not_this_machine(self) -> None:
        """An interface that this machine has not sends nothing: calls fail at once and name it."""
        client = self.client(interface="192.0.2.99")
        for call in (client.call("x"), client.call("y")):
            self.assertIn("192.0.2.99", str(self.error(call, errors.CannotSend)))
        self.assertEqual((len(self.network.trace), client.stats.not_sent, self.log.warnings), (0, 2, []))
