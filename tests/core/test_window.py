"""How many requests may be in flight: RFC 5681 counted in requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core._window import INITIAL_WINDOW, MAX_WINDOW, MIN_WINDOW, Window


class WindowTests(SynchronousTestCase):
    """Its size, as answers come or do not."""

    def setUp(self) -> None:
        """Begin at the beginning."""
        self.window = Window()

    def answer(self, count: int = 1, in_flight: int | None = None) -> None:
        """Let answers come, by default while the whole window is in use."""
        for _ in range(count):
            self.window.in_flight = int(self.window.size) if in_flight is None else in_flight
            self.window.answered()

    def test_numbers(self) -> None:
        """It begins with four, and is never below two or above 256."""
        self.assertEqual((INITIAL_WINDOW, MIN_WINDOW, MAX_WINDOW), (4, 2, 256))
        self.assertEqual((self.window.size, self.window.in_flight), (4, 0))

    def test_full(self) -> None:
        """It is full when as many are in flight as it has places; a fraction of one is none."""
        for size, in_flight, full in (
            (4.0, 3, False), (4.0, 4, True), (4.9, 4, True), (5.0, 4, False), (2.0, 1, False), (2.0, 2, True),
            (4.0, 9, True),
        ):  # fmt: skip
            self.window.size, self.window.in_flight = size, in_flight
            self.assertEqual(self.window.is_full(), full, (size, in_flight))

    def test_slow_start(self) -> None:
        """It grows by one for each answer: a window of answers doubles it."""
        self.answer()
        self.assertEqual(self.window.size, 5)
        self.answer(3)
        self.assertEqual(self.window.size, 8)
        self.answer(8)
        self.assertEqual(self.window.size, 16)

    def test_avoidance(self) -> None:
        """Above half the size at which something was lost it grows by one for each window of answers."""
        self.answer(12)
        self.window.timed_out(1.0, 2.0)
        self.assertEqual(self.window.size, 8)
        self.answer()
        self.assertEqual(self.window.size, 8 + 1 / 8)
        self.answer(8)
        self.assertTrue(9.0 < self.window.size < 9.2, self.window.size)

    def test_slow_start_again(self) -> None:
        """Below that it grows by one for each answer."""
        self.answer(12)
        self.window.timed_out(1.0, 2.0)
        self.window.size = 4.0
        self.answer(4)
        self.assertEqual(self.window.size, 8)
        self.answer()
        self.assertEqual(self.window.size, 8.125)

    def test_halved_once(self) -> None:
        """What was lost together is one sign: only what was sent after the last reduction can be another."""
        self.answer(28)
        self.window.timed_out(1.0, 2.0)
        for sent in (0.5, 1.0, 1.1, 1.999):
            self.window.timed_out(sent, 2.1)
            self.assertEqual(self.window.size, 16)
        self.window.timed_out(2.0, 3.0)
        self.assertEqual(self.window.size, 8)
        self.window.timed_out(2.5, 3.1)
        self.assertEqual(self.window.size, 8)
        self.window.timed_out(3.05, 4.0)
        self.assertEqual(self.window.size, 4)

    def test_least(self) -> None:
        """It is two at least, however much is lost."""
        for number in range(10):
            self.window.timed_out(number, number + 0.5)
        self.assertEqual(self.window.size, 2)
        self.answer(1)
        self.assertEqual(self.window.size, 2.5)

    def test_most(self) -> None:
        """It is 256 at most, by either way of growing."""
        self.answer(1000)
        self.assertEqual(self.window.size, 256)
        self.window.timed_out(1.0, 2.0)
        self.answer(100_000)
        self.assertEqual(self.window.size, 256)

    def test_not_needed(self) -> None:
        """While less than half of it is in use it does not grow, since that would prove nothing."""
        self.answer(4)
        self.answer(10, in_flight=3)
        self.assertEqual(self.window.size, 8)
        self.answer(1, in_flight=4)
        self.assertEqual(self.window.size, 9)
        self.answer(1, in_flight=4)
        self.assertEqual(self.window.size, 9)

    def test_fixed(self) -> None:
        """A fixed one neither grows nor shrinks, be it larger than any other may be."""
        for size in (1, 3, 1000):
            self.window = Window(size)
            self.answer(10)
            self.window.timed_out(1.0, 2.0)
            self.assertEqual(self.window.size, size)
            self.window.in_flight = size - 1
            self.assertFalse(self.window.is_full())
            self.window.in_flight = size
            self.assertTrue(self.window.is_full())
