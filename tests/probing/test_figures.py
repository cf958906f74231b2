"""Distributions, jitter, and what an rpc server's numbers tell, against figures worked out by hand or plainly."""

from __future__ import annotations

import math
import random
import statistics

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # it has no types
from twisted.trial.unittest import SynchronousTestCase

from tests.probing.answers import EPOCH, MS
from twistedudp.probing import Distribution, Jitter, OneWay, ProbeEvent, ServerSide
from twistedudp.probing._figures import LONGEST_NS

DIGITS = 0.001
"""How exact a percentile is: three digits."""


class DistributionTests(SynchronousTestCase):
    """Durations."""

    def assert_close(self, found: float, expected: float, share: float) -> None:
        """Check that a figure is off by no more than a share of it."""
        self.assertTrue(abs(found - expected) <= share * expected, f"{found} is not {expected}")

    def test_empty(self) -> None:
        """There is nothing to tell of none."""
        empty = Distribution()
        self.assertEqual((empty.count, empty.mean_ns, empty.deviation_ns, empty.percentile_ns(50)), (0, 0, 0, 0))

    def test_against_sorted(self) -> None:
        """Percentiles are those of the sorted values to a thousandth; mean and deviation are exact."""
        source = random.Random(5)  # noqa: S311  # durations of a test
        values = [round(source.lognormvariate(math.log(3 * MS), 1.5)) for _ in range(5000)]
        durations = Distribution()
        for value in values:
            durations.add(value)
        values.sort()
        for percent in (0.1, 10, 50, 90, 99, 99.9, 100):
            exact = values[round(percent * len(values) / 100) - 1]
            self.assert_close(durations.percentile_ns(percent), exact, DIGITS)
        self.assert_close(durations.mean_ns, statistics.fmean(values), 1e-9)
        self.assert_close(durations.deviation_ns, statistics.pstdev(values), 1e-9)
        self.assertEqual((durations.shortest_ns, durations.longest_ns), (values[0], values[-1]))

    def test_percentiles_within_extremes(self) -> None:
        """A bucket's edge beyond the longest value is none of its percentiles."""
        durations = Distribution()
        durations.add(1_234_567)
        self.assertEqual({durations.percentile_ns(percent) for percent in (0, 50, 99.9, 100)}, {1_234_567})

    def test_out_of_range(self) -> None:
        """Negative durations count as none, those beyond an hour as an hour in percentiles; no extreme is invented."""
        durations = Distribution()
        for value in (-5, 2 * LONGEST_NS):
            durations.add(value)
        self.assertEqual((durations.shortest_ns, durations.longest_ns, durations.count), (0, 2 * LONGEST_NS, 2))
        self.assert_close(durations.percentile_ns(100), LONGEST_NS, DIGITS)

    def test_encoded(self) -> None:
        """Other programs decode the histogram; buckets are what it holds."""
        durations = Distribution()
        for value in (MS, MS, 5 * MS):
            durations.add(value)
        decoded = HdrHistogram.decode(durations.encoded())
        self.assertEqual(decoded.get_total_count(), 3)
        self.assert_close(decoded.get_value_at_percentile(100), 5 * MS, DIGITS)
        buckets = durations.buckets()
        self.assertEqual([count for _, count in buckets], [2, 1])
        self.assert_close(buckets[1][0], 5 * MS, DIGITS)


class JitterTests(SynchronousTestCase):
    """RFC 3550."""

    def test_by_hand(self) -> None:
        """It moves by a sixteenth of what neighbouring round trips differ by; the first one has no neighbour."""
        jitter = Jitter()
        expected = [0.0, 1.0, 1.0 + (32 - 1.0) / 16, (1.0 + 31 / 16) * 15 / 16]
        for rtt_ns, value in zip((100, 116, 84, 84), expected, strict=True):
            jitter.add(rtt_ns)
            self.assertAlmostEqual(jitter.value_ns, value)


class OneWayTests(SynchronousTestCase):
    """An rpc server's numbers."""

    def setUp(self) -> None:
        """Begin."""
        self.one_way = OneWay()

    def reply(
        self, sequence: int, received: int, there: int = 10, back: int = 5, *, took: int = 1, kind: str = "reply"
    ) -> None:
        """Take the answer to a probe that was sent at so many milliseconds; the rest in ms as well."""
        arrived = EPOCH + (sequence + there) * MS
        server = ServerSide(received, 0, arrived, arrived + took * MS)
        event = ProbeEvent(
            kind,
            sequence,
            sent_ns=sequence * MS,
            server=server,
            arrived_ns=(sequence + there + took + back) * MS,
        )
        self.one_way.add(event)

    def test_variation(self) -> None:
        """Delay variation is that of neighbours, each way by itself, though the clocks are ages apart."""
        for sequence, (there, back, took) in enumerate(((10, 5, 1), (14, 5, 2), (11, 12, 3))):
            self.reply(sequence, sequence + 1, there, back, took=took)
        self.assertEqual(self.one_way.variation_there.count, 2)
        self.assertEqual(
            (self.one_way.variation_there.shortest_ns, self.one_way.variation_there.longest_ns), (3 * MS, 4 * MS)
        )
        self.assertEqual((self.one_way.variation_back.shortest_ns, self.one_way.variation_back.longest_ns), (0, 7 * MS))
        self.assertEqual(self.one_way.server_time.longest_ns, 3 * MS)

    def test_only_neighbours(self) -> None:
        """Probes between which others were lost are no neighbours; duplicates and late ones count for nothing."""
        self.reply(0, 1)
        self.reply(2, 3, there=50)
        self.reply(2, 3, there=95, kind="duplicate")
        self.assertEqual(self.one_way.variation_there.count, 0)
        self.assertEqual(self.one_way.server_time.count, 2)

    def test_neighbours_that_were_overtaken(self) -> None:
        """Neighbours are so by their numbers: one whose answer was overtaken is compared with both of its own."""
        for sequence, there in ((0, 10), (2, 10), (3, 11), (1, 90)):
            self.reply(sequence, sequence + 1, there=there)
        variation = self.one_way.variation_there
        self.assertEqual((variation.count, variation.shortest_ns, variation.longest_ns), (3, MS, 80 * MS))

    def test_neighbours_are_forgotten(self) -> None:
        """Replies far behind are compared with nothing, and memory does not grow."""
        for sequence in range(2, 1000):
            self.reply(sequence, sequence + 1)
        before = self.one_way.variation_there.count
        self.reply(1, 2, there=500)
        self.assertEqual(self.one_way.variation_there.count, before)

    def test_split(self) -> None:
        """What the server has had divides the loss."""
        self.reply(9, 8)
        self.assertEqual(self.one_way.split(10, 5), (2, 3))
        self.assertEqual(self.one_way.highest, 9)

    def test_counts(self) -> None:
        """The counts at the end are the last word."""
        self.reply(5, 6)
        self.assertFalse(self.one_way.counted)
        self.one_way.add(ProbeEvent("counts", server=ServerSide(9, 4, EPOCH + 10**12, EPOCH + 10**12)))
        self.assertTrue(self.one_way.counted)
        self.assertEqual(self.one_way.split(10, 6), (1, 3))
        self.assertEqual(self.one_way.duplicates_there, 4)

    def test_reordered(self) -> None:
        """Answers that overtake each other do not look like a restart."""
        self.reply(1, 2)
        self.reply(0, 1)
        self.reply(2, 3)
        self.assertEqual(self.one_way.split(3, 3), (0, 0))

    def test_batch(self) -> None:
        """Answers of one batch, which a server may stamp alike, may overtake each other as well."""
        for received in (2, 1, 3):
            server = ServerSide(received, 0, EPOCH, EPOCH)
            self.one_way.add(ProbeEvent("reply", received - 1, sent_ns=0, server=server, arrived_ns=MS))
        self.assertEqual(self.one_way.split(3, 3), (0, 0))

    def test_restarted(self) -> None:
        """A server that has forgotten the series tells nothing, even if its count has grown past the old one."""
        for sequence in range(5):
            self.reply(sequence, sequence + 1)
        self.reply(10, 1)
        for sequence in range(11, 20):
            self.reply(sequence, sequence - 9)
        self.assertIsNone(self.one_way.split(20, 10))
        self.assertIsNone(self.one_way.duplicates_there)

    def test_restarted_at_the_end(self) -> None:
        """The same where only the counts at the end show it."""
        self.reply(5, 6)
        self.one_way.add(ProbeEvent("counts", server=ServerSide(0, 0, EPOCH + 10**12, EPOCH + 10**12)))
        self.assertIsNone(self.one_way.split(6, 1))

    def test_impossible(self) -> None:
        """Counts that cannot be are not made loss of: more than were sent, fewer than were answered."""
        self.reply(0, 50)
        self.assertIsNone(self.one_way.split(10, 5))
        self.assertIsNone(self.one_way.split(100, 60))

    def test_nothing(self) -> None:
        """Without an rpc server there is nothing to tell."""
        self.one_way.add(ProbeEvent("reply", 0, 5))
        self.assertIsNone(self.one_way.split(1, 1))
        self.assertIsNone(self.one_way.duplicates_there)
        self.assertEqual(self.one_way.highest, -1)
