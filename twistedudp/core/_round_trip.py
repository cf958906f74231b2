"""How long to wait for a response before sending the request again.

Theory of operation: RFC 6298. Each unambiguous round trip updates a smoothed time and its variation; the retransmission
timeout is SRTT + 4 RTTVAR. A response to a request that was sent more than once is no sample, since it cannot be known
which datagram it answers (Karn's rule); instead the backed-off timeout that led to it is kept until a sample comes, or
else a path whose round trip is longer than the timeout would never yield one (RFC 6298 section 5.5 to 5.7).
Where nothing is known the caller's deadline decides: an eighth of it, at most the 1 s of RFC 6298 section 2.1, so that
a call of 2 s makes four tries.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIRST_TIMEOUT", "MAX_TIMEOUT", "MIN_TIMEOUT", "RoundTrip"]

FIRST_TIMEOUT: Final = 1.0
"""Seconds before the first retransmission where no round trip is known (RFC 6298 section 2.1)."""

FIRST_SHARE: Final = 8
"""... or this part of the call's timeout, where that is shorter."""

MIN_TIMEOUT: Final = 0.2
"""Seconds; below the 1 s of RFC 6298 section 2.4, as practice is (Linux has 0.2 s in TCP and in sunrpc over UDP)."""

MAX_TIMEOUT: Final = 3.0
"""Seconds between two tries: RFC 8085 section 3.1.3 allows one datagram every 3 s to a peer that answers nothing."""

_CLOCK_GRANULARITY: Final = 0.001  # G of RFC 6298 section 2.3: reactors wake up by the millisecond


class RoundTrip:
    """What is known of the round trips to one peer.

    Attributes:
        smoothed: SRTT in seconds, or ``None`` before the first sample.
        variation: RTTVAR in seconds.
    """

    __slots__ = ("_timeout", "smoothed", "variation")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.variation = 0.0
        self._timeout: float | None = None

    def first_timeout(self, call_timeout: float) -> float:
        """Return the seconds to wait before a call's first retransmission, before jitter.

        Args:
            call_timeout: The seconds that the whole call may take.
        """
        if self._timeout is None:
            return min(FIRST_TIMEOUT, call_timeout / FIRST_SHARE)
        return self._timeout

    def sampled(self, seconds: float) -> None:
        """Learn from a response to a request that was sent once (RFC 6298 sections 2.2 and 2.3)."""
        if self.smoothed is None:
            self.smoothed = seconds
            self.variation = seconds / 2
        else:
            self.variation += (abs(self.smoothed - seconds) - self.variation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        timeout = self.smoothed + max(_CLOCK_GRANULARITY, 4 * self.variation)
        self._timeout = min(max(timeout, MIN_TIMEOUT), MAX_TIMEOUT)

    def answered_late(self, backed_off: float) -> None:
        """Learn from a response to a request that was sent again: keep its backed-off timeout until a sample comes."""
        self._timeout = max(self._timeout or 0.0, min(backed_off, MAX_TIMEOUT))
