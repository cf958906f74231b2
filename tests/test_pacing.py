"""Timers and clocks for pacing, on clocks that the test moves; the timerfd itself is tested on real reactors."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twistedudp._pacing import CLOCK_STEP_NS, MOST_LAG_NS, ArrivalClock, Clocks, Ticker, clocks_of
from twistedudp.testing import SimulatedNetwork

US = 1_000
MS = 1_000_000
S = 1_000_000_000


class TickerTests(SynchronousTestCase):
    """A ticker on a reactor without descriptors."""

    def setUp(self) -> None:
        """Make the ticker."""
        self.reactor = Clock()
        self.reactor.advance(1234.5678)
        self.clocks = clocks_of(self.reactor)
        self.start = self.clocks.monotonic_ns()
        self.called: list[int] = []
        self.ticker = Ticker(self.reactor, self.tick, self.clocks.monotonic_ns)
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def tick(self) -> None:
        """Note the time."""
        self.called.append(self.clocks.monotonic_ns() - self.start)

    def test_once(self) -> None:
        """It calls back at the time asked for, to a microsecond, and once."""
        self.assertFalse(self.ticker.precise)
        self.ticker.at(self.start + 5 * MS)
        self.reactor.advance(0.0049)
        self.assertEqual(self.called, [])
        self.reactor.pump([0.0001, 0.001, 1.0])
        self.assertEqual(len(self.called), 1)
        self.assertLessEqual(abs(self.called[0] - 5 * MS), US)

    def test_past(self) -> None:
        """What is overdue is called back for in the next turn, not from inside."""
        self.ticker.at(self.start - S)
        self.assertEqual(self.called, [])
        self.reactor.advance(0)
        self.assertEqual(self.called, [0])

    def test_again(self) -> None:
        """A later at() replaces an earlier one, be it for an earlier or a later time."""
        self.ticker.at(self.start + 5 * MS)
        self.ticker.at(self.start + 2 * MS)
        self.reactor.pump([0.001] * 3)
        self.assertEqual(len(self.called), 1)
        self.ticker.at(self.start + 10 * MS)
        self.ticker.at(self.start + 20 * MS)
        self.reactor.pump([0.001] * 16)
        self.assertEqual(len(self.called), 1)
        self.reactor.pump([0.001] * 2)
        self.assertEqual(len(self.called), 2)

    def test_thousand(self) -> None:
        """A thousand ticks of a millisecond, each asked for from the one before, do not drift, whatever is rounded."""
        due = self.start

        def tick() -> None:
            nonlocal due
            self.tick()
            due += MS
            if due < self.start + S:
                ticker.at(due)

        ticker = Ticker(self.reactor, tick, self.clocks.monotonic_ns)
        ticker.at(due)
        for _ in range(20_000):
            self.reactor.advance(0.00005)
        self.assertEqual(len(self.called), 1000)
        for number, at in enumerate(self.called):
            self.assertTrue(-US <= at - number * MS <= 51 * US, (number, at))

    def test_cancel(self) -> None:
        """Cancelled, it leaves nothing, and does nothing any more."""
        self.ticker.at(self.start + MS)
        self.ticker.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.ticker.cancel()
        self.ticker.at(self.start + MS)
        self.reactor.advance(1)
        self.assertEqual(self.called, [])

    def test_cancelled_from_inside(self) -> None:
        """It may be cancelled from the callback."""

        def tick() -> None:
            self.tick()
            ticker.cancel()
            ticker.at(self.start)

        ticker = Ticker(self.reactor, tick, self.clocks.monotonic_ns)
        ticker.at(self.start)
        self.reactor.pump([0, 1])
        self.assertEqual(self.called, [0])

    def test_failing(self) -> None:
        """What the callback raises is logged, and the ticker goes on."""

        def fail() -> None:
            raise ZeroDivisionError

        ticker = Ticker(self.reactor, fail, self.clocks.monotonic_ns)
        for _ in range(2):
            ticker.at(self.start)
            self.reactor.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_simulated(self) -> None:
        """On a simulated host it is exact."""
        network = SimulatedNetwork()
        clocks = clocks_of(network.reactor())
        called: list[int] = []

        def tick() -> None:
            called.append(clocks.monotonic_ns())
            ticker.at((len(called) + 1) * MS)

        ticker = Ticker(network.reactor(), tick, clocks.monotonic_ns)
        ticker.at(MS)
        network.advance(0.1005)
        ticker.cancel()
        self.assertEqual([round(at / US) for at in called], [number * 1000 for number in range(1, 101)])
        self.assertEqual(network.leftovers(), [])


class FakeClocks:
    """Two clocks that a test moves; each reading takes some time, as it does for a process that is interrupted.

    Attributes:
        now: The monotonic time.
        offset: How much the wall clock is ahead of it.
        takes: Nanoseconds that pass with each reading.
    """

    def __init__(self) -> None:
        self.now = 50 * S
        self.offset = 1_800_000_000 * S
        self.takes = 40

    def monotonic_ns(self) -> int:
        """Read the monotonic clock."""
        self.now += self.takes
        return self.now

    def wall_ns(self) -> int:
        """Read the wall clock."""
        self.now += self.takes
        return self.now + self.offset


class ArrivalClockTests(SynchronousTestCase):
    """Arrival times by the monotonic clock, though the kernel stamps by the wall clock."""

    def setUp(self) -> None:
        """Begin."""
        self.clocks = FakeClocks()
        self.steps = 0
        self.arrivals = ArrivalClock(Clocks(self.clocks.monotonic_ns, self.clocks.wall_ns), self.stepped)

    def stepped(self) -> None:
        """Count that the clock was set."""
        self.steps += 1

    def stamp(self) -> tuple[int, int]:
        """Return when a datagram arrives just now: truly, and as the kernel stamps it."""
        return self.clocks.now, self.clocks.now + self.clocks.offset

    def assert_told(self, arrived_ns: int, true_ns: int) -> None:
        """Check an arrival, as exact as the two clocks can be compared."""
        self.assertLessEqual(abs(arrived_ns - true_ns), 200)

    def test_lag(self) -> None:
        """However long a datagram waited to be read, its arrival is when the kernel got it."""
        for lag in (0, US, MS, 900 * MS, 59 * S):
            true_ns, kernel_ns = self.stamp()
            self.clocks.now += lag
            arrived_ns, by_kernel, now_ns = self.arrivals.arrived(kernel_ns)
            self.assertTrue(by_kernel)
            self.assert_told(arrived_ns, true_ns)
            self.assertLessEqual(abs(now_ns - self.clocks.now), 200)
        self.assertEqual(self.steps, 0)

    def test_no_stamp(self) -> None:
        """Without the kernel's word, the time of reading counts."""
        arrived_ns, by_kernel, now_ns = self.arrivals.arrived(None)
        self.assertEqual((arrived_ns, by_kernel), (now_ns, False))

    def test_interrupted(self) -> None:
        """Being interrupted between two readings of the clocks is no step, and spoils nothing."""
        for takes in (5 * MS, 40, 700 * MS, 40):
            self.clocks.takes = takes
            self.arrivals.look()
        true_ns, kernel_ns = self.stamp()
        self.clocks.now += MS
        arrived_ns, by_kernel, _ = self.arrivals.arrived(kernel_ns)
        self.assertTrue(by_kernel)
        self.assert_told(arrived_ns, true_ns)
        self.assertEqual(self.steps, 0)

    def test_interrupted_at_the_start(self) -> None:
        """A first reading that was interrupted is put right by a later one."""
        self.clocks.takes = 300 * MS
        arrivals = ArrivalClock(Clocks(self.clocks.monotonic_ns, self.clocks.wall_ns), self.stepped)
        self.clocks.takes = 40
        arrivals.look()
        true_ns, kernel_ns = self.stamp()
        self.assert_told(arrivals.arrived(kernel_ns)[0], true_ns)
        self.assertEqual(self.steps, 0)

    def test_steps(self) -> None:
        """Set forward or back, by little or much, between arrival and reading: never is the kernel believed.

        The time of reading counts then, which is late by the lag and no more; the step is counted once, and the next
        datagram's stamp is good again.
        """
        steps = [sign * step for step in (200 * US, 5 * MS, S, 3600 * S, 10**6 * S) for sign in (1, -1)]
        for number, step in enumerate(steps):
            true_ns, kernel_ns = self.stamp()
            self.clocks.now += 100 * US
            self.clocks.offset += step
            arrived_ns, by_kernel, now_ns = self.arrivals.arrived(kernel_ns)
            self.assertEqual((arrived_ns, by_kernel), (now_ns, False), step)
            self.assertTrue(true_ns <= arrived_ns <= true_ns + 101 * US)
            self.assertEqual(self.steps, number + 1)
            self.clocks.now += MS
            true_ns, kernel_ns = self.stamp()
            self.clocks.now += MS
            arrived_ns, by_kernel, _ = self.arrivals.arrived(kernel_ns)
            self.assertTrue(by_kernel)
            self.assert_told(arrived_ns, true_ns)
        self.assertEqual(self.steps, len(steps))

    def test_forward_and_back(self) -> None:
        """A step that a look in between has seen spoils no stamp of that while."""
        self.clocks.offset += 500 * MS
        self.arrivals.look()
        _, kernel_ns = self.stamp()
        self.clocks.now += MS
        self.clocks.offset -= 500 * MS
        arrived_ns, by_kernel, now_ns = self.arrivals.arrived(kernel_ns)
        self.assertEqual((arrived_ns, by_kernel), (now_ns, False))
        self.assertEqual(self.steps, 2)

    def test_small_steps(self) -> None:
        """What is less than a step is followed without a word."""
        for _ in range(50):
            self.clocks.offset += CLOCK_STEP_NS // 2
            self.arrivals.look()
        true_ns, kernel_ns = self.stamp()
        self.assert_told(self.arrivals.arrived(kernel_ns)[0], true_ns)
        self.assertEqual(self.steps, 0)

    def test_too_old(self) -> None:
        """A stamp older than any that a running process meets is not believed."""
        _, kernel_ns = self.stamp()
        self.clocks.now += MOST_LAG_NS + MS
        self.assertFalse(self.arrivals.arrived(kernel_ns)[1])

    def test_future(self) -> None:
        """Nor is one of the future."""
        _, kernel_ns = self.stamp()
        self.assertFalse(self.arrivals.arrived(kernel_ns + MS)[1])

    def test_from_before(self) -> None:
        """Nor one from before the clock was known."""
        self.assertFalse(self.arrivals.arrived(self.stamp()[1] - MS)[1])
