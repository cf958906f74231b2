"""Reading and writing several datagrams at a time: on a socket that does what the test says, and on the kernel's."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from twisted.internet.error import InvalidAddressError
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.transport.fakes import OTHER, PEER, FakeSocket, NotesAll, arrived, icmp_error, os_error, pktinfo, together
from tests.transport.test_sockets import SocketTestCase
from twistedudp.transport import DATAGRAMS_PER_TURN, SECONDS_PER_TURN, DatagramStats, _capabilities, _kernel
from twistedudp.transport._batching import (
    DATAGRAMS_PER_BATCH,
    FIRST_BATCH,
    MAX_SEGMENTS,
    MAX_WHOLE_ONLY,
    BatchingBackend,
)
from twistedudp.transport._routes import Routes
from twistedudp.transport._unreachable import UnreachableReports

SEGMENT_4 = _kernel.segment_option(4)


class Batches(NotesAll):
    """A protocol that takes several datagrams at once, and notes each batch as a list."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Note a batch, then do what the test wants."""
        self.notes.append(list(datagrams))  # type: ignore[arg-type]  # a list stands for a batch among the other notes
        self.does(datagrams, None)


class SegmentSocket(FakeSocket):
    """A fake socket on which UDP_GRO can be turned on, or not."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, error: OSError | None = None) -> None:
        super().__init__(family)
        self.error = error
        self.options: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Note an option."""
        if self.error is not None:
            raise self.error
        self.options.append((level, option, value))

    def recvmsg(self, size: int, ancillary_size: int, flags: int = 0) -> Any:
        """Return the next arrival; those without control messages have none."""
        if not flags and self.arrivals and isinstance(self.arrivals[0], tuple) and len(self.arrivals[0]) == 2:
            datagram, peer = self.arrivals.pop(0)
            return datagram[:size], [], 0, peer
        return super().recvmsg(size, ancillary_size, flags)


class BatchingTestCase(SynchronousTestCase):
    """A backend between a fake socket and a protocol that takes batches."""

    wildcard = False
    timestamps = False
    error: OSError | None = None

    def setUp(self) -> None:
        """Make the backend, as it is on Linux wherever the test runs."""
        self.patch(_kernel, "LINUX", True)
        self.handle = SegmentSocket(error=self.error)
        handle: Any = self.handle
        self.protocol = Batches()
        self.clock = Clock()
        self.stats = DatagramStats()
        reports = UnreachableReports(handle, self.protocol, self.stats, self.clock)
        routes = Routes(handle, self.stats, wildcard=self.wildcard, to_group=False)
        self.watched: list[bool] = []
        self.backend = BatchingBackend(
            handle,
            self.protocol,
            self.stats,
            routes,
            reports,
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

    def answer(self, *datagrams: Any, to: Any = PEER) -> list[Any]:
        """Send datagrams while one of ``to`` is being delivered; return what the port refused."""
        refused: list[Any] = []

        def send(*_: object) -> None:
            self.protocol.does = lambda *_: None
            refused.extend(self.backend.send_batch(list(datagrams)))

        self.protocol.does = send
        self.turn((b"asked", to))
        return refused


class ReadTests(BatchingTestCase):
    """Read turns."""

    def test_delivers(self) -> None:
        """What waits is delivered at once, in order, and counted."""
        self.assertEqual([[(b"one", PEER), (b"", OTHER)]], self.turn((b"one", PEER), (b"", OTHER)))
        self.assertEqual((2, 3, 1), (self.stats.datagrams_received, self.stats.bytes_received, self.stats.turns))
        self.assertEqual((0, 0), (self.stats.turns_cut_short, self.handle.drains))

    def test_nothing(self) -> None:
        """A turn without a datagram was an error's, and delivers no empty batch."""
        self.handle.queue = [(b"lost", [icmp_error()], PEER)]
        self.assertEqual([("unreachable", PEER, errno.ECONNREFUSED, b"lost")], self.turn())
        self.assertEqual((2, 0), (self.handle.drains, self.stats.datagrams_received))

    def test_error_between(self) -> None:
        """An error instead of a datagram is looked into, and the rest of the batch is delivered."""
        self.handle.queue = [(b"lost", [icmp_error()], OTHER)]
        notes = self.turn((b"one", PEER), os_error(errno.ECONNREFUSED), (b"two", PEER))
        self.assertEqual([[(b"one", PEER), (b"two", PEER)], ("unreachable", OTHER, errno.ECONNREFUSED, b"lost")], notes)
        self.assertEqual({errno.ECONNREFUSED: 1}, self.stats.receive_errors)

    def test_size_of_batches(self) -> None:
        """Batches double while they take no time, up to their bound; a turn has its own, and the next goes on."""
        notes = self.turn(*[(b"", PEER)] * (DATAGRAMS_PER_TURN + 1))
        self.assertEqual([FIRST_BATCH, 2 * FIRST_BATCH, 4 * FIRST_BATCH], [len(batch) for batch in notes[:3]])
        self.assertLessEqual(max(len(batch) for batch in notes), DATAGRAMS_PER_BATCH)
        self.assertEqual((DATAGRAMS_PER_TURN, 1), (sum(map(len, notes)), self.stats.turns_cut_short))
        self.assertEqual(DATAGRAMS_PER_TURN + 1, sum(map(len, self.turn())))
        self.assertEqual(1, self.stats.turns_cut_short)
        self.handle.arrivals.clear()
        del notes[:]
        self.turn(*[(b"", PEER)] * DATAGRAMS_PER_TURN)
        self.assertEqual([DATAGRAMS_PER_BATCH] * 2, [len(batch) for batch in notes])

    def test_slow_protocol(self) -> None:
        """A protocol that takes as long for each datagram as a turn may last soon gets them one by one."""
        self.protocol.does = lambda batch, _: self.clock.advance(len(batch) * SECONDS_PER_TURN)
        for _ in range(3):
            self.turn(*[(b"", PEER)] * 4)
        self.assertEqual([4, 1, 1], [len(batch) for batch in self.protocol.notes[:3]])
        while self.handle.arrivals:
            self.turn()
        self.assertEqual({1}, {len(batch) for batch in self.protocol.notes[1:]})
        self.assertEqual(12, sum(map(len, self.protocol.notes)))

    def test_too_large(self) -> None:
        """A datagram larger than allowed is dropped and counted, and not cut, and others are delivered."""
        self.assertEqual([[(b"x" * 1000, PEER)]], self.turn((b"x" * 1001, PEER), (b"x" * 1000, PEER)))
        self.assertEqual((1, 1), (self.stats.truncated, self.stats.datagrams_received))

    def test_too_large_for_ever(self) -> None:
        """A flood of datagrams that are dropped does not keep the turn."""
        self.assertEqual([], self.turn(*[(b"x" * 1001, PEER)] * 10 * DATAGRAMS_PER_TURN))
        self.assertGreater(len(self.handle.arrivals), 5 * DATAGRAMS_PER_TURN)

    def test_failing_protocol(self) -> None:
        """An exception is logged and counted, and the next batch is delivered."""
        self.protocol.does = lambda *_: 1 / 0
        self.turn((b"one", PEER))
        self.turn((b"two", PEER))
        self.assertEqual(2, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual((2, 2), (self.stats.callback_errors, len(self.protocol.notes)))

    def test_stopped_by_the_protocol(self) -> None:
        """After a stop in the midst of a turn, nothing more is read."""
        self.protocol.does = lambda *_: self.backend.stop()
        self.turn(*[(b"", PEER)] * (FIRST_BATCH + 1))
        self.assertEqual(([FIRST_BATCH], 1), ([len(batch) for batch in self.protocol.notes], len(self.handle.arrivals)))

    def test_together(self) -> None:
        """A buffer of several datagrams is taken apart; the last may be shorter; those around it stay in order."""
        notes = self.turn((b"a", PEER), (b"aaaabbbbcc", [together(4)], OTHER), (b"dddd", PEER))
        self.assertEqual([[(b"a", PEER), (b"aaaa", OTHER), (b"bbbb", OTHER), (b"cc", OTHER), (b"dddd", PEER)]], notes)
        self.assertEqual((5, 3), (self.stats.datagrams_received, self.stats.received_together))

    def test_together_and_too_large(self) -> None:
        """If those in one buffer are larger than allowed, each is dropped and counted."""
        self.assertEqual([[(b"a", PEER)]], self.turn((b"x" * 3003, [together(1001)], PEER), (b"a", PEER)))
        self.assertEqual(3, self.stats.truncated)

    def test_kernel_drops(self) -> None:
        """What the kernel dropped is asked for when a turn is cut short."""
        self.handle.drops = 5
        self.turn((b"", PEER))
        self.assertEqual(0, self.stats.dropped_by_kernel)
        self.turn(*[(b"", PEER)] * DATAGRAMS_PER_TURN)
        self.assertEqual(5, self.stats.dropped_by_kernel)

    def test_option(self) -> None:
        """UDP_GRO is turned on."""
        self.assertEqual([(socket.IPPROTO_UDP, _kernel.UDP_GRO, 1)], self.handle.options)


class GroupTests(BatchingTestCase):
    """A port on all addresses."""

    wildcard = True

    def test_groups_apart(self) -> None:
        """What was sent to a broadcast address is delivered alone, in its place, and the port says so."""
        seen: list[Any] = []
        self.protocol.does = lambda *_: seen.append(self.backend.delivering_to_group)
        asked, group = [pktinfo("192.0.2.1")], [pktinfo("192.0.2.1", "192.0.2.255")]
        notes = self.turn((b"one", asked, PEER), (b"all", group, PEER), (b"two", asked, PEER))
        self.assertEqual([[(b"one", PEER)], (b"all", PEER), [(b"two", PEER)]], notes)
        self.assertEqual([False, True, False], seen)
        self.assertEqual((3, 9), (self.stats.datagrams_received, self.stats.bytes_received))
        self.assertFalse(self.backend.delivering_to_group)

    def test_group_fails(self) -> None:
        """An exception on such a datagram is logged, and the port goes on."""
        self.protocol.does = lambda *_: 1 / 0
        self.turn((b"all", [pktinfo("192.0.2.1", "192.0.2.255")], PEER))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertFalse(self.backend.delivering_to_group)

    def test_together(self) -> None:
        """A buffer of several datagrams is known beside the address that was asked, and answers leave from there."""
        self.protocol.does = lambda *_: self.backend.send_batch([(b"back", PEER), (b"back", PEER)])
        asked = pktinfo("192.0.2.1")
        notes = self.turn((b"aaaabb", [together(4), asked], PEER), (b"c", [asked], PEER))
        self.assertEqual([[(b"aaaa", PEER), (b"bb", PEER), (b"c", PEER)]], notes)
        [(buffer, ancillary, sockaddr)] = self.handle.sent
        self.assertEqual((b"backback", PEER, SEGMENT_4), (buffer, sockaddr, ancillary[-1]))
        self.assertEqual(_kernel.IP_PKTINFO, ancillary[0][1])


class TimestampTests(BatchingTestCase):
    """When the datagrams of a batch arrived."""

    timestamps = True
    wildcard = True

    def setUp(self) -> None:
        """Note the times that are told with each delivery."""
        super().setUp()
        self.told: list[Any] = []
        self.protocol.does = lambda *_: self.told.append(self.backend.arrival_times)

    def arrival(self, payload: bytes, time: int, *more: Any, local: str = "192.0.2.1", group: bool = False) -> Any:
        """Return a datagram that arrived at a time."""
        return payload, [arrived(time), *more, pktinfo(local, "192.0.2.255" if group else None)], PEER

    def test_told(self) -> None:
        """There is one time for each datagram; those of one buffer share theirs; afterwards there is none."""
        self.turn(self.arrival(b"1", 5), self.arrival(b"aabbc", 6, together(2)), self.arrival(b"2", 7))
        self.assertEqual([(5, 6, 6, 6, 7)], self.told)
        self.assertEqual((), self.backend.arrival_times)

    def test_dropped(self) -> None:
        """What is too large has no time."""
        self.turn(self.arrival(b"1", 5), self.arrival(b"x" * 1001, 6), self.arrival(b"x" * 2003, 7, together(1001)))
        self.assertEqual([(5, 7)], self.told)

    def test_groups_apart(self) -> None:
        """What was sent to a group has its own, and so have those before it and after it."""
        self.turn(self.arrival(b"1", 5), self.arrival(b"aab", 6, together(2), group=True), self.arrival(b"2", 7))
        self.assertEqual([(5,), (6,), (6,), (7,)], self.told)

    def test_moved(self) -> None:
        """A batch that ends because its peer asks at another address ends with its times."""
        self.turn(self.arrival(b"1", 5), self.arrival(b"2", 6, local="192.0.2.2"))
        self.assertEqual([(5,), (6,)], self.told)


class SendTests(BatchingTestCase):
    """Sending several datagrams."""

    def test_together(self) -> None:
        """Datagrams of equal size to a peer of the batch that is being delivered leave in one buffer."""
        self.assertEqual([], self.answer((b"aaaa", PEER), (b"bbbb", PEER), (b"cccc", PEER)))
        self.assertEqual([(b"aaaabbbbcccc", [SEGMENT_4], PEER)], self.handle.sent)
        self.assertEqual((3, 3, 12), (self.stats.datagrams_sent, self.stats.sent_together, self.stats.bytes_sent))

    def test_order(self) -> None:
        """What cannot share a buffer keeps its place: other sizes, other peers, empty ones, large ones."""
        large = b"x" * 1201
        self.answer(
            (b"aaaa", PEER), (b"bbbb", PEER), (b"c", PEER), (b"", PEER), (b"", PEER), (large, PEER), (large, PEER),
            (b"dddd", OTHER), (b"eeee", PEER), (b"ffff", PEER),
        )  # fmt: skip
        self.assertEqual(
            [
                (b"aaaabbbb", PEER), (b"c", PEER), (b"", PEER), (b"", PEER), (large, PEER), (large, PEER),
                (b"dddd", OTHER), (b"eeeeffff", PEER),
            ],
            [(buffer, sockaddr) for buffer, _, sockaddr in self.handle.sent],
        )  # fmt: skip
        self.assertEqual((10, 4), (self.stats.datagrams_sent, self.stats.sent_together))

    def test_bounds(self) -> None:
        """A buffer holds as many datagrams as the kernel takes, and no more bytes than a datagram may have."""
        self.answer(*[(b"aaaa", PEER)] * (MAX_SEGMENTS + 2))
        self.assertEqual([4 * MAX_SEGMENTS, 8], [len(buffer) for buffer, _, _ in self.handle.sent])
        self.handle.sent.clear()
        self.answer(*[(b"x" * 1200, PEER)] * 64)
        self.assertEqual([53 * 1200, 11 * 1200], [len(buffer) for buffer, _, _ in self.handle.sent])
        self.assertLess(53 * 1200, 65507)

    def test_strangers(self) -> None:
        """To a peer that is not of the batch, whether it lives is not known: each datagram leaves alone."""
        self.answer((b"aaaa", PEER), (b"bbbb", PEER), to=OTHER)
        self.assertEqual([(b"aaaa", [], PEER), (b"bbbb", [], PEER)], self.handle.sent)

    def test_later(self) -> None:
        """After the batch each datagram leaves alone."""
        self.turn((b"asked", PEER))
        self.backend.send_batch([(b"aaaa", PEER), (b"bbbb", PEER)])
        self.assertEqual(2, len(self.handle.sent))

    def test_equal_addresses(self) -> None:
        """An address that is equal, but another object, is the same peer."""
        self.answer((b"aaaa", ("192.0.2.7", 4242)), (b"bbbb", ("192.0.2.7", 4242)))
        self.assertEqual([(b"aaaabbbb", [SEGMENT_4], PEER)], self.handle.sent)

    def test_not_known_here(self) -> None:
        """A kernel or device that does not know UDP_SEGMENT is asked once; nothing is lost."""
        for number in (errno.EINVAL, errno.EIO):
            self.setUp()
            self.handle.outcomes = [os_error(number)]
            self.assertEqual([], self.answer((b"aaaa", PEER), (b"bbbb", PEER)))
            self.answer((b"cccc", PEER), (b"dddd", PEER))
            self.assertEqual([b"aaaa", b"bbbb", b"cccc", b"dddd"], [buffer for buffer, _, _ in self.handle.sent])
            self.assertEqual((4, 0, {}), (self.stats.datagrams_sent, self.stats.sent_together, self.stats.send_errors))

    def test_said_once(self) -> None:
        """That UDP_SEGMENT does not work is said once, however many sockets find it out."""
        said: list[str] = []
        self.patch(_capabilities, "_said", set())

        def observe(event: Any) -> None:
            said.append(formatEvent(event))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for _ in range(2):
            self.setUp()
            self.handle.outcomes = [os_error(errno.EIO)]
            self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.assertEqual(["UDP_SEGMENT does not work here (Input/output error): slower, but no loss"], said)

    def test_narrow_path(self) -> None:
        """A peer behind a path that is narrower than a segment gets each datagram alone from then on, others do not."""
        self.handle.outcomes = [os_error(errno.EMSGSIZE)]
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.answer((b"cccc", PEER), (b"dddd", PEER))
        self.answer((b"eeee", OTHER), (b"ffff", OTHER), to=OTHER)
        self.assertEqual(
            [b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeeeffff"], [buffer for buffer, _, _ in self.handle.sent]
        )

    def test_many_narrow_paths(self) -> None:
        """However many paths are narrow, UDP_SEGMENT works with the other peers."""
        for port in range(2 * MAX_WHOLE_ONLY):
            self.handle.outcomes = [os_error(errno.EMSGSIZE)]
            peer = ("192.0.2.9", port + 1)
            self.answer((b"aaaa", peer), (b"bbbb", peer), to=peer)
        self.handle.outcomes = [os_error(errno.EINVAL)]
        self.answer((b"aaaa", OTHER), (b"bbbb", OTHER), to=OTHER)
        self.answer((b"cccc", PEER), (b"dddd", PEER))
        self.assertEqual(b"ccccdddd", self.handle.sent[-1][0])

    def test_waiting(self) -> None:
        """Where there is no room they wait, each for itself, and what is sent later waits behind them in order."""
        self.handle.outcomes = [os_error(errno.EAGAIN), os_error(errno.EAGAIN)]
        self.answer((b"aaaa", PEER), (b"bbbb", PEER), (b"c", PEER))
        self.backend.send_batch([(b"d", OTHER)])
        self.assertEqual(([], 4, [True]), (self.handle.sent, self.stats.send_waited, self.watched))
        self.backend.send_waiting()
        self.assertEqual([b"aaaa", b"bbbb", b"c", b"d"], [buffer for buffer, _, _ in self.handle.sent])
        self.assertEqual(([True, False], {}), (self.watched, self.stats.send_errors))

    def test_waiting_before_a_batch(self) -> None:
        """A read turn sends what waits before it delivers."""
        self.handle.outcomes = [os_error(errno.EAGAIN)]
        self.backend.send(b"first", PEER)
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.assertEqual([b"first", b"aaaabbbb"], [buffer for buffer, _, _ in self.handle.sent])

    def test_still_waiting(self) -> None:
        """While some wait, nothing overtakes them in a buffer of its own."""
        self.handle.outcomes = [os_error(errno.EAGAIN)] * 2
        self.backend.send(b"first", PEER)
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.assertEqual([], self.handle.sent)
        self.backend.close()
        self.assertEqual([b"first", b"aaaa", b"bbbb"], [buffer for buffer, _, _ in self.handle.sent])

    def test_system_calls(self) -> None:
        """A call that sends several counts once, and so does one that fails; each delivery is a batch."""
        self.answer((b"aaaa", PEER), (b"bbbb", PEER), (b"c", PEER))
        self.backend.refresh_stats()
        self.assertEqual((2 + 2, 1), (self.stats.system_calls, self.stats.batches))
        self.handle.outcomes = [os_error(errno.EIO)]
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.backend.refresh_stats()
        self.assertEqual((4 + 2 + 3, 2), (self.stats.system_calls, self.stats.batches))

    def test_passing_fault(self) -> None:
        """Another error has the datagrams sent one by one, this time; an ICMP error that waited is told."""
        self.handle.outcomes = [os_error(errno.ECONNREFUSED), os_error(errno.ECONNREFUSED)]
        self.handle.queue = [(b"lost", [icmp_error()], OTHER)]
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.assertEqual([b"aaaa", b"bbbb"], [buffer for buffer, _, _ in self.handle.sent])
        self.assertIn(("unreachable", OTHER, errno.ECONNREFUSED, b"lost"), self.protocol.notes)
        self.answer((b"cccc", PEER), (b"dddd", PEER))
        self.assertEqual(b"ccccdddd", self.handle.sent[-1][0])

    def test_caller_at_fault(self) -> None:
        """What the caller made wrong comes back with its error, and the others are sent."""
        [refused] = self.answer((b"aaaa", PEER), (b"b", ("localhost", 1)), (b"cccc", PEER))
        self.assertEqual((b"b", ("localhost", 1)), refused[:2])
        self.assertIsInstance(refused[2], InvalidAddressError)
        self.assertEqual([b"aaaa", b"cccc"], [buffer for buffer, _, _ in self.handle.sent])

    def test_source_port_zero(self) -> None:
        """To answer one who sent from port 0, which anybody can, is loss and no mistake of the protocol's."""
        nobody = ("192.0.2.7", 0)
        self.handle.outcomes = [os_error(errno.EINVAL), None]
        self.assertEqual([], self.answer((b"a", nobody), (b"bb", PEER), to=nobody))
        self.assertEqual({errno.EINVAL: 1}, self.stats.send_errors)
        self.handle.outcomes = [os_error(errno.EINVAL)]
        self.assertEqual(1, len(self.answer((b"a", nobody), to=PEER)))

    def test_connected(self) -> None:
        """A connected port sends to its peer, one by one."""
        self.backend.connect(PEER)
        self.answer((b"aaaa", PEER), (b"bbbb", PEER))
        self.assertEqual([(b"aaaa", [], None), (b"bbbb", [], None)], self.handle.sent)


class OldKernelTests(BatchingTestCase):
    """A kernel without UDP_GRO."""

    error = os_error(errno.ENOPROTOOPT)

    def test_one_by_one(self) -> None:
        """Datagrams come one by one, in batches all the same."""
        self.assertEqual([[(b"one", PEER), (b"two", PEER)]], self.turn((b"one", PEER), (b"two", PEER)))


class Answers(Batches):
    """Sends back what it gets, batch for batch."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Note it and send it back."""
        super().datagrams_received(datagrams)
        port: Any = self.transport
        port.write_batch(datagrams)


class KernelTests(SocketTestCase):
    """The kernel's own UDP_SEGMENT and UDP_GRO."""

    def setUp(self) -> None:
        """Skip where there is none."""
        if not sys.platform.startswith("linux"):
            raise SkipTest("UDP_SEGMENT and UDP_GRO are Linux's")
        super().setUp()

    def test_plain_sockets(self) -> None:
        """To a plain socket they are ordinary datagrams, in order, over both address families and on all addresses."""
        for host, interface in (("127.0.0.1", "127.0.0.1"), ("127.0.0.5", ""), ("::1", "::1"), ("127.0.0.1", "::")):
            self.ask(host, interface)

    def ask(self, host: str, interface: str) -> None:
        """Ask a port for many answers at once from a plain socket."""
        protocol: Any = Answers()
        port = self.listen(protocol, interface)
        plain = self.client(host)
        plain.connect((host, port.getHost().port))
        sent = [b"%04d" % number for number in range(100)] + [b"", b"x" * 1200, b"y" * 1201, b"z" * 9000]
        for datagram in sent:
            plain.send(datagram)
        self.wait(lambda: port.stats.datagrams_received == len(sent))
        self.assertEqual(sent, [plain.recv(65536) for _ in sent])
        self.assertEqual(port.stats.datagrams_sent, len(sent))
        self.assertGreater(port.stats.sent_together, 50)

    def test_addresses_asked(self) -> None:
        """One that asks two addresses of the host in turn, within one batch, gets each answer from the one it asked."""
        for interface in ("", "::"):
            protocol: Any = Answers()
            port = self.listen(protocol, interface)
            plain = self.client(source="127.0.0.1")
            asked = [("127.0.0.1", "127.0.0.2")[number % 2] for number in range(40)]
            for number, host in enumerate(asked):
                plain.sendto(b"%02d" % number, (host, port.getHost().port))
            self.wait(lambda port=port: port.stats.datagrams_received == 40)
            answers = dict(plain.recvfrom(100) for _ in asked)
            self.assertEqual([answers[b"%02d" % number][0] for number in range(40)], asked)

    def test_between_ports(self) -> None:
        """Between two ports of ours whole buffers go to and fro, and every datagram is as it was sent."""
        asking: Any = Batches()
        answering: Any = Answers()
        here, there = self.listen(asking), self.listen(answering)
        peer = ("127.0.0.1", there.getHost().port)
        first = [(b"%05d" % number, peer) for number in range(60)]
        asking.does = lambda *_: here.write_batch(first) if len(asking.notes) == 1 else None
        here.write(b"begin", peer)
        self.wait(lambda: here.stats.datagrams_received == 61)
        answers = [datagram for batch in asking.notes for datagram, _ in batch]
        self.assertEqual([b"begin", *(datagram for datagram, _ in first)], answers)
        self.assertEqual(60, here.stats.sent_together)
        self.assertEqual(60, there.stats.received_together)
        self.assertEqual(60, here.stats.received_together)

    def test_after_stop(self) -> None:
        """Written to a closed port, they go nowhere and are counted."""
        protocol: Any = Batches()
        port = self.listen(protocol)
        port.connectionLost()
        self.assertEqual([], port.write_batch([(b"a", ("127.0.0.1", 9)), (b"b", ("127.0.0.1", 9))]))
        self.assertEqual(2, port.stats.written_after_stop)
