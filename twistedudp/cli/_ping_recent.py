"""What the live display of ``udpecho ping`` shows of the last probes, at little cost for each of them.

Theory of operation: a column of the sparkline stands for one probe, or, where probes leave more often than
:data:`COLUMN_SECONDS`, for as many as leave in that time: their longest round trip and the share of lost ones. Columns
go by the number of the probe and live in a ring. Percentiles of the run so far come from counts in ranges that grow
with the value; finding one in the HdrHistogram that the summary goes by takes longer than a probe may wait.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from ..probing import ProbeEvent

__all__ = ["COLUMN_SECONDS", "MOST_COLUMNS", "Column", "RecentProbes", "RunningPercentiles"]

COLUMN_SECONDS: Final = 0.1
"""Seconds that a column stands for at least: at one screen a second or so it can be followed by eye."""

MOST_COLUMNS: Final = 512
"""Columns remembered: wider than terminals are."""

_PRECISION_BITS: Final = 8  # ranges of 1/256 of their value: the third digit may be off by one


class Column(NamedTuple):
    """A column of the sparkline."""

    worst_ns: int
    """The longest round trip in nanoseconds; -1 where there is none."""
    lost: float
    """The share of the settled probes that were lost, 0 to 1."""


class RecentProbes:
    """The last probes, by columns.

    Args:
        interval: Seconds between two probes.

    Attributes:
        per_column: Probes that a column stands for.
    """

    def __init__(self, interval: float) -> None:
        self.per_column = max(1, round(COLUMN_SECONDS / interval))
        self._numbers = array("q", [-1] * MOST_COLUMNS)
        self._worst_ns = array("q", [-1] * MOST_COLUMNS)
        self._received = array("q", [0] * MOST_COLUMNS)
        self._lost = array("q", [0] * MOST_COLUMNS)

    def happened(self, event: ProbeEvent) -> None:
        """Take an answer or a loss; other events change nothing."""
        kind = event.kind
        if kind not in ("reply", "lost"):
            return
        number = event.sequence // self.per_column
        place = number % MOST_COLUMNS
        if self._numbers[place] != number:
            if self._numbers[place] > number:
                return  # so late that its column is gone
            self._numbers[place] = number
            self._worst_ns[place] = -1
            self._received[place] = self._lost[place] = 0
        if kind == "lost":
            self._lost[place] += 1
            return
        self._received[place] += 1
        self._worst_ns[place] = max(self._worst_ns[place], event.rtt_ns)

    def columns(self, width: int, next_sequence: int) -> list[Column]:
        """Return the last columns, the newest at the end.

        Args:
            width: How many at most.
            next_sequence: The number of the probe that will be sent next: columns reach up to the one before.
        """
        newest = (next_sequence - 1) // self.per_column if next_sequence else -1
        found = []
        for number in range(max(0, newest - min(width, MOST_COLUMNS) + 1), newest + 1):
            place = number % MOST_COLUMNS
            if self._numbers[place] != number:
                found.append(Column(-1, 0.0))
                continue
            lost = self._lost[place]
            found.append(Column(self._worst_ns[place], lost / (lost + self._received[place])))
        return found


class RunningPercentiles:
    """Percentiles of what was added so far, to within 0.2 %; found in some 0.1 ms, however many there are."""

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * (64 << _PRECISION_BITS)))
        self._total = 0
        self._largest = 0

    def add(self, value: int) -> None:
        """Take a value from 0 to 2^62."""
        shift = max(0, value.bit_length() - _PRECISION_BITS - 1)
        place = (shift << _PRECISION_BITS) + (value >> shift)
        self._counts[place] += 1
        self._total += 1
        self._largest = max(self._largest, place)

    def value(self, percent: float) -> float | None:
        """Return the value that so many percent do not exceed; None where there is none."""
        if not self._total:
            return None
        sums = list(accumulate(self._counts[: self._largest + 1]))
        place = bisect_left(sums, max(1.0, self._total * percent / 100))
        shift = max(0, (place >> _PRECISION_BITS) - 1)
        low = (place - (shift << _PRECISION_BITS)) << shift
        return low + ((1 << shift) - 1) / 2
