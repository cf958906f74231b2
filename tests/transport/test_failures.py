"""What is logged of protocols that fail, however often anybody makes them."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._rate_limit import MAX_LOGGED_FAILURES
from twistedudp.transport import DatagramStats
from twistedudp.transport._failures import CallbackFailures


class CallbackFailuresTests(SynchronousTestCase):
    """Exceptions that a protocol lets out."""

    def test_bounded(self) -> None:
        """All are counted; in a minute only a few are logged, and with the next one how many were not."""
        clock, stats = Clock(), DatagramStats()
        failures = CallbackFailures(stats, clock.seconds)

        def fails() -> None:
            try:
                _ = 1 / 0
            except ZeroDivisionError:
                failures.caught("the protocol failed on a datagram")

        with capturedLogs() as events:
            for _ in range(5000):
                fails()
            clock.advance(60.0)
            fails()
        self.assertEqual(stats.callback_errors, 5001)
        texts = [event["text"] + event["more"] for event in events]
        self.assertEqual(texts[:-1], ["the protocol failed on a datagram"] * MAX_LOGGED_FAILURES)
        self.assertEqual(
            texts[-1], f"{texts[0]} ({5000 - MAX_LOGGED_FAILURES:,} failures since the last one were not logged)"
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), MAX_LOGGED_FAILURES + 1)
