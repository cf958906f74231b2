"""How many runs of each method go on at once, and when to come back."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST
from twistedudp.core._responder import IncomingRequest
from twistedudp.core._slots import MAX_RETRY_AFTER, METHOD_SLOTS, MIN_RETRY_AFTER, MethodSlots, bounded_hint


class SlotsTests(SynchronousTestCase):
    """Slots that are held and released."""

    def setUp(self) -> None:
        """Make the slots of a method with three, and of others with the default."""
        self.slots = MethodSlots({"three": 3})

    def hold(self, method: str, count: int = 1, now: float = 0.0) -> list[IncomingRequest]:
        """Let some runs of a method begin."""
        runs = [IncomingRequest(FIRST, 1, method, []) for _ in range(count)]
        for run in runs:
            self.slots.hold(run, now)
        return runs

    def test_full(self) -> None:
        """A method is full when its last slot is held, and not any more when one is released."""
        runs = self.hold("three", 2)
        self.assertEqual((self.slots.full, self.slots.held("three")), (set(), 2))
        runs += self.hold("three")
        self.assertEqual((self.slots.full, self.slots.held("three")), ({"three"}, 3))
        self.slots.release(runs[1], 1.0)
        self.assertEqual((self.slots.full, self.slots.held("three")), (set(), 2))

    def test_default(self) -> None:
        """Without a bound of its own a method has 1,024 slots; they are its own alone."""
        self.hold("other", METHOD_SLOTS - 1)
        self.assertEqual(self.slots.full, set())
        self.hold("other")
        self.hold("three", 2)
        self.assertEqual((METHOD_SLOTS, self.slots.full, self.slots.held("none")), (1024, {"other"}, 0))

    def test_mean(self) -> None:
        """Come back after the mean time of the latest runs, of which a new one is an eighth."""
        first, second = self.hold("three", 2)
        self.slots.release(first, 2.0)
        self.hold("three", 2, now=2.0)
        self.assertEqual(self.slots.retry_after("three", 2.0), 2.0)
        self.slots.release(second, 10.0)
        self.hold("three", now=10.0)
        self.assertEqual(self.slots.retry_after("three", 3.0), 3.0)

    def test_oldest(self) -> None:
        """Where runs take longer than before, or none has ended yet, it is half the time of the oldest."""
        runs = self.hold("three", 3)
        self.assertEqual(self.slots.retry_after("three", 0.0), MIN_RETRY_AFTER)
        self.assertEqual(self.slots.retry_after("three", 8.0), 4.0)
        self.slots.release(runs[0], 1.0)
        self.assertEqual(self.slots.retry_after("three", 8.0), 4.0)
        self.assertEqual(self.slots.retry_after("three", 1.5), 1.0)

    def test_bounds(self) -> None:
        """A hint is from 0.05 to 30 s, in milliseconds."""
        self.assertEqual((MIN_RETRY_AFTER, MAX_RETRY_AFTER), (0.05, 30.0))
        self.assertEqual([bounded_hint(seconds) for seconds in (-1.0, 0.0499, 1.23456, 1e9)], [0.05, 0.05, 1.235, 30.0])

    def test_many(self) -> None:
        """To find the oldest does not take longer the more were released before it."""
        runs = self.hold("many", 100_000)
        for run in runs[:-1]:
            self.slots.release(run, 1.0)
        for _ in range(10_000):  # each of which would look at 100,000 empty places in a dict
            self.slots.retry_after("many", 1.0)
        self.assertEqual(self.slots.held("many"), 1)
