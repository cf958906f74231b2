"""The limit on what is logged."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._rate_limit import RateLimit


class RateLimitTests(SynchronousTestCase):
    """Some are allowed in an interval, the others are counted."""

    def test_count(self) -> None:
        """In one interval so many are allowed and no more, from the first moment on."""
        clock = Clock()
        limit = RateLimit(3, 10.0, clock.seconds)
        self.assertEqual([limit.allowed() for _ in range(5)], [True, True, True, False, False])
        clock.advance(9.999)
        self.assertFalse(limit.allowed())

    def test_next_interval(self) -> None:
        """An interval begins with the first that comes after the last one's end; nothing is saved up for it."""
        clock = Clock()
        limit = RateLimit(2, 10.0, clock.seconds)
        limit.allowed()
        clock.advance(35.0)
        self.assertEqual([limit.allowed() for _ in range(3)], [True, True, False])
        clock.advance(9.0)
        self.assertFalse(limit.allowed())
        clock.advance(1.0)
        self.assertTrue(limit.allowed())

    def test_suppressed(self) -> None:
        """Those not allowed are counted until asked for."""
        clock = Clock()
        limit = RateLimit(1, 1.0, clock.seconds)
        self.assertEqual(limit.take_suppressed(), 0)
        for _ in range(5):
            limit.allowed()
        clock.advance(1.0)
        limit.allowed()
        limit.allowed()
        self.assertEqual(limit.take_suppressed(), 5)
        self.assertEqual(limit.take_suppressed(), 0)
