"""The memory of ended requests: what it tells, and its bound."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core._recent import MAX_RECENT, RecentRequests


class RecentRequestsTests(SynchronousTestCase):
    """Two generations."""

    def test_how_they_ended(self) -> None:
        """Answered, not answered, and never heard of."""
        recent = RecentRequests()
        recent.ended(1, answered=True)
        recent.ended(2, answered=False)
        self.assertEqual([recent.was_answered(msgid) for msgid in (1, 2, 3)], [True, False, None])
        self.assertEqual(len(recent), 2)

    def test_at_least_one_generation(self) -> None:
        """The last 8,192 are always known, in either generation."""
        recent = RecentRequests()
        for msgid in range(3 * MAX_RECENT):
            recent.ended(msgid, answered=msgid % 3 == 0)
            oldest = max(0, msgid - MAX_RECENT + 1)
            self.assertEqual(recent.was_answered(msgid), msgid % 3 == 0)
            self.assertEqual(recent.was_answered(oldest), oldest % 3 == 0)

    def test_bound(self) -> None:
        """Never more than two generations, and the oldest go."""
        recent = RecentRequests()
        most = 0
        for msgid in range(5 * MAX_RECENT + 5):
            recent.ended(msgid, answered=False)
            most = max(most, len(recent))
        self.assertTrue(most <= 2 * MAX_RECENT, most)
        self.assertIsNone(recent.was_answered(0))
        self.assertIsNone(recent.was_answered(3 * MAX_RECENT))
        self.assertIs(recent.was_answered(5 * MAX_RECENT), False)
