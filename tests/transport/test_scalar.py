"""The read turn and the send of the backend in plain Python, on a socket that does what the test says."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import OTHER, PEER, FakeSocket, NotesAll, icmp_error, os_error, pktinfo
from twistedudp.transport import DATAGRAMS_PER_TURN, SECONDS_PER_TURN, BroadcastNotAllowed, DatagramStats, _kernel
from twistedudp.transport._routes import Routes
from twistedudp.transport._scalar import ScalarBackend
from twistedudp.transport._unreachable import ERRORS_PER_DRAIN, UnreachableReports

if TYPE_CHECKING:
    from typing_extensions import Self


class ScalarTestCase(SynchronousTestCase):
    """A backend between a fake socket and a protocol that notes everything."""

    family = socket.AF_INET
    wildcard = False

    def setUp(self) -> None:
        """Make the backend."""
        self.handle = FakeSocket(self.family)
        handle: Any = self.handle
        self.protocol = NotesAll()
        self.clock = Clock()
        self.stats = DatagramStats()
        self.reports = UnreachableReports(handle, self.protocol, self.stats, self.clock)
        self.backend = ScalarBackend(
            handle,
            self.protocol,
            self.stats,
            Routes(handle, self.stats, wildcard=self.wildcard, to_group=False),
            self.reports,
            size_limit=1000,
            clock=self.clock.seconds,
        )

    def turn(self, *arrivals: Any) -> list[Any]:
        """Let something arrive, read it, and return what the protocol was told."""
        self.handle.arrivals += arrivals
        self.backend.read_turn()
        return self.protocol.notes


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
        self.assertEqual(
            (1, 1000, 2), (self.stats.datagrams_received, self.stats.bytes_received, self.stats.oversize_dropped)
        )

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

    def fail(self, *numbers: int) -> None:  # type: ignore[override]  # the errors of the next sends, None at the end
        """Let the next sends fail."""
        self.handle.outcomes = [os_error(number) for number in numbers]

    def test_counted(self) -> None:
        """What the kernel takes is counted."""
        self.backend.send(b"12345", PEER)
        self.backend.send(b"", OTHER)
        self.assertEqual([(b"12345", [], PEER), (b"", [], OTHER)], self.handle.sent)
        self.assertEqual((2, 5), (self.stats.datagrams_sent, self.stats.bytes_sent))

    def test_network_faults(self) -> None:
        """What the network does is counted by errno and never raised."""
        numbers = [
            errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
            errno.EHOSTDOWN, errno.EPERM, errno.EADDRNOTAVAIL, errno.ENOPROTOOPT,
        ]  # fmt: skip
        for number in numbers:
            self.fail(number)
            self.backend.send(b"x", PEER)
        self.fail(errno.EAGAIN)
        self.backend.send(b"x", PEER)
        self.assertEqual({**dict.fromkeys(numbers, 1), errno.EAGAIN: 2}, self.stats.send_errors)
        self.assertEqual(([], 0), (self.handle.sent, self.stats.datagrams_sent))

    def test_no_route(self) -> None:
        """A datagram without a route is told to the protocol as an ICMP error is, after the write."""
        numbers = (errno.ENETUNREACH, errno.EHOSTUNREACH)
        for number in numbers:
            self.fail(number)
            self.backend.send(b"x", PEER)
        self.assertEqual([], self.protocol.notes)
        self.clock.advance(0)
        self.assertEqual([("unreachable", PEER, number, b"x") for number in numbers], self.protocol.notes)
        self.assertEqual(2, self.stats.unreachable)

    def test_pending_error_of_another(self) -> None:
        """An error that waited for another peer is taken out, and the datagram sent; the report is not told within."""
        for number in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EACCES, errno.EMSGSIZE):
            self.fail(number)
            self.handle.queue = [(b"quoted", [icmp_error(number)], OTHER)]
            self.backend.send(b"x", PEER)
            self.assertEqual([], self.protocol.notes)
        self.assertEqual([(b"x", [], PEER)] * 4, self.handle.sent)
        self.assertEqual((4, {}), (self.stats.datagrams_sent, self.stats.send_errors))
        self.clock.advance(0)
        self.assertEqual([OTHER] * 3, [note[1] for note in self.protocol.notes])

    def test_pending_refusal_without_queue(self) -> None:
        """A refusal is always another datagram's, even where the queue does not tell whose."""
        self.fail(errno.ECONNREFUSED)
        self.backend.send(b"x", PEER)
        self.assertEqual(1, len(self.handle.sent))

    def test_once_more_only(self) -> None:
        """The second failure is the datagram's own."""
        self.fail(errno.ECONNREFUSED, errno.ENETUNREACH)
        self.backend.send(b"x", PEER)
        self.assertEqual(([], {errno.ENETUNREACH: 1}), (self.handle.sent, self.stats.send_errors))

    def test_full_buffers_are_not_asked_for_errors(self) -> None:
        """Where the send itself cannot, the error queue is left alone."""
        for number in (errno.EAGAIN, errno.ENOBUFS, errno.EPERM):
            self.fail(number)
            self.backend.send(b"x", PEER)
        self.assertEqual(0, self.handle.drains)

    def test_answer_to_one_that_refuses_for_ever(self) -> None:
        """A protocol that answers each refusal with a new question to nobody does not occupy the reactor."""
        self.handle.queue = [(b"q", [icmp_error()], OTHER)] * (ERRORS_PER_DRAIN + 1)

        def ask_again(*_: Any) -> None:
            self.fail(errno.ECONNREFUSED)
            self.backend.send(b"x", OTHER)

        self.protocol.does = ask_again
        self.turn()
        self.assertEqual(ERRORS_PER_DRAIN, len(self.protocol.notes))

    def test_too_large(self) -> None:
        """What UDP cannot carry is the caller's fault, and the error tells the sizes."""
        self.fail(errno.EMSGSIZE)
        error = self.assertRaises(MessageLengthError, self.backend.send, b"x" * 65508, PEER)
        self.assertIn("65,508 bytes, a UDP datagram carries at most 65,507", str(error))

    def test_port_zero(self) -> None:
        """Port 0 is the caller's fault; a link-local address without scope as well."""
        self.fail(errno.EINVAL)
        error = self.assertRaises(OSError, self.backend.send, b"x", ("192.0.2.1", 0))
        self.assertEqual((errno.EINVAL, "192.0.2.1: nobody can listen on UDP port 0"), error.args)
        self.fail(errno.EINVAL)
        error = self.assertRaises(OSError, self.backend.send, b"x", PEER)
        self.assertEqual(errno.EINVAL, error.errno)

    def test_answer_to_port_zero(self) -> None:
        """Source port 0 can be forged: to answer it is loss, not the protocol's fault."""
        self.protocol.does = self.backend.send
        self.fail(errno.EINVAL)
        self.turn((b"x", ("192.0.2.1", 0)))
        self.assertEqual(({errno.EINVAL: 1}, 0), (self.stats.send_errors, self.stats.callback_errors))

    def test_names(self) -> None:
        """What is no address never reaches the kernel."""
        self.assertRaises(InvalidAddressError, self.backend.send, b"x", ("localhost", 9))
        self.assertRaises(InvalidAddressError, self.backend.send, b"x", None)
        self.assertEqual([], self.handle.sent)

    def test_broadcast(self) -> None:
        """A broadcast without leave is the caller's fault, and the error says what to do."""
        self.fail(errno.EACCES)
        error = self.assertRaises(PermissionError, self.backend.send, b"x", ("127.255.255.255", 9))
        self.assertIsInstance(error, BroadcastNotAllowed)
        self.assertEqual(errno.EACCES, error.errno)
        self.assertIn("setBroadcastAllowed(True)", str(error))

    def test_forbidden_route(self) -> None:
        """A route or firewall that forbids is the network's: no broadcast, or one with leave, or IPv6."""
        self.fail(errno.EACCES)
        self.backend.send(b"x", ("127.0.0.1", 9))
        self.handle.broadcast = 1
        self.fail(errno.EACCES)
        self.backend.send(b"x", ("127.255.255.255", 9))
        self.assertEqual({errno.EACCES: 2}, self.stats.send_errors)

    def test_forbidden_route_to_nowhere(self) -> None:
        """So is an address to which even a broadcast would find no way."""
        self.patch(socket, "socket", _Unconnectable)
        self.fail(errno.EACCES)
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
        self.handle.outcomes = [os_error(errno.EINVAL)]
        self.assertRaises(OSError, self.backend.send, b"3", None)
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

    def test_forbidden_route(self) -> None:
        """There are no broadcasts in IPv6: EACCES is the network's."""
        self.handle.outcomes = [os_error(errno.EACCES)]
        self.backend.send(b"x", ("2001:db8::7", 9))
        self.assertEqual({errno.EACCES: 1}, self.stats.send_errors)
