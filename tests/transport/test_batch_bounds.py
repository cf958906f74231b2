"""Batches where it matters what cannot be interrupted: slow protocols, stops, groups, and what is too large."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import InvalidAddressError, MessageLengthError

from tests.transport.fakes import OTHER, PEER, os_error, pktinfo, together
from tests.transport.test_batching import BatchingTestCase
from twistedudp.transport import DATAGRAMS_PER_TURN, SECONDS_PER_TURN, BroadcastNotAllowed, _kernel
from twistedudp.transport._batching import DATAGRAMS_PER_BATCH


class TimeTests(BatchingTestCase):
    """A turn keeps to its time."""

    def batches(self, count: int = 0) -> list[int]:
        """Let so many datagrams arrive, read one turn, and return how many came in each batch of it."""
        before = len(self.protocol.notes)
        self.turn(*[(b"x", PEER)] * count)
        return [len(batch) for batch in self.protocol.notes[before:]]

    def test_slow_protocol(self) -> None:
        """One that takes 1 ms for each datagram exceeds the time of a turn once, since that cannot be known before."""
        self.protocol.does = lambda batch, _: self.clock.advance(0.001 * len(batch))
        self.assertEqual([8], self.batches(100))
        for _ in range(10):
            started = self.clock.seconds()
            self.assertTrue(2 <= sum(self.batches()) <= 4)
            self.assertTrue(self.clock.seconds() - started <= SECONDS_PER_TURN + 1e-9)
        self.assertEqual(11, self.stats.turns_cut_short)

    def test_fast_again(self) -> None:
        """A protocol that has become fast gets more with each batch."""
        self.protocol.does = lambda batch, _: self.clock.advance(0.02 * len(batch))
        self.batches(200)
        self.assertEqual([[1]] * 3, [self.batches() for _ in range(3)])
        self.protocol.does = lambda *_: None
        self.assertEqual([1, 2, 4, 8, 16, 32], self.batches()[:6])

    def test_slow_rest_of_a_batch(self) -> None:
        """A batch that was not full tells as much of the time that each datagram takes."""
        self.protocol.does = lambda batch, _: self.clock.advance(0.001 * len(batch))
        self.assertEqual([2], self.batches(2))
        self.assertTrue(self.batches(50)[0] <= 2)

    def test_errors(self) -> None:
        """A turn of nothing but errors ends as well."""
        self.turn(*[os_error(errno.ECONNREFUSED)] * 1000)
        self.assertEqual(1000 - DATAGRAMS_PER_TURN, len(self.handle.arrivals))
        self.assertEqual(1, self.stats.turns_cut_short)

    def test_buffers(self) -> None:
        """Buffers count by the datagrams in them: the last one may bring a few more than a turn has."""
        self.turn(*[(b"x" * 64, [together(1)], PEER)] * 10)
        self.assertTrue(DATAGRAMS_PER_TURN <= self.stats.datagrams_received < DATAGRAMS_PER_TURN + 64)
        self.assertTrue(max(map(len, self.protocol.notes)) < DATAGRAMS_PER_BATCH + 64)
        self.assertEqual(1, self.stats.turns_cut_short)

    def test_exit(self) -> None:
        """Not even an attempt to exit stops the port."""

        def leave(*_: object) -> None:
            raise SystemExit

        self.protocol.does = leave
        self.assertEqual([[1], [1]], [self.batches(1) for _ in range(2)])
        self.assertEqual(2, len(self.flushLoggedErrors(SystemExit)))

    def test_stop_in_a_batch(self) -> None:
        """Nothing is delivered after a stop: not in this turn, not in another; sending goes on."""

        def stop(batch: Any, _: object) -> None:
            self.backend.stop()
            self.backend.send_batch(batch)

        self.protocol.does = stop
        self.assertEqual([8], self.batches(20))
        self.assertEqual([], self.batches())
        self.assertEqual((8, 8), (self.stats.datagrams_received, self.stats.datagrams_sent))


class LimitTests(BatchingTestCase):
    """What is larger than the limit."""

    def test_last_one_fits(self) -> None:
        """Of several in one buffer the last may be smaller: what just fits is delivered."""
        for last, fits in ((b"", 0), (b"z", 1), (b"z" * 1000, 1)):
            self.setUp()
            notes = self.turn((b"x" * 2 * 1001 + last, [together(1001)], PEER))
            self.assertEqual([[(last, PEER)]] * fits, notes)
            self.assertEqual((2, 2 + fits), (self.stats.truncated, self.stats.received_together))

    def test_in_order(self) -> None:
        """What is dropped does not part a batch."""
        notes = self.turn((b"1", PEER), (b"x" * 60_000, PEER), (b"2", OTHER))
        self.assertEqual([[(b"1", PEER), (b"2", OTHER)]], notes)
        self.assertEqual((1, 2), (self.stats.truncated, self.stats.bytes_received))


class GroupTests(BatchingTestCase):
    """What was sent to a broadcast or multicast address comes alone."""

    wildcard = True

    def arrival(self, payload: bytes, *more: Any, group: bool = False) -> Any:
        """Return a datagram that was sent to this host, or to all."""
        return payload, [*more, pktinfo("192.0.2.1", "192.0.2.255" if group else None)], PEER

    def test_order(self) -> None:
        """... in its place among the others."""
        notes = self.turn(
            self.arrival(b"1"),
            self.arrival(b"2"),
            self.arrival(b"all", group=True),
            self.arrival(b"again", group=True),
            self.arrival(b"3"),
        )
        self.assertEqual([[(b"1", PEER), (b"2", PEER)], (b"all", PEER), (b"again", PEER), [(b"3", PEER)]], notes)

    def test_in_one_buffer(self) -> None:
        """... also if several came in one buffer."""
        told: list[bool] = []
        self.protocol.does = lambda *_: told.append(self.backend.delivering_to_group)
        notes = self.turn(self.arrival(b"1"), self.arrival(b"aabbc", together(2), group=True), self.arrival(b"2"))
        self.assertEqual([[(b"1", PEER)], (b"aa", PEER), (b"bb", PEER), (b"c", PEER), [(b"2", PEER)]], notes)
        self.assertEqual([False, True, True, True, False], told)

    def test_slow(self) -> None:
        """A protocol that takes long for each of them does not keep the turn for long."""
        self.protocol.does = lambda *_: self.clock.advance(SECONDS_PER_TURN)
        self.turn(*[self.arrival(b"all", group=True)] * 20)
        self.assertEqual((1, 1), (len(self.protocol.notes), self.stats.turns_cut_short))

    def test_stop(self) -> None:
        """After a stop nothing is delivered, be it alone or in a batch."""
        self.protocol.does = lambda *_: self.backend.stop()
        arrivals = [self.arrival(b"1"), self.arrival(b"aabb", together(2), group=True), self.arrival(b"2")]
        self.assertEqual([[(b"1", PEER)]], self.turn(*arrivals))
        self.setUp()
        self.protocol.does = lambda *_: self.backend.stop()
        self.assertEqual([(b"aa", PEER)], self.turn(*arrivals[1:]))

    def test_answers(self) -> None:
        """Answers leave from the address that was asked, in a batch, alone, and later."""

        def answer(given: Any, peer: Any) -> None:
            for datagram, addr in given if peer is None else [(given, peer)]:
                self.backend.send(datagram, addr)

        self.protocol.does = answer
        self.turn((b"1", [pktinfo("192.0.2.1")], PEER), (b"2", [pktinfo("192.0.2.2")], OTHER))
        self.turn(self.arrival(b"all", group=True))
        self.backend.send(b"later", OTHER)
        expected = [(b"1", "192.0.2.1"), (b"2", "192.0.2.2"), (b"all", "192.0.2.1"), (b"later", "192.0.2.2")]
        self.assertEqual(
            [(data, _kernel.parse_return_path(pktinfo(local)[2]).ancillary) for data, local in expected],
            [(data, ancillary) for data, ancillary, _ in self.handle.sent],
        )


class MovedTests(BatchingTestCase):
    """A peer that asks at two addresses of this host."""

    wildcard = True

    def arrivals(self) -> list[Any]:
        """Return two datagrams of one peer, and a third at the first address."""
        return [(payload, [pktinfo(local)], PEER) for payload, local in ((b"1", "192.0.2.1"), (b"2", "192.0.2.2"))]

    def test_answers(self) -> None:
        """Each answer leaves from the address that was asked, however close together they were asked."""
        self.protocol.does = lambda batch, _: self.backend.send_batch(batch)
        self.turn(*self.arrivals(), *self.arrivals())
        self.assertEqual([b"1", b"2", b"1", b"2"], [data for data, _, _ in self.handle.sent])
        self.assertEqual(
            [
                _kernel.parse_return_path(pktinfo(f"192.0.2.{data.decode()}")[2]).ancillary
                for data, _, _ in self.handle.sent
            ],
            [ancillary for _, ancillary, _ in self.handle.sent],
        )

    def test_stop(self) -> None:
        """After a stop nothing more is delivered."""
        self.protocol.does = lambda *_: self.backend.stop()
        self.assertEqual([[(b"1", PEER)]], self.turn(*self.arrivals()))


class RefusedTests(BatchingTestCase):
    """Batches with faults of the caller's."""

    def test_all_of_them(self) -> None:
        """Each comes back with what write() would have raised, in order; the others are sent."""
        self.handle.outcomes = [None, os_error(errno.EMSGSIZE), os_error(errno.EACCES), os_error(errno.EINVAL)]
        datagrams = [
            (b"1", PEER),
            (b"2", ("localhost", 9)),
            (bytes(65508), OTHER),
            (b"3", ("127.255.255.255", 9)),
            (b"4", ("192.0.2.1", 0)),
            (b"5", OTHER),
        ]
        refused = self.answer(*datagrams)
        self.assertEqual(datagrams[1:5], [one[:2] for one in refused])
        self.assertEqual(
            [InvalidAddressError, MessageLengthError, BroadcastNotAllowed, OSError], [type(one[2]) for one in refused]
        )
        self.assertEqual([b"1", b"5"], [data for data, _, _ in self.handle.sent])

    def test_none(self) -> None:
        """A batch of none is none."""
        self.assertEqual(([], []), (self.answer(), self.handle.sent))


class OtherSystemTests(BatchingTestCase):
    """Where there is neither UDP_GRO nor UDP_SEGMENT."""

    def test_one_by_one(self) -> None:
        """Nothing is asked of the socket; each datagram leaves by itself."""
        self.patch(_kernel, "LINUX", False)
        before = list(self.handle.options)
        self.backend._routes.take_segments()
        self.assertEqual(before, self.handle.options)
        self.backend._segments = False
        self.answer((b"a", PEER), (b"b", PEER))
        self.assertEqual([b"a", b"b"], [data for data, _, _ in self.handle.sent])
