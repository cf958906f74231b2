"""Round trip times against RFC 6298's arithmetic, computed here by hand."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.core._round_trip import RoundTrip

LONG = 60.0  # a call's timeout that does not shorten the first interval


class RoundTripTests(SynchronousTestCase):
    """SRTT, RTTVAR, the timeout, and Karn's rule."""

    def setUp(self) -> None:
        """Begin knowing nothing."""
        self.trip = RoundTrip()

    def test_nothing_known(self) -> None:
        """An eighth of the call's timeout, at most 1 s (section 2.1)."""
        for call, first in ((2.0, 0.25), (0.8, 0.1), (8.0, 1.0), (60.0, 1.0), (0.001, 0.000125)):
            self.assertEqual(self.trip.first_timeout(call), first)
        self.assertIsNone(self.trip.smoothed)

    def test_first_sample(self) -> None:
        """SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR = 3 R (section 2.2)."""
        self.trip.sampled(0.4)
        self.assertEqual((self.trip.smoothed, self.trip.variation), (0.4, 0.2))
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 1.2)

    def test_second_sample(self) -> None:
        """RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R'| before SRTT = 7/8 SRTT + 1/8 R' (section 2.3)."""
        self.trip.sampled(0.4)
        self.trip.sampled(0.8)
        # by hand: RTTVAR = 0.75 * 0.2 + 0.25 * 0.4 = 0.25; SRTT = 0.875 * 0.4 + 0.125 * 0.8 = 0.45; RTO = 1.45
        self.assertAlmostEqual(self.trip.variation, 0.25)
        self.assertAlmostEqual(self.trip.smoothed or 0, 0.45)
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 1.45)

    def test_third_sample_below(self) -> None:
        """A shorter round trip adds to the variation as a longer one does."""
        for sample in (0.4, 0.8, 0.05):
            self.trip.sampled(sample)
        # by hand: RTTVAR = 0.75 * 0.25 + 0.25 * 0.4 = 0.2875; SRTT = 0.875 * 0.45 + 0.125 * 0.05 = 0.4
        self.assertAlmostEqual(self.trip.variation, 0.2875)
        self.assertAlmostEqual(self.trip.smoothed or 0, 0.4)
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 0.4 + 4 * 0.2875)

    def test_floor(self) -> None:
        """The timeout is 0.2 s at least, however near the peer."""
        self.trip.sampled(0.0001)
        self.assertEqual(self.trip.first_timeout(LONG), 0.2)

    def test_ceiling(self) -> None:
        """... and 3 s at most (RFC 8085 section 3.1.3)."""
        self.trip.sampled(2.0)
        self.assertEqual(self.trip.first_timeout(LONG), 3.0)

    def test_clock_granularity(self) -> None:
        """A variation of nothing leaves room for the reactor's clock (section 2.3)."""
        self.trip.sampled(0.5)
        for _ in range(200):
            self.trip.sampled(0.5)
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 0.501, places=6)

    def test_known_beats_the_share(self) -> None:
        """What was measured counts, not an eighth of the call's timeout."""
        self.trip.sampled(0.2)
        self.assertAlmostEqual(self.trip.first_timeout(2.0), 0.6)

    def test_backed_off_is_kept(self) -> None:
        """An ambiguous answer is no sample, but its backed-off timeout is kept (sections 3 and 5.5 to 5.7)."""
        self.trip.sampled(0.1)
        self.trip.answered_late(1.2)
        self.assertEqual((self.trip.smoothed, self.trip.variation), (0.1, 0.05))
        self.assertEqual(self.trip.first_timeout(LONG), 1.2)

    def test_backed_off_without_sample(self) -> None:
        """It is kept as well where there is no sample at all: else a slow path would never yield one."""
        self.trip.answered_late(0.5)
        self.assertIsNone(self.trip.smoothed)
        self.assertEqual(self.trip.first_timeout(2.0), 0.5)

    def test_backed_off_never_shortens(self) -> None:
        """A shorter backed-off timeout does not replace a longer one."""
        self.trip.sampled(0.4)
        self.trip.answered_late(0.5)
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 1.2)

    def test_backed_off_ceiling(self) -> None:
        """It is 3 s at most."""
        self.trip.answered_late(12.0)
        self.assertEqual(self.trip.first_timeout(LONG), 3.0)

    def test_sample_ends_the_back_off(self) -> None:
        """The next unambiguous round trip counts again (section 5.7)."""
        self.trip.answered_late(3.0)
        self.trip.sampled(0.1)
        self.assertAlmostEqual(self.trip.first_timeout(LONG), 0.3)
