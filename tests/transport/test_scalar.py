"""The read turn and the send of the backend in plain Python, on a socket that does what the test says."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import OTHER, PEER, FakeSocket, NotesAll, arrived, icmp_error, os_error, pktinfo
from twistedudp.transport import DATAGRAMS_PER_TURN, SECONDS_PER_TURN, BroadcastNotAllowed, DatagramStats, _kernel
from twistedudp.transport._routes import Routes
from twistedudp.transport._scalar import TRIES_PAST_ERRORS, ScalarBackend
from twistedudp.transport._unreachable import ERRORS_PER_DRAIN, UnreachableReports

if TYPE_CHECKING:
    from typing_extensions import Self


class ScalarTestCase(SynchronousTestCase):
    """A backend between a fake socket and a protocol that notes everything."""

    family = socket.AF_INET
    wildcard = False
    timestamps = False

    def setUp(self) -> None:
        """Make the backend."""
        self.handle = FakeSocket(self.family)
        handle: Any = self.handle
        self.protocol = NotesAll()
        self.clock = Clock()
        self.stats = DatagramStats()
        self.reports = UnreachableReports(handle, self.protocol, self.stats, self.clock)
        self.watched: list[bool] = []
        self.backend = ScalarBackend(
            handle,
            self.protocol,
            self.stats,
            Routes(handle, self.stats, wildcard=self.wildcard, to_group=False),
            self.reports,
            size_limit=1000,
            watch_writable=self.watched.append,
            timestamps=self.timestamps,
            clock=self.clock.seconds,
        )

    def turn(self, *arrivals: Any) -> list[Any]:
        """Let something arrive, read it, and return what the protocol was told."""
        self.handle.arrivals += arrivals
        self.backend.read_turn()
        return self.protocol.notes

    def fails(self, *numbers: int) -> None:
        """Let the next sends fail."""
        self.handle.outcomes = [os_error(number) for number in numbers]

    def calls(self) -> int:
        """Return how many system calls have been counted."""
        self.backend.refresh_stats()
        return self.stats.system_calls


class ReadTests(ScalarTestCase):
    """Read turns."""

    def test_delivers(self) -> None:
        """What waits is delivered in order, and counted; in the usual course nothing else is asked of the socket."""
        self.assertEqual([(b"one", PEER), (b"", OTHER)], self.turn((b"one", PEER), (b"", OTHER)))
        stats = self.stats
        self.assertEqual(
            (2, 3, 1, 0), (stats.datagrams_received, stats.bytes_received, stats.turns, stats.turns_cut_short)
        )
        self.assertEqual(0, self.handle.drains)

    def test_bound_of_datagrams(self) -> None:
        """A turn ends after a number of datagrams, however small they are; the next one goes on."""
        self.assertEqual(DATAGRAMS_PER_TURN, len(self.turn(*[(b"", PEER)] * (DATAGRAMS_PER_TURN + 1))))
        self.assertEqual(1, self.stats.turns_cut_short)
        self.assertEqual(DATAGRAMS_PER_TURN + 1, len(self.turn()))
        self.assertEqual(1, self.stats.turns_cut_short)

    def test_bound_of_time(self) -> None:
        """A turn ends after a time, however few have been read."""
        self.protocol.does = lambda *_: self.clock.advance(SECONDS_PER_TURN / 2)
        self.assertEqual(2, len(self.turn(*[(b"", PEER)] * 5)))
        self.assertEqual(1, self.stats.turns_cut_short)

    def test_errors_count_for_the_bound(self) -> None:
        """A turn of nothing but errors ends as well."""
        self.turn(*[os_error(errno.ECONNREFUSED)] * (DATAGRAMS_PER_TURN + 1))
        self.assertEqual(1, len(self.handle.arrivals))

    def test_limit(self) -> None:
        """What is larger than the limit is dropped and counted; what just fits is delivered."""
        notes = self.turn((b"x" * 1001, PEER), (b"x" * 1000, PEER), (b"x" * 5000, PEER))
        self.assertEqual([(b"x" * 1000, PEER)], notes)
        self.assertEqual((1, 1000, 2), (self.stats.datagrams_received, self.stats.bytes_received, self.stats.truncated))

    def test_exception(self) -> None:
        """A protocol that fails on a datagram gets the next one; the failure is logged and counted."""
        self.protocol.does = lambda *_: 1 / 0
        self.assertEqual(2, len(self.turn((b"1", PEER), (b"2", PEER))))
        self.assertEqual(2, self.stats.callback_errors)
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_exit(self) -> None:
        """Not even an attempt to exit stops the port, as with Twisted's own."""

        def leave(*_: object) -> None:
            raise SystemExit

        self.protocol.does = leave
        self.assertEqual(2, len(self.turn((b"1", PEER), (b"2", PEER))))
        self.assertEqual(2, len(self.flushLoggedErrors(SystemExit)))

    def test_stop(self) -> None:
        """A protocol that stops the port gets nothing more, in this turn or another."""
        self.protocol.does = lambda *_: self.backend.stop()
        self.assertEqual(1, len(self.turn((b"1", PEER), (b"2", PEER))))
        self.assertEqual(1, len(self.turn()))
        self.assertEqual(1, self.stats.datagrams_received)

    def test_woken_by_an_error(self) -> None:
        """A turn that reads nothing was woken by an error, and reads the error queue."""
        self.handle.queue = [(b"quoted", [icmp_error()], OTHER)]
        self.assertEqual([("unreachable", OTHER, errno.ECONNREFUSED, b"quoted")], self.turn())

    def test_error_instead_of_a_datagram(self) -> None:
        """An error costs no datagram: the queue is read, and reading goes on; the protocol is told at the end."""
        self.handle.queue = [(b"quoted", [icmp_error(errno.EHOSTUNREACH)], OTHER)]
        notes = self.turn((b"1", PEER), os_error(errno.EHOSTUNREACH), (b"2", PEER))
        self.assertEqual([(b"1", PEER), (b"2", PEER), ("unreachable", OTHER, errno.EHOSTUNREACH, b"quoted")], notes)
        self.assertEqual({errno.EHOSTUNREACH: 1}, self.stats.receive_errors)

    def test_refusal_without_queue(self) -> None:
        """Where there is no error queue, a connected port still tells a refusal."""
        self.backend.connect(PEER)
        self.assertEqual([("refused",)], self.turn(os_error(errno.ECONNREFUSED)))

    def test_delivering_to_group(self) -> None:
        """Outside of a delivery nothing is being delivered to a group."""
        self.assertFalse(self.backend.delivering_to_group)


class WildcardTests(ScalarTestCase):
    """On a socket bound to all addresses."""

    wildcard = True

    def arrival(self, local: str, addressed: str | None = None, peer: Any = PEER) -> Any:
        """Return a datagram that was sent to an address of ours."""
        return b"x", [pktinfo(local, addressed)], peer

    def back(self, local: str) -> Any:
        """Return the control messages of an answer."""
        return _kernel.parse_return_path(pktinfo(local)[2]).ancillary

    def test_answer(self) -> None:
        """Answers leave from the address that was asked, at once and later, also to an equal but other tuple."""
        self.protocol.does = self.backend.send
        self.turn(self.arrival("192.0.2.1"), self.arrival("192.0.2.2", peer=OTHER))
        self.backend.send(b"later", (*PEER,))
        expected = [(b"x", "192.0.2.1", PEER), (b"x", "192.0.2.2", OTHER), (b"later", "192.0.2.1", PEER)]
        self.assertEqual([(data, self.back(local), peer) for data, local, peer in expected], self.handle.sent)

    def test_asked_address_is_gone(self) -> None:
        """If the address that was asked is not this host's any more, the kernel chooses, now and from then on."""
        self.turn(self.arrival("192.0.2.1"))
        self.handle.outcomes = [os_error(errno.EINVAL)]
        self.backend.send(b"1", PEER)
        self.backend.send(b"2", PEER)
        self.assertEqual([(b"1", [], PEER), (b"2", [], PEER)], self.handle.sent)
        self.assertEqual((2, {}), (self.stats.datagrams_sent, self.stats.send_errors))

    def test_asked_address_is_gone_with_hops(self) -> None:
        """The answer has the hop limit of its question all the same: it may be part of a loop."""
        self.backend._routes.take_hops()
        told = (socket.IPPROTO_IP, _kernel.IP_TTL, struct.pack("=i", 9))
        self.turn((b"x", [pktinfo("192.0.2.1"), told], PEER))
        self.handle.outcomes = [os_error(errno.EINVAL)]
        self.backend.send(b"1", PEER)
        self.assertEqual([(b"1", [_kernel.hop_option(8, ipv6=False)], PEER)], self.handle.sent)

    def test_pending_error(self) -> None:
        """The second try after another's error leaves from the address that was asked as well."""
        self.turn(self.arrival("192.0.2.1"))
        self.handle.outcomes = [os_error(errno.ECONNREFUSED)]
        self.backend.send(b"1", PEER)
        self.assertEqual([(b"1", self.back("192.0.2.1"), PEER)], self.handle.sent)

    def test_delivering_to_group(self) -> None:
        """True during the delivery of a broadcast, and only then; the answer leaves from the own address."""
        said: list[bool] = []

        def answer(datagram: bytes, peer: Any) -> None:
            said.append(self.backend.delivering_to_group)
            self.backend.send(datagram, peer)

        self.protocol.does = answer
        self.turn(self.arrival("192.0.2.1", "192.0.2.255"), self.arrival("192.0.2.1"))
        self.assertEqual([True, False, False], [*said, self.backend.delivering_to_group])
        self.assertEqual([(b"x", self.back("192.0.2.1"), PEER)] * 2, self.handle.sent)


class SendTests(ScalarTestCase):
    """Sends that work, and sends that do not."""

    def test_counted(self) -> None:
        """What the kernel takes is counted."""
        self.backend.send(b"12345", PEER)
        self.backend.send(b"", OTHER)
        self.assertEqual([(b"12345", [], PEER), (b"", [], OTHER)], self.handle.sent)
        self.assertEqual((2, 5), (self.stats.datagrams_sent, self.stats.bytes_sent))

    def test_network_faults(self) -> None:
        """What the network does is counted by errno and never raised."""
        numbers = [
            errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
            errno.EHOSTDOWN, errno.EPERM, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT,
        ]  # fmt: skip
        for number in numbers:
            self.fails(number)
            self.backend.send(b"x", PEER)
        self.fails(errno.ENOBUFS)
        self.backend.send(b"x", PEER)
        self.assertEqual({**dict.fromkeys(numbers, 1), errno.ENOBUFS: 2}, self.stats.send_errors)
        self.assertEqual(([], 0), (self.handle.sent, self.stats.datagrams_sent))
        self.assertEqual(([], len(numbers) + 1), (self.watched, self.calls()))

    def test_no_route(self) -> None:
        """A datagram without a route is told to the protocol as an ICMP error is, after the write."""
        numbers = (errno.ENETUNREACH, errno.EHOSTUNREACH)
        for number in numbers:
            self.fails(number)
            self.backend.send(b"x", PEER)
        self.assertEqual([], self.protocol.notes)
        self.clock.advance(0)
        self.assertEqual([("unreachable", PEER, number, b"x") for number in numbers], self.protocol.notes)
        self.assertEqual(2, self.stats.unreachable)

    def test_pending_error_of_another(self) -> None:
        """An error that waited for another peer is taken out, and the datagram sent; the report is not told within."""
        for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EMSGSIZE):
            self.fails(number)
            self.handle.queue = [(b"quoted", [icmp_error(number)], OTHER)]
            self.backend.send(b"x", PEER)
            self.assertEqual([], self.protocol.notes)
        self.assertEqual([(b"x", [], PEER)] * 4, self.handle.sent)
        self.assertEqual((4, {}), (self.stats.datagrams_sent, self.stats.send_errors))
        self.clock.advance(0)
        self.assertEqual([OTHER] * 3, [note[1] for note in self.protocol.notes])

    def test_pending_refusal_without_queue(self) -> None:
        """A refusal is always another datagram's, even where the queue does not tell whose."""
        self.fails(errno.ECONNREFUSED)
        self.backend.send(b"x", PEER)
        self.assertEqual(1, len(self.handle.sent))

    def test_very_many_pending_errors(self) -> None:
        """Where more errors wait than are read at once, a datagram gets past them: reading puts the next in its way."""
        self.handle.queue = [(b"quoted", [icmp_error()], OTHER)] * (2 * ERRORS_PER_DRAIN)
        self.fails(errno.ECONNREFUSED, errno.ECONNREFUSED)
        self.backend.send(b"x", PEER)
        self.assertEqual(([(b"x", [], PEER)], {}), (self.handle.sent, self.stats.send_errors))
        self.assertEqual(ERRORS_PER_DRAIN, len(self.handle.queue))

    def test_errors_in_between(self) -> None:
        """An error that comes in between is got past as well, but not for ever."""
        self.handle.queue = [(b"quoted", [icmp_error()], OTHER)] * (3 * ERRORS_PER_DRAIN)
        self.fails(*[errno.ECONNREFUSED] * (TRIES_PAST_ERRORS + 1))
        self.backend.send(b"x", PEER)
        self.assertEqual(([], {errno.ECONNREFUSED: 1}), (self.handle.sent, self.stats.send_errors))
        self.assertEqual(TRIES_PAST_ERRORS + 1, self.calls())

    def test_once_more_only(self) -> None:
        """The second failure is the datagram's own."""
        self.fails(errno.ECONNREFUSED, errno.ENETUNREACH)
        self.backend.send(b"x", PEER)
        self.assertEqual(([], {errno.ENETUNREACH: 1}), (self.handle.sent, self.stats.send_errors))

    def test_full_buffers_are_not_asked_for_errors(self) -> None:
        """Where the send itself cannot, the error queue is left alone."""
        for number in (errno.ENOBUFS, errno.EPERM, errno.EAGAIN):
            self.fails(number)
            self.backend.send(b"x", PEER)
        self.assertEqual(0, self.handle.drains)

    def test_answer_to_one_that_refuses_for_ever(self) -> None:
        """A protocol that answers each refusal with a new question to nobody does not occupy the reactor."""
        self.handle.queue = [(b"q", [icmp_error()], OTHER)] * (ERRORS_PER_DRAIN + 1)

        def ask_again(*_: Any) -> None:
            self.fails(errno.ECONNREFUSED)
            self.backend.send(b"x", OTHER)

        self.protocol.does = ask_again
        self.turn()
        self.assertEqual(ERRORS_PER_DRAIN, len(self.protocol.notes))

    def test_too_large(self) -> None:
        """What UDP cannot carry is the caller's fault, and the error tells the sizes."""
        self.fails(errno.EMSGSIZE)
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 65508, PEER)
        self.assertIn("65,508 bytes, a UDP datagram carries at most 65,507", str(error))

    def test_too_large_for_its_path(self) -> None:
        """On a socket that may not fragment, the error tells how large the path is; and nothing is left behind."""
        calls = []

        def refuse(*_: object) -> None:
            calls.append(1)
            self.handle.queue.append((b"", [icmp_error(errno.EMSGSIZE, origin=1, info=1400)], PEER))
            raise os_error(errno.EMSGSIZE)

        self.patch(self.handle, "sendto", refuse)
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 1373, PEER)
        self.assertIn("1,373 bytes do not fit into one packet to 192.0.2.7: the path has an MTU of 1,400", str(error))
        self.assertIn("1,372 for the datagram", str(error))
        self.clock.advance(0)
        self.assertEqual(([], [], 0), (self.handle.queue, self.protocol.notes, self.stats.unreachable))
        self.assertEqual(({}, 0, len(calls)), (self.stats.send_errors, self.stats.datagrams_sent, self.calls()))

    def test_too_large_for_an_unknown_path(self) -> None:
        """Where the kernel does not tell how large it is, the error says what it can."""
        self.fails(errno.EMSGSIZE)
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 1373, PEER)
        self.assertTrue(str(error).endswith("1,373 bytes do not fit into one packet to 192.0.2.7."), str(error))

    def test_port_zero(self) -> None:
        """Port 0 is the caller's fault."""
        self.fails(errno.EINVAL)
        error = self.assertRaises(OSError, self.backend.send, b"x", ("192.0.2.1", 0))
        self.assertEqual((errno.EINVAL, "192.0.2.1: nobody can listen on UDP port 0"), error.args)

    def test_blackhole(self) -> None:
        """Any other EINVAL is the operator's, by a route that drops all: loss."""
        self.fails(errno.EINVAL)
        self.backend.send(b"x", PEER)
        self.assertEqual({errno.EINVAL: 1}, self.stats.send_errors)

    def test_answer_to_port_zero(self) -> None:
        """Source port 0 can be forged: to answer it is loss, not the protocol's fault."""
        self.protocol.does = self.backend.send
        self.fails(errno.EINVAL)
        self.turn((b"x", ("192.0.2.1", 0)))
        self.assertEqual(({errno.EINVAL: 1}, 0), (self.stats.send_errors, self.stats.callback_errors))

    def test_names(self) -> None:
        """What is no address never reaches the kernel."""
        self.assertRaises(InvalidAddressError, self.backend.send, b"x", ("localhost", 9))
        self.assertRaises(InvalidAddressError, self.backend.send, b"x", None)
        self.assertEqual([], self.handle.sent)

    def test_no_pair(self) -> None:
        """An address without a port, or a host alone, is told what it must be."""
        anything: Any
        for anything in (("127.0.0.1",), "127.0.0.1", ()):
            with self.assertRaisesRegex(InvalidAddressError, r"of the form \(host, port\)"):
                self.backend.send(b"x", anything)

    def test_broadcast(self) -> None:
        """A broadcast without leave is the caller's fault, and the error says what to do."""
        self.fails(errno.EACCES)
        error = self.assertRaises(PermissionError, self.backend.send, b"x", ("127.255.255.255", 9))
        self.assertIsInstance(error, BroadcastNotAllowed)
        self.assertEqual(errno.EACCES, error.errno)
        self.assertIn("setBroadcastAllowed(True)", str(error))

    def test_forbidden_route(self) -> None:
        """A route or firewall that forbids is the network's: no broadcast, or one with leave, or IPv6."""
        self.fails(errno.EACCES)
        self.backend.send(b"x", ("127.0.0.1", 9))
        self.handle.broadcast = 1
        self.fails(errno.EACCES)
        self.backend.send(b"x", ("127.255.255.255", 9))
        self.assertEqual({errno.EACCES: 2}, self.stats.send_errors)

    def test_forbidden_route_to_nowhere(self) -> None:
        """So is an address to which even a broadcast would find no way."""
        self.patch(socket, "socket", _Unconnectable)
        self.fails(errno.EACCES)
        self.backend.send(b"x", PEER)
        self.assertEqual({errno.EACCES: 1}, self.stats.send_errors)


class _Unconnectable:
    """A socket that reaches nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def setsockopt(self, *_: object) -> None:
        """Set anything."""

    def connect(self, _: object) -> None:
        """Fail."""
        raise os_error(errno.EACCES)


class WaitingTests(ScalarTestCase):
    """Sends that would block."""

    def block(self, *datagrams: bytes, to: Any = PEER) -> None:
        """Send while there is no room."""
        self.fails(errno.EAGAIN)
        for datagram in datagrams:
            self.backend.send(datagram, to)

    def sent(self) -> list[bytes]:
        """Return what was sent."""
        return [datagram for datagram, _, _ in self.handle.sent]

    def test_waits(self) -> None:
        """What would block waits, what is written later waits behind it, and all leave in order when there is room."""
        self.block(b"1", b"2")
        self.backend.send(b"3", OTHER)
        self.assertEqual(([], [True], {}), (self.sent(), self.watched, self.stats.send_errors))
        self.assertEqual((3, 0), (self.stats.send_waited, self.stats.datagrams_sent))
        self.backend.send_waiting()
        self.assertEqual([(b"1", [], PEER), (b"2", [], PEER), (b"3", [], OTHER)], self.handle.sent)
        self.assertEqual(([True, False], 3, 3), (self.watched, self.stats.datagrams_sent, self.stats.bytes_sent))
        self.backend.send(b"4", PEER)
        self.assertEqual((b"4", 3), (self.sent()[-1], self.stats.send_waited))
        self.assertEqual(1 + 4, self.calls())

    def test_no_room_yet(self) -> None:
        """If there is room for some only, the others go on waiting, in order."""
        self.block(b"1", b"2", b"3")
        self.handle.outcomes = [None, os_error(errno.EWOULDBLOCK)]
        self.backend.send_waiting()
        self.backend.send(b"4", PEER)
        self.assertEqual(([b"1"], [True]), (self.sent(), self.watched))
        self.backend.send_waiting()
        self.assertEqual([b"1", b"2", b"3", b"4"], self.sent())

    def test_before_what_arrives(self) -> None:
        """A read turn sends what waits first, and then what the protocol answers."""
        self.block(b"1")
        self.protocol.does = self.backend.send
        self.turn((b"2", PEER))
        self.assertEqual([b"1", b"2"], self.sent())

    def test_answers_wait_too(self) -> None:
        """An answer to the datagram being delivered waits behind the others like any."""
        self.block(b"1")
        self.fails(errno.EAGAIN)
        self.protocol.does = self.backend.send
        self.turn((b"2", OTHER))
        self.backend.send_waiting()
        self.assertEqual([(b"1", [], PEER), (b"2", [], OTHER)], self.handle.sent)

    def test_fails_later(self) -> None:
        """What fails after it has waited is counted and raised to nobody, be it the network's fault or the caller's."""
        numbers = (errno.ENOBUFS, errno.ENETUNREACH, errno.EPERM, errno.EMSGSIZE, errno.EACCES, errno.EINVAL)
        for number in numbers:
            self.block(b"1", b"2")
            self.fails(*[number] * 1)
            self.backend.send_waiting()
        self.assertEqual(dict.fromkeys(numbers, 1), self.stats.send_errors)
        self.assertEqual([b"2"] * len(numbers), self.sent())
        self.clock.advance(0)
        self.assertEqual([("unreachable", PEER, errno.ENETUNREACH, b"1")], self.protocol.notes)

    def test_pending_error(self) -> None:
        """An ICMP error about another peer costs a datagram that waits nothing."""
        self.block(b"1")
        self.handle.queue = [(b"quoted", [icmp_error()], OTHER)]
        self.fails(errno.ECONNREFUSED)
        self.backend.send_waiting()
        self.assertEqual(([b"1"], {}), (self.sent(), self.stats.send_errors))

    def test_pending_error_first(self) -> None:
        """What would block on the second try waits as well."""
        self.handle.queue = [(b"quoted", [icmp_error()], OTHER)]
        self.fails(errno.ECONNREFUSED, errno.EAGAIN)
        self.backend.send(b"1", PEER)
        self.assertEqual(([], 1, {}), (self.sent(), self.stats.send_waited, self.stats.send_errors))

    def test_faults_of_the_caller(self) -> None:
        """What the caller does wrong is raised at the write, though others wait."""
        self.block(b"1")
        self.assertRaises(InvalidAddressError, self.backend.send, b"2", ("localhost", 9))
        self.assertRaises(InvalidAddressError, self.backend.send, b"2", None)
        self.assertRaises(MessageLengthError, self.backend.send, bytes(65508), PEER)
        self.assertRaises(OverflowError, self.backend.send, b"2", ("192.0.2.7", 65536))
        self.assertEqual(1, self.stats.send_waited)

    def test_impossible_interface(self) -> None:
        """An interface number that the kernel has no room for ends no turn."""
        self.block(b"1")
        self.handle.outcomes = [OverflowError("too large")]
        self.turn()
        self.assertEqual(({errno.EINVAL: 1}, [True, False]), (self.stats.send_errors, self.watched))

    def test_close(self) -> None:
        """At the end what waits is tried once, and what the kernel does not take is counted."""
        self.block(b"1", b"2", b"3")
        self.handle.outcomes = [None, os_error(errno.EAGAIN)]
        self.backend.close()
        self.assertEqual(([b"1"], 2), (self.sent(), self.stats.send_queue_dropped))
        self.assertEqual(({errno.EAGAIN: 2}, [True, False]), (self.stats.send_errors, self.watched))

    def test_connected(self) -> None:
        """With one peer it is no different, and it stays the only one when nothing waits any more."""
        self.backend.connect(PEER)
        self.block(b"1", b"2", to=None)
        self.assertRaises(MessageLengthError, self.backend.send, bytes(65508), None)
        self.backend.send_waiting()
        self.assertEqual([(b"1", [], None), (b"2", [], None)], self.handle.sent)
        self.assertRaises(InvalidAddressError, self.backend.send, b"3", OTHER)

    def test_unwatched(self) -> None:
        """A backend that nobody watches for takes what waits along with its next turn."""
        handle: Any = self.handle
        routes = Routes(handle, self.stats, wildcard=False, to_group=False)
        self.backend = ScalarBackend(handle, self.protocol, self.stats, routes, self.reports, size_limit=1000)
        self.block(b"1")
        self.turn()
        self.assertEqual([b"1"], self.sent())


class CounterTests(ScalarTestCase):
    """What is counted for all datagrams of a turn."""

    def test_system_calls(self) -> None:
        """Each call is counted, be it successful or not, and each datagram is a batch."""
        self.protocol.does = self.backend.send
        self.turn((b"1", PEER), os_error(errno.EHOSTUNREACH), (b"x" * 1001, PEER), (b"2", PEER))
        self.assertEqual(5 + 2, self.calls())
        self.assertEqual(2, self.stats.batches)
        self.assertEqual(5 + 2, self.calls())
        self.turn(*[(b"", PEER)] * DATAGRAMS_PER_TURN)
        self.assertEqual(7 + 2 * DATAGRAMS_PER_TURN, self.calls())

    def test_kernel_drops(self) -> None:
        """What the kernel dropped is asked for when the counters are read, when a turn is cut short, and at the end."""
        self.patch(_kernel, "LINUX", True)
        self.setUp()
        self.handle.drops = 3
        self.turn((b"", PEER))
        self.assertEqual(0, self.stats.dropped_by_kernel)
        self.backend.refresh_stats()
        self.assertEqual(3, self.stats.dropped_by_kernel)
        self.handle.drops = 4
        self.turn(*[(b"", PEER)] * DATAGRAMS_PER_TURN)
        self.assertEqual((4, 1), (self.stats.dropped_by_kernel, self.stats.turns_cut_short))
        self.handle.drops = 5
        self.backend.close()
        self.assertEqual(5, self.stats.dropped_by_kernel)


class TimestampTests(ScalarTestCase):
    """When each datagram arrived."""

    timestamps = True

    def test_told(self) -> None:
        """It is told while a datagram is being delivered, and at no other time."""
        told: list[Any] = []
        self.protocol.does = lambda *_: told.append(self.backend.arrival_times)
        self.turn((b"1", [arrived(5)], PEER), (b"2", [arrived(1_700_000_000_000_000_006)], PEER))
        self.assertEqual([(5,), (1_700_000_000_000_000_006,)], told)
        self.assertEqual((), self.backend.arrival_times)

    def test_not_asked_for(self) -> None:
        """A port that did not ask for it is told nothing."""
        self.timestamps = False
        self.setUp()
        told: list[Any] = []
        self.protocol.does = lambda *_: told.append(self.backend.arrival_times)
        self.turn((b"1", PEER))
        self.assertEqual([()], told)


class ConnectedTests(ScalarTestCase):
    """With one peer."""

    def test_send(self) -> None:
        """A connected socket needs no address, and takes no other than its peer's."""
        self.backend.connect(PEER)
        self.backend.send(b"1", None)
        self.backend.send(b"2", (*PEER,))
        self.assertRaises(InvalidAddressError, self.backend.send, b"3", OTHER)
        self.assertEqual([(b"1", [], None), (b"2", [], None)], self.handle.sent)
        self.assertEqual((2, 2), (self.stats.datagrams_sent, self.stats.bytes_sent))

    def test_pending_refusal(self) -> None:
        """The refusal of an earlier datagram is told later, and the present one sent."""
        self.backend.connect(PEER)
        self.handle.outcomes = [os_error(errno.ECONNREFUSED)]
        self.handle.queue = [(b"q", [icmp_error()], PEER)]
        self.backend.send(b"1", None)
        self.assertEqual(([(b"1", [], None)], []), (self.handle.sent, self.protocol.notes))
        self.clock.advance(0)
        self.assertEqual([("unreachable", PEER, errno.ECONNREFUSED, b"q"), ("refused",)], self.protocol.notes)

    def test_faults(self) -> None:
        """The network's faults are counted, the caller's raised, as without a peer."""
        self.backend.connect(PEER)
        self.handle.outcomes = [os_error(errno.ENETUNREACH), os_error(errno.EACCES), os_error(errno.EMSGSIZE)]
        self.backend.send(b"1", None)
        self.backend.send(b"1", None)
        self.assertRaises(MessageLengthError, self.backend.send, b"2", None)
        self.assertEqual({errno.ENETUNREACH: 1, errno.EACCES: 1}, self.stats.send_errors)

    def test_connect_refused(self) -> None:
        """Connecting twice, to a name, to a broadcast address without leave, or to nowhere, fails."""
        self.assertRaises(InvalidAddressError, self.backend.connect, ("localhost", 9))
        self.handle.connect_error = os_error(errno.EACCES)
        self.assertRaises(BroadcastNotAllowed, self.backend.connect, ("127.255.255.255", 9))
        error = self.assertRaises(PermissionError, self.backend.connect, ("127.0.0.1", 9))
        self.assertNotIsInstance(error, BroadcastNotAllowed)
        self.handle.connect_error = os_error(errno.ENETUNREACH)
        self.assertRaises(OSError, self.backend.connect, PEER)
        self.handle.connect_error = None
        self.backend.connect(PEER)
        self.assertRaises(RuntimeError, self.backend.connect, PEER)
        self.assertEqual(PEER, self.handle.connected)


class IPv6Tests(ScalarTestCase):
    """On an IPv6 socket."""

    family = socket.AF_INET6
    peer = ("2001:db8::7", 4242, 0, 0)

    def test_answer(self) -> None:
        """Answers go to the kernel's form of the address."""
        self.protocol.does = self.backend.send
        self.turn((b"x", self.peer))
        self.assertEqual([(b"x", [], self.peer)], self.handle.sent)

    def test_too_large(self) -> None:
        """IPv6 carries a little more."""
        self.handle.outcomes = [os_error(errno.EMSGSIZE)]
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 65528, ("2001:db8::7", 9))
        self.assertIn("at most 65,527", str(error))

    def test_too_large_for_its_path(self) -> None:
        """IPv6's header is larger."""
        self.handle.outcomes = [os_error(errno.EMSGSIZE)] * 2
        self.handle.queue = [(b"", [icmp_error(errno.EMSGSIZE, origin=1, info=1400)], self.peer)]
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 1353, ("2001:db8::7", 9))
        self.assertIn("1,352 for the datagram", str(error))

    def test_forbidden_route(self) -> None:
        """There are no broadcasts in IPv6: EACCES is the network's."""
        self.handle.outcomes = [os_error(errno.EACCES)]
        self.backend.send(b"x", ("2001:db8::7", 9))
        self.assertEqual({errno.EACCES: 1}, self.stats.send_errors)

    def test_scope_missing(self) -> None:
        """A link-local address without its scope is the caller's fault, and the error tells how to write it."""
        self.fails(errno.EINVAL)
        error = self.assertRaises(OSError, self.backend.send, b"x", ("fe80::7", 9))
        self.assertEqual(
            (errno.EINVAL, "fe80::7: a link-local address needs its scope, as in fe80::7%eth0"), error.args
        )
        self.fails(errno.EINVAL)
        self.backend.send(b"x", ("2001:db8::7", 9))
        self.assertEqual({errno.EINVAL: 1}, self.stats.send_errors)
