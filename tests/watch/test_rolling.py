"""Figures of the last probes: against the same figures of a list."""

from __future__ import annotations

import math
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.watch._rolling import BUCKETS, Rolling, bucket_of, middle_ns

ROUND_TRIPS = st.integers(0, 100 * 10**9)


class BucketTests(SynchronousTestCase):
    """Durations and their buckets."""

    def test_middle(self) -> None:
        """The middle of each bucket is in that bucket, and they are in order."""
        middles = [middle_ns(bucket) for bucket in range(BUCKETS)]
        self.assertEqual([bucket_of(middle) for middle in middles], list(range(BUCKETS)))
        self.assertEqual(middles, sorted(middles))

    def test_range(self) -> None:
        """From a microsecond to 68 seconds a duration is told to a sixteenth; what is beyond counts as the end."""
        for duration in (1024, 1025, 5000, 123456, 10**6, 10**9, 2**36 - 1):
            self.assertLessEqual(abs(middle_ns(bucket_of(duration)) - duration), duration / 16 + 1)
        self.assertEqual([bucket_of(duration) for duration in (0, 1, 1023)], [0, 0, 0])
        self.assertEqual(bucket_of(10**15), BUCKETS - 1)

    @settings(deadline=None)
    @given(st.integers(1024, 2**36 - 1))
    def test_any(self, duration: int) -> None:
        """The same for any duration."""
        self.assertLessEqual(abs(middle_ns(bucket_of(duration)) - duration), duration / 16 + 1)


class RollingTests(SynchronousTestCase):
    """The window."""

    def test_empty(self) -> None:
        """Without probes there is no figure; with failures only there is a loss and no round trip."""
        rolling = Rolling(10)
        self.assertEqual((rolling.loss, rolling.percentile_ns(50)), (None, None))
        rolling.lost()
        self.assertEqual((rolling.loss, rolling.percentile_ns(50), rolling.count), (1.0, None, 1))

    @settings(deadline=None)
    @given(st.integers(10, 50), st.lists(st.none() | ROUND_TRIPS, max_size=200), st.sampled_from((1, 50, 90, 99, 100)))
    def test_like_a_list(self, window: int, fates: list[int | None], percent: int) -> None:
        """Loss and percentiles are those of the list of the last probes."""
        rolling = Rolling(window)
        for fate in fates:
            rolling.lost() if fate is None else rolling.answered(fate)
        last = fates[-window:]
        answered = sorted(bucket_of(fate) for fate in last if fate is not None)
        self.assertEqual(rolling.count, len(last))
        self.assertEqual(rolling.loss, last.count(None) / len(last) if last else None)
        expected = middle_ns(answered[math.ceil(len(answered) * percent / 100) - 1]) if answered else None
        self.assertEqual(rolling.percentile_ns(percent), expected)

    def test_constant_memory(self) -> None:
        """It does not grow."""
        rolling = Rolling(100)

        def size() -> int:
            return sum(sys.getsizeof(getattr(rolling, name)) for name in rolling.__slots__)

        rolling.answered(10**6)
        before = size()
        for number in range(100000):
            rolling.lost() if number % 7 == 0 else rolling.answered(number * 1000)
        self.assertLessEqual(size(), before + 32)
        self.assertLess(before, 1000)
