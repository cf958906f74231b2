"""The figures of a target's last probes, in memory that does not grow.

Theory of operation: a byte for each of the last probes, which has the bucket of its round trip or says that it failed,
and for each bucket how many of them it has. A probe pushes the oldest out, which takes the same time however many there
are. Buckets are an eighth of a power of two wide, so a percentile is off by a sixteenth at most. An HdrHistogram
forgets nothing, and has kilobytes for each target.
"""

from __future__ import annotations

import math
from array import array
from typing import Final

__all__ = ["BUCKETS", "Rolling", "bucket_of", "middle_ns"]

_LEAST_BITS: Final = 10  # buckets begin at 2**10 ns; a shorter round trip counts as about a microsecond
_STEP_BITS: Final = 3
BUCKETS: Final = 208
"""26 powers of two, from a microsecond to 68 seconds."""

_FAILED: Final = 255
_EMPTY: Final = 254


def bucket_of(duration_ns: int) -> int:
    """Return the number of a duration's bucket."""
    bits = duration_ns.bit_length() - 1
    if bits < _LEAST_BITS:
        return 0
    return min((bits - _LEAST_BITS << _STEP_BITS) + ((duration_ns >> bits - _STEP_BITS) & 7), BUCKETS - 1)


def middle_ns(bucket: int) -> int:
    """Return the duration in the middle of a bucket, in nanoseconds."""
    octave, step = divmod(bucket, 1 << _STEP_BITS)
    width = 1 << octave + _LEAST_BITS - _STEP_BITS
    return ((1 << _STEP_BITS) + step) * width + width // 2


class Rolling:
    """The last probes of one target.

    Args:
        window: How many.

    Attributes:
        count: Probes in the window; fewer than its size at the start.
        failed: Of these, those without an answer that counts.
    """

    __slots__ = ("_buckets", "_place", "_ring", "count", "failed")

    def __init__(self, window: int) -> None:
        self._ring = bytearray([_EMPTY]) * window
        self._place = 0
        self._buckets = array("H", bytes(2 * BUCKETS))
        self.count = 0
        self.failed = 0

    def answered(self, rtt_ns: int) -> None:
        """Take a round trip, in nanoseconds."""
        bucket = bucket_of(rtt_ns)
        self._push(bucket)
        self._buckets[bucket] += 1

    def lost(self) -> None:
        """Take a failure."""
        self._push(_FAILED)
        self.failed += 1

    @property
    def loss(self) -> float | None:
        """The share of failures; None before the first probe."""
        count = self.count
        return self.failed / count if count else None

    def percentile_ns(self, percent: float) -> int | None:
        """Return the round trip that so many percent of the answered probes do not exceed; None without any."""
        # A copy: a scrape reads it in a thread of its own, and the loop must see as many as the sum.
        buckets = self._buckets.tolist()
        rank = math.ceil(sum(buckets) * percent / 100)
        if not rank:
            return None
        for bucket, count in enumerate(buckets):
            rank -= count
            if rank <= 0:
                return middle_ns(bucket)
        raise AssertionError("unreachable")

    def _push(self, bucket: int) -> None:
        place = self._place
        gone = self._ring[place]
        self._ring[place] = bucket
        self._place = place + 1 if place + 1 < len(self._ring) else 0
        if gone == _EMPTY:
            self.count += 1
        elif gone == _FAILED:
            self.failed -= 1
        else:
            self._buckets[gone] -= 1
