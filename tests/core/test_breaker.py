"""When a peer that does not answer is asked no more."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core._breaker import COOL_DOWN, THRESHOLD, Breaker


class BreakerTests(SynchronousTestCase):
    """Open, closed, and who is let through."""

    def open(self, breaker: Breaker, now: float = 0.0) -> None:
        """Let as many calls run out as it takes by default."""
        for _ in range(THRESHOLD):
            breaker.ran_out(now)

    def test_numbers(self) -> None:
        """Five calls, three seconds (RFC 8085 section 3.1.3)."""
        self.assertEqual((THRESHOLD, COOL_DOWN), (5, 3.0))

    def test_opens(self) -> None:
        """The fifth call in a row opens it, not the fourth."""
        breaker = Breaker()
        for failures in range(1, 5):
            breaker.ran_out(10.0)
            self.assertEqual((breaker.failures, breaker.is_open, breaker.allows(10.0)), (failures, False, True))
        breaker.ran_out(10.0)
        self.assertEqual((breaker.is_open, breaker.allows(10.0), breaker.retry_at), (True, False, 13.0))

    def test_in_a_row(self) -> None:
        """An answer between them begins the row anew."""
        breaker = Breaker(3)
        for _ in range(5):
            breaker.ran_out(1.0)
            breaker.ran_out(2.0)
            breaker.answered()
        self.assertEqual((breaker.failures, breaker.is_open), (0, False))

    def test_cool_down(self) -> None:
        """One call goes through when it is over, and the next after another one."""
        breaker = Breaker(cool_down=2.0)
        self.open(breaker, 10.0)
        self.assertFalse(breaker.allows(11.999))
        self.assertTrue(breaker.allows(12.0))
        breaker.let_through(12.5)
        self.assertFalse(breaker.allows(14.499))
        self.assertTrue(breaker.allows(14.5))

    def test_more_failures(self) -> None:
        """Calls that run out while it is open, which were sent before, do not put off the next look."""
        breaker = Breaker()
        self.open(breaker, 10.0)
        breaker.ran_out(12.9)
        self.assertTrue(breaker.allows(13.0))

    def test_closes(self) -> None:
        """Any answer closes it, and it takes a whole row to open it again."""
        breaker = Breaker()
        self.open(breaker, 10.0)
        breaker.answered()
        self.assertEqual((breaker.is_open, breaker.allows(10.0)), (False, True))
        for _ in range(4):
            breaker.ran_out(20.0)
        self.assertFalse(breaker.is_open)
        breaker.ran_out(21.0)
        self.assertEqual((breaker.is_open, breaker.retry_at), (True, 24.0))

    def test_never(self) -> None:
        """A threshold of 0 means never."""
        breaker = Breaker(0)
        for _ in range(1000):
            breaker.ran_out(0.0)
        self.assertEqual((breaker.is_open, breaker.allows(0.0)), (False, True))

    def test_one(self) -> None:
        """A threshold of 1 means at once."""
        breaker = Breaker(1)
        breaker.ran_out(0.0)
        self.assertTrue(breaker.is_open)
