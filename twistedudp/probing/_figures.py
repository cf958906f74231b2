"""The figures of a series: distributions of times, jitter, and the split of loss into there and back.

Theory of operation: durations go into HdrHistograms with three significant digits, so that memory is constant and a
percentile is exact to a thousandth, however long a series is. Where an rpc server tells when a probe arrived and its
answer left, by its own clock, differences of neighbouring probes need no synchronised clocks: what the clocks are apart
cancels out (RFC 3393). Its count of the probes that it has had splits the loss.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._table import ProbeEvent
    from ._wire import ServerSide

__all__ = ["LONGEST_NS", "Distribution", "Jitter", "OneWay"]

LONGEST_NS: Final = 3600 * 10**9
"""Nanoseconds of the longest duration that a distribution tells apart: an hour. Longer ones count as this."""

_DIGITS: Final = 3

_MOST_RECENT: Final = 256
"""Replies whose delays are remembered until their neighbours' come: at 1 ms apart, for a quarter of a second."""

_STAMPS_AGREE_NS: Final = 1_000_000
"""Nanoseconds by which a server's stamps may be in another order than its counts: several processors make them."""


class Distribution:
    """Durations, in nanoseconds.

    Attributes:
        count: How many.
    """

    __slots__ = ("_histogram", "_mean", "_squares", "count", "longest_ns", "shortest_ns")

    def __init__(self) -> None:
        # Inside, for a server, which imports this package, needs none.
        from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]  # noqa: PLC0415  # it has no types

        self._histogram = HdrHistogram(1, LONGEST_NS, _DIGITS)
        self._mean = 0.0
        self._squares = 0.0
        self.count = 0
        self.shortest_ns = 0
        self.longest_ns = 0

    def add(self, duration_ns: int) -> None:
        """Take one duration; a negative one counts as none at all."""
        duration_ns = max(duration_ns, 0)
        self._histogram.record_value(min(max(duration_ns, 1), LONGEST_NS))
        self.shortest_ns = min(self.shortest_ns, duration_ns) if self.count else duration_ns
        self.longest_ns = max(self.longest_ns, duration_ns)
        self.count += 1
        off = duration_ns - self._mean  # Welford's method: sums of squares would lose all digits
        self._mean += off / self.count
        self._squares += off * (duration_ns - self._mean)

    @property
    def mean_ns(self) -> float:
        """The mean, 0 where there is nothing."""
        return self._mean

    @property
    def deviation_ns(self) -> float:
        """The standard deviation."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """Return the duration that so many percent do not exceed; 0 where there is nothing."""
        if not self.count:
            return 0
        value = int(self._histogram.get_value_at_percentile(percent))
        return min(max(value, self.shortest_ns), self.longest_ns)

    def buckets(self) -> list[tuple[int, int]]:
        """Return the durations in order, each with how many there are of it, as far as they are told apart."""
        return [
            (int(item.value_iterated_to), int(item.count_added_in_this_iter_step))
            for item in self._histogram.get_recorded_iterator()
        ]

    def encoded(self) -> str:
        """Return the histogram as other HdrHistogram programs read it: base64 of its compressed form, version 2."""
        text: bytes = self._histogram.encode()
        return text.decode("ascii")


class Jitter:
    """The interarrival jitter of RFC 3550 section 6.4.1, over round trips.

    Attributes:
        value_ns: Nanoseconds, as it stands.
    """

    __slots__ = ("_last_ns", "value_ns")

    def __init__(self) -> None:
        self.value_ns = 0.0
        self._last_ns = -1

    def add(self, rtt_ns: int) -> None:
        """Take the next round trip, in the order of arrival."""
        if self._last_ns >= 0:
            self.value_ns += (abs(rtt_ns - self._last_ns) - self.value_ns) / 16
        self._last_ns = rtt_ns


class OneWay:
    """What an rpc server's own times and counts tell about each direction.

    Attributes:
        counted: Whether the server has told its counts at the end; before, it is known for the answered probes only.
        highest: The highest sequence number that it has answered; -1 for none.
        server_time: From a probe's arrival at the server to its answer's departure.
        variation_there: How much the delay of neighbouring probes differs, on the way to the server (RFC 3393; its
            size, without the sign).
        variation_back: The same on the way back.
    """

    __slots__ = (
        "_latest", "_recent", "_restarted", "counted", "highest", "server_time", "variation_back", "variation_there",
    )  # fmt: skip

    def __init__(self) -> None:
        self.counted = False
        self.highest = -1
        self.server_time = Distribution()
        self.variation_there = Distribution()
        self.variation_back = Distribution()
        self._latest: ServerSide | None = None
        self._restarted = False
        self._recent: dict[int, tuple[int, int]] = {}

    def add(self, event: ProbeEvent) -> None:
        """Take a reply, a duplicate, a late one, or the counts at the end."""
        server = event.server
        if server is None:
            return
        self._compare(server)
        if event.kind == "counts":
            self.counted = True
        else:
            self.highest = max(self.highest, event.sequence)
        if event.kind != "reply":
            return
        self.server_time.add(server.departed_ns - server.arrived_ns)
        there, back = server.arrived_ns - event.sent_ns, event.arrived_ns - server.departed_ns
        # Neighbours by their numbers, whichever answer came first: those that overtake differ the most.
        for neighbour in (event.sequence - 1, event.sequence + 1):
            other = self._recent.get(neighbour)
            if other is not None:
                self.variation_there.add(abs(there - other[0]))
                self.variation_back.add(abs(back - other[1]))
        self._recent[event.sequence] = (there, back)
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def split(self, sent: int, answered: int) -> tuple[int, int] | None:
        """Return how many probes were lost on their way to the server, and answers on the way back.

        Args:
            sent: Probes sent; unless the server has :attr:`counted`, those up to the :attr:`highest` alone.
            answered: Probes with an answer, in time or late.

        Returns:
            None where the server's count does not tell.
        """
        if self._latest is None or self._restarted or not answered <= self._latest.received <= sent:
            return None
        return sent - self._latest.received, self._latest.received - answered

    def _compare(self, server: ServerSide) -> None:
        """Keep the latest counts; if they are less than earlier ones, the server has forgotten the series meanwhile."""
        latest = self._latest
        if latest is None:
            self._latest = server
            return
        more, later_ns = server.received - latest.received, server.arrived_ns - latest.arrived_ns
        if (more < 0 and later_ns > _STAMPS_AGREE_NS) or (more > 0 and later_ns < -_STAMPS_AGREE_NS):
            self._restarted = True
        if more >= 0:
            self._latest = server

    @property
    def duplicates_there(self) -> int | None:
        """Probes that the server has had more than once; None where it does not tell."""
        return None if self._latest is None or self._restarted else self._latest.duplicates
