"""ICMP errors on their way from the error queue to the protocol."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import OTHER, PEER, FakeSocket, Notes, NotesAll, icmp_error
from twistedudp.transport import DatagramStats, _kernel
from twistedudp.transport._unreachable import (
    ERRORS_PER_DRAIN,
    MAX_PATHS,
    MAX_WAITING_REPORTS,
    PATH_MTU_LASTS,
    UnreachableReports,
)


class ReportsTests(SynchronousTestCase):
    """The queue is read, and the protocol told when it is not in the midst of anything."""

    def setUp(self) -> None:
        """Make the reports of a socket."""
        self.handle = FakeSocket()
        self.protocol: Notes = NotesAll()
        self.clock = Clock()
        self.stats = DatagramStats()
        self.reports = self.make()

    def make(self) -> UnreachableReports:
        """Make reports for the protocol that is there."""
        handle: Any = self.handle
        return UnreachableReports(handle, self.protocol, self.stats, self.clock)

    def queue(self, count: int = 1, *messages: tuple[int, int, bytes]) -> None:
        """Put refusals into the error queue."""
        self.handle.queue += [(b"quoted", list(messages) or [icmp_error()], PEER)] * count

    def test_empty(self) -> None:
        """An empty queue has nothing to tell."""
        self.assertEqual(0, self.reports.drain())
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_told_in_a_later_turn(self) -> None:
        """What was read outside of a read turn is told in the next reactor turn."""
        self.queue(2)
        self.assertEqual(2, self.reports.drain())
        self.assertEqual([], self.protocol.notes)
        self.assertEqual(1, len(self.clock.getDelayedCalls()))
        self.clock.advance(0)
        self.assertEqual([("unreachable", PEER, errno.ECONNREFUSED, b"quoted")] * 2, self.protocol.notes)
        self.assertEqual((2, []), (self.stats.unreachable, self.clock.getDelayedCalls()))

    def test_told_at_the_end_of_the_turn(self) -> None:
        """What was read in a read turn is told at its end, without a delayed call."""
        self.reports.in_turn = True
        self.queue()
        self.reports.drain()
        self.assertEqual(([], []), (self.protocol.notes, self.clock.getDelayedCalls()))
        self.reports.settle()
        self.assertEqual(1, len(self.protocol.notes))
        self.assertFalse(self.reports.in_turn)

    def test_turn_takes_what_waits(self) -> None:
        """A read turn that comes first tells what waits for the next reactor turn."""
        self.queue()
        self.reports.drain()
        self.reports.in_turn = True
        self.reports.settle()
        self.assertEqual((1, []), (len(self.protocol.notes), self.clock.getDelayedCalls()))

    def test_meanwhile(self) -> None:
        """What comes up while the protocol is being told waits for another turn: it cannot go on for ever."""
        self.queue()

        def meanwhile(*_: object) -> None:
            self.queue()
            self.reports.drain()

        self.protocol.does = meanwhile
        self.reports.drain()
        for turn in (1, 2, 3):
            (call,) = self.clock.calls  # one reactor turn; advance() would run what it schedules as well
            self.clock.calls.clear()
            call.called = 1
            call.func()
            self.assertEqual(turn, len(self.protocol.notes))

    def test_bound_of_a_drain(self) -> None:
        """The queue is read up to a bound."""
        self.queue(ERRORS_PER_DRAIN + 5)
        self.assertEqual(ERRORS_PER_DRAIN, self.reports.drain())
        self.assertEqual(5, len(self.handle.queue))

    def test_bound_of_the_waiting(self) -> None:
        """What waits is bounded, and what exceeds the bound is counted."""
        self.queue(MAX_WAITING_REPORTS + 3)
        while self.handle.queue:
            self.reports.drain()
        self.clock.advance(0)
        self.assertEqual(MAX_WAITING_REPORTS, len(self.protocol.notes))
        self.assertEqual((MAX_WAITING_REPORTS + 3, 3), (self.stats.unreachable, self.stats.reports_dropped))

    def test_protocol_without_the_method(self) -> None:
        """A protocol that does not want to know is not told; it is counted all the same."""
        self.protocol = Notes()
        reports = self.make()
        self.queue()
        self.assertEqual(1, reports.drain())
        reports.no_route(("192.0.2.1", 7), errno.ENETUNREACH, b"x")
        self.assertEqual((2, []), (self.stats.unreachable, self.clock.getDelayedCalls()))

    def test_connected(self) -> None:
        """A connected port tells a refusal in Twisted's way as well, any other error not."""
        self.reports.connected = True
        self.queue()
        self.queue(1, icmp_error(errno.EHOSTUNREACH))
        self.reports.drain()
        self.clock.advance(0)
        kinds = [note[0] for note in self.protocol.notes]
        self.assertEqual(["unreachable", "refused", "unreachable"], kinds)

    def test_refused_without_queue(self) -> None:
        """Where there is no error queue, a connected port tells a refusal; another does not know whose it was."""
        self.reports.refused()
        self.assertEqual((0, []), (self.stats.unreachable, self.clock.getDelayedCalls()))
        self.reports.connected = True
        self.reports.refused()
        self.clock.advance(0)
        self.assertEqual(([("refused",)], 1), (self.protocol.notes, self.stats.unreachable))

    def test_too_large_is_not_unreachable(self) -> None:
        """A router's smaller MTU is counted, an own datagram too large was refused at its write; neither is told."""
        self.queue(1, icmp_error(errno.EMSGSIZE, icmp=(3, 4)))
        self.queue(1, icmp_error(errno.EMSGSIZE, origin=_kernel.ORIGIN_LOCAL))
        self.assertEqual(2, self.reports.drain())
        self.assertEqual((1, 0), (self.stats.path_mtu_reports, self.stats.unreachable))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_path_mtu(self) -> None:
        """A router's word about the path is kept for its host, whatever the port, under any spelling."""
        self.assertIdentical(None, self.reports.path_mtu(PEER[0]))
        self.learn(1400)
        self.assertEqual((1400, None), (self.reports.path_mtu(PEER[0]), self.reports.path_mtu(OTHER[0])))
        self.assertEqual(1400, self.reports.path_mtu(f"::ffff:{PEER[0]}"))
        self.assertIdentical(None, self.reports.path_mtu("<broadcast>"))

    def test_path_mtu_ipv6(self) -> None:
        """ICMPv6's "packet too big" says the same."""
        data = icmp_error(errno.EMSGSIZE, origin=3, icmp=(2, 0), info=1300)[2]
        self.handle.queue = [(b"q", [(socket.IPPROTO_IPV6, _kernel.IPV6_RECVERR, data)], ("2001:db8::7", 9, 0, 0))]
        self.reports.drain()
        self.assertEqual(1300, self.reports.path_mtu("2001:db8:0::7"))

    def test_forged_path_mtu(self) -> None:
        """No path is believed to be narrower than the kernel believes, nor to have become wider."""
        self.learn(68)
        self.assertEqual(552, self.reports.path_mtu(PEER[0]))
        self.learn(9000)
        self.assertEqual(552, self.reports.path_mtu(PEER[0]))
        self.learn(0, peer=("2001:db8::7", 9, 0, 0))
        self.assertEqual(1280, self.reports.path_mtu("2001:db8::7"))

    def test_own_path_mtu(self) -> None:
        """The own kernel knows better than any router: narrower and wider."""
        self.learn(1000)
        for mtu in (1500, 296):
            self.learn(mtu, origin=_kernel.ORIGIN_LOCAL)
            self.assertEqual(mtu, self.reports.path_mtu(PEER[0]))
        self.learn(0, origin=_kernel.ORIGIN_LOCAL)
        self.assertEqual((296, 1), (self.reports.path_mtu(PEER[0]), self.stats.path_mtu_reports))

    def test_old_path_mtu(self) -> None:
        """Routes change: what was learned is forgotten, and a wider path may be learned then."""
        self.learn(600)
        self.clock.advance(PATH_MTU_LASTS)
        self.assertEqual(600, self.reports.path_mtu(PEER[0]))
        self.clock.advance(1)
        self.assertIdentical(None, self.reports.path_mtu(PEER[0]))
        self.learn(1400)
        self.assertEqual(1400, self.reports.path_mtu(PEER[0]))

    def test_bound_of_paths(self) -> None:
        """However many hosts claim a narrow path, a bounded number is remembered."""
        for number in range(3 * MAX_PATHS):
            self.learn(1400, peer=(f"192.0.{number // 256}.{number % 256}", 9))
        self.assertLessEqual(len(self.reports._paths), 2 * MAX_PATHS)

    def learn(self, mtu: int, *, origin: int = 2, peer: Any = PEER) -> None:
        """Read a report about a path."""
        self.handle.queue = [(b"q", [icmp_error(errno.EMSGSIZE, origin=origin, icmp=(3, 4), info=mtu)], peer)]
        self.reports.drain()

    def test_entry_that_tells_nothing(self) -> None:
        """An entry without an error is read and forgotten."""
        self.queue(1, (0, 0, b""))
        self.assertEqual((1, 0), (self.reports.drain(), self.stats.unreachable))

    def test_exception(self) -> None:
        """A protocol that fails on a report gets the next one; the failure is logged and counted."""
        self.protocol.does = lambda *_: 1 / 0
        self.queue(2)
        self.reports.drain()
        self.clock.advance(0)
        self.assertEqual((2, 2), (len(self.protocol.notes), self.stats.callback_errors))
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))

    def test_close(self) -> None:
        """Closing drops what waits, and leaves no delayed call; what is read later is not told."""
        self.queue()
        self.reports.drain()
        self.reports.close()
        self.assertEqual([], self.clock.getDelayedCalls())
        self.queue()
        self.reports.drain()
        self.reports.close()
        self.clock.advance(1)
        self.assertEqual([], self.protocol.notes)

    def test_close_meanwhile(self) -> None:
        """A protocol that stops its port on a report gets no further one."""
        self.protocol.does = lambda *_: self.reports.close()
        self.queue(3)
        self.reports.drain()
        self.clock.advance(0)
        self.assertEqual(1, len(self.protocol.notes))

    def test_other_systems(self) -> None:
        """Where there is no error queue, nothing is asked of it."""
        self.patch(_kernel, "LINUX", False)
        self.queue()
        self.assertEqual((0, 0), (self.reports.drain(), self.handle.drains))

    def test_ipv6_peer(self) -> None:
        """The peer is shown as protocols know it."""
        self.handle.queue.append((b"q", [icmp_error()], ("::ffff:192.0.2.8", 4242, 0, 0)))
        self.reports.drain()
        self.clock.advance(0)
        self.assertEqual([("unreachable", OTHER, errno.ECONNREFUSED, b"q")], self.protocol.notes)
