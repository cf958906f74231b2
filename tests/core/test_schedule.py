"""The times of the tries over many jitters and round trips, against RFC 6298 computed anew with exact fractions."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import pairwise
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, Client
from twistedudp.core._round_trip import RoundTrip
from twistedudp.errors import RequestTimedOut

SEEDS: Final = range(1000)
FLOOR: Final = Fraction(1, 5)
CEILING: Final = Fraction(3)
CLOSE: Final = 1e-9  # seconds: what floats may be off


class RFC6298:
    """Sections 2.2 and 2.3 as they are written, and nothing else."""

    ALPHA: Final = Fraction(1, 8)
    BETA: Final = Fraction(1, 4)
    K: Final = 4
    G: Final = Fraction(1, 1000)

    def __init__(self) -> None:
        self.srtt = Fraction(0)
        self.rttvar = Fraction(0)
        self.measured = False

    def measure(self, r: Fraction) -> Fraction:
        """Take a measurement R and return the RTO, within our own bounds."""
        if not self.measured:
            self.measured = True
            self.srtt = r
            self.rttvar = r / 2
        else:
            self.rttvar = (1 - self.BETA) * self.rttvar + self.BETA * abs(self.srtt - r)
            self.srtt = (1 - self.ALPHA) * self.srtt + self.ALPHA * r
        return min(max(self.srtt + max(self.G, self.K * self.rttvar), FLOOR), CEILING)


def source_of(seed: int) -> random.Random:
    """Return a generator."""
    return random.Random(seed)  # noqa: S311  # to be repeatable


def times(client: Client, seconds: float) -> list[float]:
    """Return the seconds after which datagrams were sent."""
    return [at for at, _ in client.run(seconds)]


class ArithmeticTests(SynchronousTestCase):
    """What is learnt from measurements."""

    def test_against_the_rfc(self) -> None:
        """SRTT, RTTVAR and the timeout are those of the RFC after each of many measurements of every size."""
        floors = ceilings = 0
        for seed in SEEDS:
            source = source_of(seed)
            trip, reference = RoundTrip(), RFC6298()
            scale = 10 ** source.uniform(-4, 0.5)
            for _ in range(30):
                seconds = scale * source.uniform(0.5, 1.5)
                trip.sampled(seconds)
                expected = reference.measure(Fraction(seconds))
                self.assertAlmostEqual(trip.smoothed or 0, float(reference.srtt), delta=CLOSE)
                self.assertAlmostEqual(trip.variation, float(reference.rttvar), delta=CLOSE)
                self.assertAlmostEqual(trip.first_timeout(60.0), float(expected), delta=CLOSE)
                floors += expected == FLOOR
                ceilings += expected == CEILING
        self.assertGreater(min(floors, ceilings), 1000)

    def test_measured_by_calls(self) -> None:
        """Calls measure what the RFC means: from the transmission to its answer, of calls that were sent once."""
        for seed in SEEDS:
            source = source_of(seed)
            client, reference = Client(FIRST, jitter=source.random()), RFC6298()
            timeout = Fraction(1)
            for _ in range(10):
                seconds = source.uniform(0.0, float(timeout)) * 0.999
                client.answer(client.call(timeout=60.0), after=seconds)
                client.outcome(), client.sent()
                timeout = reference.measure(Fraction(seconds))
            client.jitter = 0.0
            client.call(timeout=60.0)
            self.assertAlmostEqual(times(client, 4.0)[1], float(timeout), delta=1e-6)


class TriesTests(SynchronousTestCase):
    """When the tries of one call are made."""

    def test_jitter_then_doubling(self) -> None:
        """The first wait is within RTO and 1.5 RTO, the next twice the RTO, and so on, and from 3 s on it stays."""
        stretches = []
        for seed in SEEDS:
            source = source_of(seed)
            client = Client(FIRST, jitter=source.random())
            seconds = source.uniform(0.0, 0.999)
            client.answer(client.call(timeout=60.0), after=seconds)
            client.outcome(), client.sent()
            timeout = float(RFC6298().measure(Fraction(seconds)))
            client.call(timeout=60.0)
            first, *later = (after - before for before, after in pairwise(times(client, 60.0)))
            self.assertTrue(timeout - CLOSE <= first <= 1.5 * timeout, (first, timeout))
            stretches.append(first / timeout)
            for number, wait in enumerate(later, 1):
                self.assertAlmostEqual(wait, min(timeout * 2**number, 3.0), delta=CLOSE)
            self.assertGreaterEqual(len(later), 17)
            self.assertIsInstance(client.error(), RequestTimedOut)
        # All of the range is used: else clients that lost together would still repeat together.
        self.assertLess(min(stretches), 1.01)
        self.assertGreater(max(stretches), 1.49)

    def test_four_tries(self) -> None:
        """The default 2 s have room for four tries, whatever the jitter: with nothing known, and on a near path."""
        for seed in SEEDS:
            source = source_of(seed)
            for known in (False, True):
                client = Client(FIRST, jitter=source.random())
                if known:
                    client.answer(client.call(timeout=60.0), after=source.uniform(0.0, 0.08))
                    client.outcome(), client.sent()
                client.call(timeout=2.0)
                self.assertEqual(len(times(client, 2.0)), 4)
                self.assertIsInstance(client.error(), RequestTimedOut)

    def test_four_tries_after_losses(self) -> None:
        """A path that loses datagrams, but is as fast as before, leaves room for four tries as well.

        An answer as soon after the last try as the path is known to take says that a datagram was lost, not that the
        path has become slow; the backed-off timeout of one call is then no reason for the next one to wait.
        """
        for lost in range(1, 8):
            client = Client(FIRST)
            client.answer(client.call(timeout=60.0), after=0.01)
            client.outcome(), client.sent()
            request = client.call(timeout=60.0)
            for _ in range(lost):
                due = client.requester.next_deadline()
                assert due is not None
                client.now = due
                client.requester.deadline_reached(now=due)
            client.answer(request, after=0.01)
            self.assertEqual((client.outcome().error, request.attempts), (None, lost + 1))
            client.sent()
            client.call(timeout=2.0)
            self.assertEqual(len(times(client, 2.0)), 4, f"{lost} lost")

    def test_path_becomes_slow(self) -> None:
        """On a path that has become slower than its timeout, a call is soon answered before it is repeated.

        Karn's rule alone would never measure such a path again; the backed-off timeout that is kept makes it so.
        """
        for seed in SEEDS:
            source = source_of(seed)
            client = Client(FIRST)
            for _ in range(20):
                client.answer(client.call(timeout=60.0), after=0.01)
                client.outcome(), client.sent()
            seconds = source.uniform(0.31, 2.9)
            attempts: list[int] = []
            while attempts[-1:] != [1] and len(attempts) < 50:
                client.jitter = source.random()
                request = client.call(timeout=60.0)
                client.run(seconds)
                client.answer(request)
                client.outcome(), client.sent()
                attempts.append(request.attempts)
            self.assertLess(len(attempts), 15, (seed, seconds, attempts))
