"""The queue of deadlines: stale entries are recognised, and bounded."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core import Kind, PendingRequest
from twistedudp.core._deadlines import DeadlineQueue


class DeadlineQueueTests(SynchronousTestCase):
    """A heap in which nothing is ever searched for."""

    def setUp(self) -> None:
        """Make a queue over an empty table."""
        self.waiting: dict[int, PendingRequest] = {}
        self.queue = DeadlineQueue(self.waiting)

    def add(self, msgid: int, due: float) -> PendingRequest:
        """Enter a request, made if there is none, at its due time."""
        if msgid not in self.waiting:
            self.waiting[msgid] = PendingRequest(msgid, b"", Kind.CALL, False, 0.0, 1e9, due)
        request = self.waiting[msgid]
        request.due = due
        self.queue.add(request)
        return request

    def test_empty(self) -> None:
        """Nothing is due."""
        self.assertIsNone(self.queue.next_due())
        self.assertIsNone(self.queue.pop_due(1e9))

    def test_order(self) -> None:
        """The earliest comes first, however they were entered, and none before its time."""
        for msgid, due in ((1, 3.0), (2, 1.0), (3, 2.0)):
            self.add(msgid, due)
        self.assertEqual(self.queue.next_due(), 1.0)
        self.assertIsNone(self.queue.pop_due(0.999))
        popped = [self.queue.pop_due(3.0) for _ in range(3)]
        self.assertEqual([request.msgid for request in popped if request], [2, 3, 1])
        self.assertEqual(len(self.queue), 0)

    def test_due_at_its_time(self) -> None:
        """Due means at that time, not after it."""
        self.add(1, 5.0)
        self.assertIsNotNone(self.queue.pop_due(5.0))

    def test_answered_is_stale(self) -> None:
        """What waits no more is not due."""
        self.add(1, 1.0)
        self.add(2, 2.0)
        del self.waiting[1]
        self.assertIsNone(self.queue.pop_due(1.0))
        self.assertEqual(self.queue.next_due(), 2.0)
        self.assertEqual(len(self.queue), 1)

    def test_too_early(self) -> None:
        """What has ended may still be what is due next: that is sorted out when its time comes, and no sooner."""
        self.add(1, 1.0)
        request = self.add(2, 2.0)
        del self.waiting[1]
        self.assertEqual(self.queue.next_due(), 1.0)
        self.assertIs(self.queue.pop_due(2.0), request)

    def test_nothing_waits(self) -> None:
        """While nothing waits nothing is due, and no entry is kept."""
        self.add(1, 1.0)
        del self.waiting[1]
        self.assertIsNone(self.queue.next_due())
        self.assertEqual(len(self.queue), 0)

    def test_moved_is_stale(self) -> None:
        """A request whose due time moved is due at the new time only, be it later or earlier."""
        request = self.add(1, 1.0)
        self.add(1, 4.0)
        self.assertIsNone(self.queue.pop_due(3.0))
        self.assertEqual(self.queue.next_due(), 4.0)
        self.add(1, 2.0)
        self.assertEqual(self.queue.next_due(), 2.0)
        self.assertIs(self.queue.pop_due(2.0), request)

    def test_rebuilt(self) -> None:
        """Stale entries cannot outnumber the waiting requests four to one, above a size that does not matter."""
        for msgid in range(300):
            self.add(msgid, 1000.0 + msgid)
        for turn in range(2000):
            self.add(turn % 300, 2000.0 + turn)
            self.assertTrue(len(self.queue) <= 5 * 300, turn)
        due = [request.msgid for request in iter(lambda: self.queue.pop_due(1e9), None)]
        self.assertEqual(due, [turn % 300 for turn in range(1700, 2000)])

    def test_small_is_not_rebuilt(self) -> None:
        """Up to 1,024 entries there is nothing to save."""
        for turn in range(1024):
            self.add(1, float(turn))
        self.assertEqual(len(self.queue), 1024)
        self.add(1, 5000.0)
        self.assertEqual(len(self.queue), 1)
        self.assertEqual(self.queue.next_due(), 5000.0)
