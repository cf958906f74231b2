"""Which requests have waited for too long."""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND
from twistedudp.core import Staleness, arrived_since

EPOCH = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Looks:
    """A staleness, and two clocks."""

    def __init__(self, max_wait: float = 2.0) -> None:
        self.staleness = Staleness(max_wait)
        self.now = 50.0
        self.set_by = 0

    @property
    def wall(self) -> int:
        """The wall clock."""
        return EPOCH + round(self.now * 1e9) + self.set_by

    def look(self, *ages: float) -> float | None:
        """Look at a batch of datagrams of some ages in seconds; return from which age on they are shed."""
        wall = self.wall
        times = [wall - round(age * 1e9) for age in ages]
        since = self.staleness.worth_serving_since(times, now=self.now, wall=wall)
        return (wall - since) / 1e9 if since else None


class StalenessTests(SynchronousTestCase):
    """One look after the other."""

    def test_limit(self) -> None:
        """What has waited for longer than max_wait is shed, and nothing that has not."""
        looks = Looks()
        self.assertEqual([looks.look(age) for age in (0.0, 0.05, 1.0, 2.0)], [None] * 4)
        self.assertEqual(looks.look(2.001, 1.0, 0.0), 2.0)
        self.assertEqual(looks.look(2.001), 2.0)

    def test_standing(self) -> None:
        """While the youngest stays older than a twentieth for a quarter, what is older than a quarter is shed."""
        looks = Looks()
        for _ in range(10):
            self.assertEqual((looks.look(1.0, 0.2), looks.staleness.standing), (None, False))
            looks.now += 0.0501
        self.assertEqual((looks.look(1.0, 0.2), looks.staleness.standing), (0.5, True))
        self.assertIsNone(looks.look(0.4, 0.2))
        self.assertEqual(looks.look(0.6, 0.2), 0.5)

    def test_one_young(self) -> None:
        """One that is younger ends it, as the last of a batch or in a batch of its own."""
        for young in ((0.01,), (0.6, 0.09)):
            looks = Looks()
            for _ in range(20):
                looks.look(0.6, 0.2)
                looks.now += 0.05
            self.assertTrue(looks.staleness.standing)
            self.assertIsNone(looks.look(*young))
            self.assertFalse(looks.staleness.standing)
            self.assertIsNone(looks.look(0.6, 0.2))

    def test_pauses(self) -> None:
        """Requests that have waited because the server paused now and then are no standing queue."""
        looks = Looks()
        for _ in range(30):
            self.assertIsNone(looks.look(0.7))
            looks.now += 2.5
        self.assertFalse(looks.staleness.standing)

    def test_slow_methods(self) -> None:
        """Where each takes longer than the interval, a few in a row are no standing queue yet."""
        looks = Looks()
        for _ in range(7):
            self.assertIsNone(looks.look(0.6))
            looks.now += 0.6
        self.assertEqual(looks.look(0.6), 0.5)

    def test_clock_set(self) -> None:
        """When the wall clock is set, nothing is shed for the time after which all that had come before is stale."""
        for step in (3600.0, -3600.0, 0.3, -0.3):
            looks = Looks()
            looks.look(0.0)
            looks.set_by = round(step * 1e9)
            self.assertIsNone(looks.look(3600.2, 3600.1))
            looks.now += 1.99
            self.assertIsNone(looks.look(3600.2, 3.0))
            looks.now += 0.02
            self.assertEqual(looks.look(3600.2, 3.0), 2.0)

    def test_drift(self) -> None:
        """A clock that is slewed is believed all the time."""
        looks = Looks()
        for _ in range(100):
            looks.set_by += 20_000_000
            looks.look(0.0)
            looks.now += 1.0
        self.assertEqual(looks.look(3.0), 2.0)

    def test_not_told(self) -> None:
        """Where the kernel does not tell when datagrams arrived, none is shed: they are not as old as the epoch."""
        looks = Looks()
        for _ in range(20):
            self.assertEqual(looks.staleness.worth_serving_since([0, 0], now=looks.now, wall=looks.wall), 0)
            looks.now += 0.1

    def test_arrived_later(self) -> None:
        """A datagram from the future, as after a clock was put back, is young."""
        looks = Looks()
        looks.look(0.0)
        self.assertIsNone(looks.look(-5.0))
        self.assertIsNone(looks.look(-5.0, 3.0))

    def test_bad_limit(self) -> None:
        """The limit is a positive number of seconds."""
        for bad in (0, -1.0, math.inf, math.nan, "2", True):
            self.assertRaises(ValueError, Staleness, bad)

    def test_arrived_since(self) -> None:
        """What is left of a batch keeps its order and its times."""
        batch = [(b"a", FIRST), (b"b", SECOND), (b"c", FIRST), (b"d", FIRST)]
        self.assertEqual(arrived_since(5, batch, (4, 5, 3, 9)), ([(b"b", SECOND), (b"d", FIRST)], [5, 9]))
        self.assertEqual(arrived_since(10, batch, (4, 5, 3, 9)), ([], []))


@dataclass
class Served:
    """What became of the requests of a simulated server."""

    sent: int = 0
    answered: list[tuple[float, float]] = field(default_factory=list)
    shed: int = 0
    dropped: int = 0
    waiting: int = 0

    def good(self, begin: float, end: float, within: float) -> int:
        """Return how many were answered in a time, within so many seconds of the request."""
        return sum(begin <= at < end and waited <= within for at, waited in self.answered)


class FirstInFirstOut:
    """A server that takes ``cost`` seconds for each request, behind a receive queue.

    Args:
        cost: Seconds for a request; shedding one takes a hundredth of that.
        room: Requests that fit the queue.
        max_wait: As a server's; ``None`` sheds nothing.
        seed: For the times of arrival.
        steps: When the wall clock is set, and by how many seconds.
    """

    def __init__(
        self,
        *,
        cost: float = 0.001,
        room: int = 5000,
        max_wait: float | None = 2.0,
        seed: int = 1,
        steps: tuple[tuple[float, float], ...] = (),
    ) -> None:
        self.cost, self.room = cost, room
        self.staleness = None if max_wait is None else Staleness(max_wait)
        self.rng = random.Random(seed)  # noqa: S311  # reproducible on purpose
        self.steps = steps
        self.queue: deque[tuple[float, int]] = deque()
        self.arrivals: deque[float] = deque()
        self.now = 0.0
        self.served = Served()

    def offer(self, rate: float, seconds: float) -> None:
        """Let requests come at a rate for a time, after those before."""
        at = self.arrivals[-1] if self.arrivals else self.now
        end = at + seconds
        while (at := at + self.rng.expovariate(rate)) < end:
            self.arrivals.append(at)

    def wall(self, at: float) -> int:
        """Return what the wall clock says at a time."""
        return EPOCH + round(at * 1e9) + sum(round(by * 1e9) for when, by in self.steps if when <= at)

    def run(self) -> Served:
        """Serve all that comes."""
        while self.arrivals or self.queue:
            if not self.queue and self.arrivals[0] > self.now:
                self.now = self.arrivals[0]
            self._arrive()
            batch = [self.queue.popleft() for _ in range(min(2, len(self.queue)))]
            since = 0
            if self.staleness is not None:
                times = [arrived for _, arrived in batch]
                since = self.staleness.worth_serving_since(times, now=self.now, wall=self.wall(self.now))
            for at, arrived in batch:
                if arrived < since:
                    self.served.shed += 1
                    self.now += self.cost / 100
                else:
                    self.now += self.cost
                    self.served.answered.append((self.now, self.now - at))
        return self.served

    def _arrive(self) -> None:
        while self.arrivals and self.arrivals[0] <= self.now:
            at = self.arrivals.popleft()
            self.served.sent += 1
            if len(self.queue) < self.room:
                self.queue.append((at, self.wall(at)))
            else:
                self.served.dropped += 1


class SimulatedOverloadTests(SynchronousTestCase):
    """A server of 1,000 requests a second, in virtual time."""

    def overload(self, factor: float, seconds: float = 10.0, **options: object) -> Served:
        """Offer so many times the capacity for some seconds, and then a tenth of it."""
        server = FirstInFirstOut(**options)  # type: ignore[arg-type]  # what it takes
        capacity = 1 / server.cost
        server.offer(factor * capacity, seconds)
        server.offer(capacity / 10, 4.0)
        served = server.run()
        self.assertEqual(served.sent, len(served.answered) + served.shed + served.dropped)
        return served

    def test_goodput(self) -> None:
        """At 1.2 to 20 times the capacity nearly all of it goes to requests whose callers still wait."""
        for factor in (1.2, 2.0, 5.0, 20.0):
            served = self.overload(factor)
            floor = 1 - 0.012 * factor  # a hundredth of a request's cost is what shedding takes
            self.assertGreater(served.good(1.0, 10.0, 2.0), 9000 * floor, factor)

    def test_without_it(self) -> None:
        """The same without shedding, and with a plain limit, answers almost nobody in time: what all of this is for."""
        self.assertLess(self.overload(2.0, max_wait=None).good(5.0, 10.0, 2.0), 100)
        served = self.overload(2.0, max_wait=8.0)  # where the plain limit of 2 s is that of a standing queue
        self.assertLess(served.good(5.0, 10.0, 2.0), 3000)

    def test_end(self) -> None:
        """Half a second after the load has ended everybody is answered at once."""
        served = self.overload(2.0)
        late = [waited for at, waited in served.answered if at - waited > 10.6]
        self.assertGreater(len(late), 250)
        self.assertLess(max(late), 0.02)
        worst = max(waited for at, waited in self.overload(2.0, max_wait=None).answered if at - waited > 10.6)
        self.assertGreater(worst, 3.0)

    def test_bursts(self) -> None:
        """Bursts that the server works off before the next one lose nothing."""
        server = FirstInFirstOut()
        for _ in range(20):
            server.offer(10_000, 0.04)
            server.offer(10, 0.96)
        served = server.run()
        self.assertEqual((served.shed, served.dropped), (0, 0))

    def test_near_capacity(self) -> None:
        """At 90 % of the capacity nothing is shed."""
        server = FirstInFirstOut()
        server.offer(900, 60.0)
        self.assertEqual(server.run().shed, 0)

    def test_small_queue(self) -> None:
        """Where the queue is less than a tenth of a second the kernel drops what is too much, and nothing is shed."""
        served = self.overload(3.0, room=80)
        self.assertEqual(served.shed, 0)
        self.assertGreater(served.good(1.0, 10.0, 0.1), 8900)

    def test_slow_method(self) -> None:
        """A method of 0.3 s is kept at work too, though a queue of two is older than the target."""
        served = self.overload(2.0, seconds=60.0, cost=0.3)
        self.assertGreater(served.good(5.0, 60.0, 2.0), 0.8 * 55 / 0.3)

    def test_clock_set(self) -> None:
        """A wall clock that is set, either way, sheds nothing that is young, and is made up for in seconds."""
        for by in (3600.0, -3600.0, 1.0, -1.0, 0.3, -0.3):
            calm = FirstInFirstOut(steps=((5.0, by),))
            calm.offer(800, 10.0)
            self.assertEqual(calm.run().shed, 0, by)
            served = self.overload(2.0, seconds=15.0, steps=((5.0, by),))
            self.assertGreater(served.good(10.0, 15.0, 2.0), 4500, by)
            self.assertGreater(served.good(5.0, 10.0, 2.0), 3000, by)
