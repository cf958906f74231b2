"""Datagrams that wait for room in the send buffer."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.transport import DatagramStats
from twistedudp.transport._waiting import MAX_SEND_QUEUE, MAX_SEND_QUEUE_SIZE, SENDS_PER_TURN, WaitingDatagrams


class WaitingTests(SynchronousTestCase):
    """They leave in order, or are counted."""

    def setUp(self) -> None:
        """Make a queue, and a socket that takes as many datagrams as there is room for."""
        self.stats = DatagramStats()
        self.watched: list[bool] = []
        self.waiting: WaitingDatagrams[str] = WaitingDatagrams(self.stats, self.watched.append)
        self.sent: list[tuple[bytes, str]] = []
        self.room = 0

    def transmit(self, datagram: bytes, way: str) -> bool:
        """Send a datagram if there is room."""
        if not self.room:
            return False
        self.room -= 1
        self.sent.append((datagram, way))
        return True

    def put(self, *datagrams: bytes) -> None:
        """Let datagrams wait."""
        for datagram in datagrams:
            self.waiting.put(datagram, "there")

    def test_order(self) -> None:
        """They leave in the order in which they came, as far as there is room, and those that come later behind."""
        self.put(b"1", b"2")
        self.room = 1
        self.waiting.flush(self.transmit)
        self.put(b"3")
        self.assertEqual([(b"1", "there")], self.sent)
        self.room = 9
        self.waiting.flush(self.transmit)
        self.assertEqual([b"1", b"2", b"3"], [datagram for datagram, _ in self.sent])
        self.assertEqual((3, 0, 0), (self.stats.send_waited, self.stats.send_queue_dropped, len(self.waiting)))

    def test_watched(self) -> None:
        """The socket is watched from the first one that waits until none does, and nobody is told twice."""
        self.put(b"1", b"2")
        self.waiting.flush(self.transmit)
        self.room = 1
        self.waiting.flush(self.transmit)
        self.assertEqual([True], self.watched)
        self.room = 1
        self.waiting.flush(self.transmit)
        self.waiting.flush(self.transmit)
        self.put(b"3")
        self.assertEqual([True, False, True], self.watched)

    def test_bound_of_datagrams(self) -> None:
        """A number of them may wait; what exceeds it is dropped and counted, and room made by sending is used."""
        self.put(*[b""] * (MAX_SEND_QUEUE + 2))
        self.assertEqual((MAX_SEND_QUEUE, 2), (self.stats.send_waited, self.stats.send_queue_dropped))
        self.assertEqual({errno.EAGAIN: 2}, self.stats.send_errors)
        self.room = 1
        self.waiting.flush(self.transmit)
        self.put(b"", b"")
        self.assertEqual((MAX_SEND_QUEUE, 3), (len(self.waiting), self.stats.send_queue_dropped))

    def test_bound_of_bytes(self) -> None:
        """So many bytes may wait, just; what has left counts no more."""
        large = bytes(MAX_SEND_QUEUE_SIZE // 64)
        self.put(*[large] * 64, b"x", b"")
        self.assertEqual((65, 1), (len(self.waiting), self.stats.send_queue_dropped))
        self.room = 1
        self.waiting.flush(self.transmit)
        self.put(large, b"x")
        self.assertEqual((65, 2), (len(self.waiting), self.stats.send_queue_dropped))

    def test_turn(self) -> None:
        """The reactor gets its turn after some of them, and goes on watching."""
        self.put(*[b"x"] * (SENDS_PER_TURN + 1))
        self.room = SENDS_PER_TURN + 1
        self.waiting.flush(self.transmit)
        self.assertEqual((1, [True]), (len(self.waiting), self.watched))

    def test_changed_by_its_owner(self) -> None:
        """What the caller does with its buffer after the write changes nothing."""
        buffer = bytearray(b"before")
        self.waiting.put(buffer, "there")  # type: ignore[arg-type]  # that a protocol writes one is not foreseen
        buffer[:] = b"after."
        self.room = 1
        self.waiting.flush(self.transmit)
        self.assertEqual([(b"before", "there")], self.sent)

    def test_close(self) -> None:
        """At the end what the kernel takes is sent, however much; the rest is dropped and counted; nothing waits."""
        self.put(*[b"x"] * (SENDS_PER_TURN + 3))
        self.room = SENDS_PER_TURN + 1
        self.waiting.close(self.transmit)
        self.assertEqual((SENDS_PER_TURN + 1, 0, 2), (len(self.sent), len(self.waiting), self.stats.send_queue_dropped))
        self.assertEqual(({errno.EAGAIN: 2}, [True, False]), (self.stats.send_errors, self.watched))
        self.put(b"late")
        self.waiting.close(self.transmit)
        self.assertEqual((0, 3, [True, False]), (len(self.waiting), self.stats.send_queue_dropped, self.watched))
