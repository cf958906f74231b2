"""One timer for many deadlines, on a clock that the test moves."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._alarm import Alarm


class AlarmTests(SynchronousTestCase):
    """When it calls back, and how many delayed calls it takes."""

    def setUp(self) -> None:
        """Make the alarm; time that does not go back is the reactor's plus what that was put back."""
        self.reactor = Clock()
        self.put_back = 0.0
        self.called: list[float] = []
        self.alarm = Alarm(self.reactor, self.now, self.called.append)

    def now(self) -> float:
        """Return the time."""
        return self.reactor.seconds() + self.put_back

    def test_first(self) -> None:
        """It calls back for what is due first, once, with one delayed call."""
        for due in (3.0, 2.0, 4.0, 2.5):
            self.alarm.at(due)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.pump([1.0] * 9)
        self.assertEqual(self.called, [2.0])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """Nothing is asked for, and nothing happens."""
        self.alarm.at(None)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_past(self) -> None:
        """What is overdue is called back for in the next turn, not from inside."""
        self.reactor.advance(5.0)
        self.alarm.at(1.0)
        self.assertEqual(self.called, [])
        self.reactor.advance(0)
        self.assertEqual(self.called, [5.0])

    def test_cancel(self) -> None:
        """Cancelled, it leaves nothing in the reactor, and can be used again."""
        self.alarm.at(1.0)
        self.alarm.cancel()
        self.alarm.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.alarm.at(2.0)
        self.reactor.advance(2.0)
        self.assertEqual(self.called, [2.0])

    def test_clock_put_back(self) -> None:
        """A wall clock that was put back an hour does not make it an hour late: the next caller sets it anew."""
        self.alarm.at(1.0)
        self.reactor.rightNow -= 3600.0
        self.put_back = 3600.0
        self.reactor.advance(5.0)
        self.assertEqual(self.called, [])
        self.alarm.at(6.0)
        self.alarm.at(5.5)
        self.reactor.advance(0.5)
        self.assertEqual(self.called, [5.5])

    def test_clock_put_forward(self) -> None:
        """A wall clock that was put forward an hour does not make it early."""
        self.alarm.at(1.0)
        self.put_back = -3600.0
        self.reactor.advance(3600.5)
        self.assertEqual(self.called, [])
        self.reactor.advance(0.5)
        self.assertEqual(self.called, [1.0])

    def test_rounding(self) -> None:
        """Fired a hair early, it does not set itself again for nothing, and says that the time has come."""
        self.reactor.advance(0.1)
        self.alarm.at(1.0)
        self.put_back = -0.00005
        self.reactor.advance(0.9)
        self.assertEqual(self.called, [1.0])
