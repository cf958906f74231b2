"""The client's pump on its own: what it does with errors of sending, with its ports and with its timer."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError

from tests.simulation import PORT, SERVER, SERVER6, NoJitter, SimulatedTestCase
from twistedudp._pump import LocalPort, RequestPump
from twistedudp.core import Requester, message_ids
from twistedudp.errors import LocalError, RequestTimedOut
from twistedudp.interfaces import IUnreachableReceiver

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.core import PendingRequest


class FailingReactor:
    """A simulated reactor whose ports raise, as Twisted's own do for what the network did.

    Attributes:
        fault: What listening or writing raises; ``None`` for nothing.
        listening: Whether it is listening that raises.
        only_ipv6: Whether only ports of IPv6 raise.
        together: Whether its ports take several datagrams at once.
        batches: What they were given so.
        refused: What they do not take of that, by peer.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.fault: Exception | None = None
        self.listening = False
        self.only_ipv6 = False
        self.together = False
        self.batches: list[list[tuple[bytes, Address]]] = []
        self.refused: dict[Address, Exception] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUDP(self, port: int, protocol: Any, interface: str, size: int) -> Any:
        """Listen, and get between the protocol and its port."""
        spared = self.only_ipv6 and ":" not in interface
        if self.listening and self.fault is not None and not spared:
            raise self.fault
        listening = self._reactor.listenUDP(port, protocol, interface, size)
        write = listening.write

        def failing_write(datagram: bytes, addr: Address) -> None:
            if self.fault is not None and not spared:
                raise self.fault
            write(datagram, addr)

        def write_batch(datagrams: Any) -> list[tuple[bytes, Address, Exception]]:
            self.batches.append(list(datagrams))
            for datagram, addr in datagrams:
                if addr not in self.refused:
                    write(datagram, addr)
            return [(datagram, addr, self.refused[addr]) for datagram, addr in datagrams if addr in self.refused]

        listening.write = failing_write
        if self.together:
            listening.write_batch = write_batch
        return listening


class PumpTests(SimulatedTestCase):
    """A pump with a requester and a receiver of outcomes."""

    def setUp(self) -> None:
        """Make the pump."""
        super().setUp()
        self.reactor = FailingReactor(self.here)
        self.requester = Requester(msgids=message_ids(bytes(range(64))), random=NoJitter(0).random)
        self.delivered: list[PendingRequest] = []
        self.pump = RequestPump(self.reactor, self.requester, "", self.delivered.append)
        self.addCleanup(self.pump.stop)

    def request(self, timeout: float = 2.0) -> PendingRequest:
        """Send a request."""
        request = self.requester.send_request("x", (), timeout=timeout, now=self.pump.now())
        self.pump.pump()
        return request

    def resolve(self, *hosts: str) -> None:
        """Tell the requester its server's addresses."""
        self.requester.servers_resolved([(host, PORT) for host in hosts], now=self.pump.now())
        self.pump.pump()

    def test_send_errors_are_losses(self) -> None:
        """What cannot be sent counts as lost: it is sent again when its time comes, and may be answered then."""
        peer = self.peer()
        self.resolve(SERVER)
        for fault in (
            OSError(errno.ENOBUFS, "No buffer space available"),
            OSError(errno.EPERM, "Operation not permitted"),  # a firewall's
            MessageLengthError("message too long"),
        ):
            self.reactor.fault = fault
            before = self.requester.stats.not_sent
            request = self.request()
            self.advance()
            self.assertEqual((peer.received, self.requester.stats.not_sent), ([], before + 1))
            self.reactor.fault = None
            for _ in range(30):
                self.advance(0 if peer.received else 0.05)
            self.assertEqual(len(peer.received), 1)
            peer.respond("arrived")
            self.advance()
            self.assertEqual(request.result, "arrived")
            peer.received.clear()

    def assertNextIsAsked(self, fault: Exception) -> None:
        """Check that the second address is asked at once where IPv6 ports raise a fault."""
        peer = self.peer()
        self.resolve(SERVER6, SERVER)
        self.reactor.only_ipv6, self.reactor.fault = True, fault
        request = self.request()
        self.advance()
        self.assertEqual(len(peer.received), 1)
        peer.respond("here")
        self.advance()
        self.assertEqual(request.result, "here")
        self.assertEqual((self.requester.stats.not_sent, self.log.warnings), (1, []))

    def test_no_route(self) -> None:
        """Where this machine has no route to an address, the next one is asked at once."""
        self.assertNextIsAsked(OSError(errno.ENETUNREACH, "Network is unreachable"))

    def test_no_ipv6(self) -> None:
        """Likewise where it has no IPv6 at all."""
        self.reactor.listening = True
        self.assertNextIsAsked(CannotListenError("::", 0, OSError(errno.EAFNOSUPPORT, "no IPv6")))  # type: ignore[no-untyped-call]  # Twisted has no annotation here

    def test_unreachable_everywhere(self) -> None:
        """Where it can reach none of the addresses the request fails at once."""
        self.resolve(SERVER6, SERVER)
        self.reactor.fault = OSError(errno.ENETUNREACH, "Network is unreachable")
        request = self.request()
        self.assertEqual(type(request.error).__name__, "PeerUnreachable")
        self.assertEqual(self.requester.stats.not_sent, 2)
        self.reactor.fault = None

    def test_no_port(self) -> None:
        """Where no local port can be had, as with too many open files, the next try may have one."""
        peer = self.peer()
        self.resolve(SERVER)
        self.reactor.fault = CannotListenError("", 0, OSError(errno.EMFILE, "Too many open files"))  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        self.reactor.listening = True
        self.request()
        self.advance()
        self.assertEqual(self.requester.stats.not_sent, 1)
        self.reactor.fault = None
        self.advance(0.3)
        self.assertEqual(len(peer.received), 1)
        peer.respond(1)
        self.advance()

    def test_logged_once_a_minute(self) -> None:
        """Errors of sending are counted each, and logged once a minute."""
        self.peer()
        self.resolve(SERVER)
        self.reactor.fault = OSError(errno.ENOBUFS, "No buffer space available")
        for _ in range(5):
            self.request(timeout=0.1)
        self.assertEqual(len(self.log.warnings), 1)
        self.assertIn("No buffer space available", self.log.warnings[0])
        self.advance(60.0)
        not_sent = self.requester.stats.not_sent
        self.request(timeout=0.1)
        self.assertEqual((len(self.log.warnings), self.requester.stats.not_sent), (2, not_sent + 1))
        self.advance(1.0)

    def test_permission(self) -> None:
        """The kernel's answer to a broadcast address fails the request at once; its port and others go on."""
        self.peer()
        self.resolve(SERVER)
        other = self.request()
        self.reactor.fault = PermissionError(errno.EACCES, "Permission denied")
        request = self.request()
        self.assertEqual(type(request.error).__name__, "BroadcastNotSupported")
        self.assertFalse(other.done)
        self.assertEqual(self.delivered, [request])
        self.reactor.fault = None

    def test_invalid_address(self) -> None:
        """An address that the port refuses, such as one with a scope that is not, fails the request at once."""
        self.peer()
        self.resolve(SERVER)
        self.reactor.fault = InvalidAddressError("fe80::1%nope", "no such interface")  # type: ignore[no-untyped-call]  # Twisted has no annotation here
        request = self.request()
        self.assertEqual(type(request.error).__name__, "InvalidAddress")
        self.assertIn("no such interface", str(request.error))
        self.reactor.fault = None

    def test_no_backend(self) -> None:
        """Where there is no such backend as is asked for, requests fail at once with what says so, and none is kept."""
        self.resolve(SERVER)
        self.reactor.fault, self.reactor.listening = LocalError("there is no backend 'fast'"), True
        for _ in range(2):
            request = self.request()
            self.assertIs(request.error, self.reactor.fault)
        self.assertEqual((len(self.delivered), self.requester.stats.not_sent, self.log.warnings), (2, 2, []))
        self.assertIsNone(self.requester.next_deadline())

    def test_no_backend_for_names(self) -> None:
        """Requests that waited for an address fail when it is known, all of them."""
        self.reactor.fault, self.reactor.listening = LocalError("there is no backend 'fast'"), True
        requests = [self.request() for _ in range(20)]
        self.resolve(SERVER)
        self.assertEqual({request.error for request in requests}, {self.reactor.fault})

    def test_notification_that_never_can_be_sent(self) -> None:
        """What fails with nobody waiting for it is logged."""
        self.resolve(SERVER)
        self.reactor.fault, self.reactor.listening = LocalError("there is no backend 'fast'"), True
        self.requester.send_notification("x", ())
        self.pump.pump()
        (warning,) = self.log.warnings
        self.assertIn("could not be sent: there is no backend 'fast'", warning)

    def test_ports(self) -> None:
        """There is one port for each family and each of the core's sockets, and all are closed."""
        peer = self.peer()
        self.resolve(SERVER)
        for _ in range(2):
            self.requester.send_echo(b"same", timeout=1.0, now=self.pump.now())
        self.pump.pump()
        self.resolve(SERVER6)
        self.request(timeout=1.0)
        self.advance()
        self.assertEqual([":" in addr[0] for _, addr in peer.received], [False, False, True])
        self.assertEqual(len(self.ports_bound()), 3)
        self.requester.close()
        self.pump.pump()
        stopped = self.pump.stop()
        self.assertNoResult(stopped)
        self.advance(0.0)
        self.assertEqual(len(self.successResultOf(stopped)), 3)
        self.assertEqual(self.ports_bound(), [])

    def test_port_wants_errors(self) -> None:
        """A local port asks for ICMP errors, and logs nothing about itself."""
        self.peer()
        self.resolve(SERVER)
        request = self.request()
        local = LocalPort(self.pump, 0)
        self.assertIn("peer_unreachable", IUnreachableReceiver)
        self.assertTrue(callable(local.peer_unreachable))
        self.assertFalse(local.noisy)
        self.requester.cancel(request, now=self.pump.now())

    def test_together(self) -> None:
        """What is to be sent at once leaves together, if it leaves from the usual port and that takes several."""
        self.reactor.together = True
        peer = self.peer()
        first = self.request()  # no address is known, so that they are sent together later
        others = [self.request() for _ in range(2)]
        self.resolve(SERVER)
        self.assertEqual(self.reactor.batches, [])  # there was no port before
        self.advance()
        self.assertEqual(len(peer.received), 3)
        for number in range(3):
            peer.respond(number, number)
        self.advance()
        self.assertEqual([request.result for request in (first, *others)], [0, 1, 2])
        now = self.pump.now()
        for number in range(3):
            self.requester.send_request("x", (number,), timeout=1.0, now=now)
        self.pump.pump()
        self.assertEqual([len(batch) for batch in self.reactor.batches], [3])
        self.requester.close()
        self.pump.pump()

    def test_together_from_the_usual_port(self) -> None:
        """What leaves from another port, or from that of the other family, leaves by itself; nothing is lost."""
        self.reactor.together = True
        peer = self.peer()
        self.resolve(SERVER)
        warm = self.request()
        self.advance()
        peer.respond("warm")
        self.advance()
        self.assertIs(self.delivered[-1], warm)
        peer.received.clear()
        now = self.pump.now()
        for number in range(2):
            self.requester.send_request("x", (number,), timeout=1.0, now=now)
            self.requester.send_echo(b"same", timeout=1.0, now=now)
        self.requester.servers_resolved([(SERVER6, PORT)], now=now)
        self.requester.send_request("x", (6,), timeout=1.0, now=now)
        self.pump.pump()
        self.advance()
        self.assertEqual([len(batch) for batch in self.reactor.batches], [3])
        self.assertEqual(len(peer.received), 5)
        self.assertEqual(len({addr for _, addr in peer.received}), 3)
        self.requester.close()
        self.pump.pump()

    def test_together_and_refused(self) -> None:
        """What the port does not take of a batch is treated as if it had been written alone."""
        self.reactor.together = True
        peer = self.peer()
        self.resolve(SERVER)
        self.request(timeout=0.1)
        self.advance(0.1)
        self.reactor.refused = {
            ("192.0.2.8", PORT): InvalidAddressError("192.0.2.8", "no such interface"),  # type: ignore[no-untyped-call]  # Twisted has no annotation here
            ("192.0.2.9", PORT): OSError(errno.ENETUNREACH, "Network is unreachable"),
        }
        now = self.pump.now()
        requests = []
        for host in ("192.0.2.8", "192.0.2.9", SERVER):
            self.requester.servers_resolved([(host, PORT)], now=now)
            requests.append(self.requester.send_request("x", (host,), timeout=1.0, now=now))
        peer.received.clear()
        before = self.requester.stats.not_sent
        self.pump.pump()
        self.advance()
        self.assertEqual([len(batch) for batch in self.reactor.batches][-1], 3)
        self.assertEqual(type(requests[0].error).__name__, "InvalidAddress")
        self.assertEqual(self.requester.stats.not_sent, before + 2)
        self.assertIn(requests[2].payload, [payload for payload, _ in peer.received])
        self.requester.close()
        self.pump.pump()

    def test_many_addresses(self) -> None:
        """A name that moves for ever leaves nothing behind: of the ways to its addresses 64 are kept."""
        self.peer()
        for number in range(200):
            self.resolve(f"198.51.100.{number}")
            self.request(timeout=0.001)
            self.advance(0.002)
            self.assertTrue(len(self.pump._usual) <= 64)
        self.assertEqual(len(self.ports_bound()), 1)

    def test_deliver_in_order(self) -> None:
        """What a receiver's own commands lead to is delivered after it has returned, in order, and not inside of it."""
        peer = self.peer()
        events: list[tuple[str, int]] = []

        def deliver(request: PendingRequest) -> None:
            events.append(("begin", request.msgid))
            self.requester.close()
            self.pump.pump()
            events.append(("end", request.msgid))

        self.pump._deliver = deliver
        self.resolve(SERVER)
        requests = [self.request() for _ in range(3)]
        self.advance()
        peer.respond(1, 0)
        self.advance()
        self.assertEqual(events, [(what, request.msgid) for request in requests for what in ("begin", "end")])

    def test_receiver_that_raises(self) -> None:
        """If the receiver of outcomes raises, which is a bug of its own, the pump is not blocked for ever."""
        self.peer()
        self.resolve(SERVER)

        def broken(_request: PendingRequest) -> None:
            raise ZeroDivisionError

        self.pump._deliver = broken
        self.request()
        self.requester.close()
        self.assertRaises(ZeroDivisionError, self.pump.pump)
        self.pump._deliver = self.delivered.append
        second = self.request(timeout=1.0)
        self.advance(1.0)
        self.assertIsInstance(second.error, RequestTimedOut)
        self.assertEqual(self.delivered, [second])
