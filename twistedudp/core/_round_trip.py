"""How long to wait for a response before sending the request again.

Theory of operation: RFC 6298. Each unambiguous round trip updates a smoothed time and its variation; the retransmission
timeout is SRTT + 4 RTTVAR. A response to a request that was sent more than once is no sample, since it cannot be known
which datagram it answers (Karn's rule); instead the backed-off timeout that led to it is kept until a sample comes, or
else a path whose round trip is longer than the timeout would never yield one (RFC 6298 section 5.5 to 5.7).
Where nothing is known the caller's deadline decides: an eighth of it, at most the policy's first timeout, so that a
call of 2 s makes four tries.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

__all__ = ["INTERNET", "LAN", "RetransmissionPolicy", "RoundTrip"]


class RetransmissionPolicy(NamedTuple):
    """The bounds of the time between two tries of a request, all in seconds."""

    first_timeout: float
    """Before the first retransmission where no round trip is known and the call's timeout leaves room for it."""
    min_timeout: float
    """At least this between two tries, once a round trip is known."""
    max_timeout: float
    """At most this between two tries."""


INTERNET: Final = RetransmissionPolicy(first_timeout=1.0, min_timeout=0.2, max_timeout=3.0)
"""For any network. The first timeout is that of RFC 6298 section 2.1. The floor is below the 1 s of its section 2.4, as
practice is: Linux has 0.2 s in TCP and 0.1 s in sunrpc over UDP. RFC 8085 section 3.1.3 allows a datagram every 3 s to
a peer that answers nothing."""

LAN: Final = RetransmissionPolicy(first_timeout=0.2, min_timeout=0.05, max_timeout=3.0)
"""For a network that is yours from end to end, a controlled environment as RFC 8085 section 3.6 has it: a lost datagram
is made good sooner, at the price of needless repeats where a server is slow to answer."""

FIRST_SHARE: Final = 8
"""Where no round trip is known, the first timeout is at most this part of the call's timeout."""

_GRANULARITY: Final = 0.001  # G of RFC 6298 section 2.3: reactors wake up by the millisecond


class RoundTrip:
    """What is known of the round trips to one peer.

    Args:
        policy: The bounds to keep.

    Attributes:
        smoothed: SRTT in seconds, or ``None`` before the first sample.
        variation: RTTVAR in seconds.
        timeout: The retransmission timeout in seconds, or ``None`` while nothing is known.
    """

    __slots__ = ("_high", "_low", "_policy", "smoothed", "timeout", "variation")

    def __init__(self, policy: RetransmissionPolicy = INTERNET) -> None:
        self._policy = policy
        _, self._low, self._high = policy
        self.smoothed: float | None = None
        self.variation = 0.0
        self.timeout: float | None = None

    def first_timeout(self, call_timeout: float) -> float:
        """Return the seconds to wait before a call's first retransmission, before jitter.

        Args:
            call_timeout: The seconds that the whole call may take.
        """
        if self.timeout is None:
            return min(self._policy.first_timeout, call_timeout / FIRST_SHARE)
        return self.timeout

    def sampled(self, seconds: float) -> None:
        """Learn from a response to a request that was sent once (RFC 6298 sections 2.2 and 2.3)."""
        smoothed = self.smoothed
        if smoothed is None:
            self.smoothed = smoothed = seconds
            self.variation = variation = seconds / 2
        else:
            variation = self.variation
            error = seconds - smoothed
            self.variation = variation = variation + ((error if error > 0 else -error) - variation) / 4
            self.smoothed = smoothed = smoothed + error / 8
        timeout = smoothed + (4 * variation if variation > _GRANULARITY / 4 else _GRANULARITY)
        # abs(), max() and min() would take twice as long, and this is done for every answer.
        if timeout < self._low:
            timeout = self._low
        elif timeout > self._high:
            timeout = self._high
        self.timeout = timeout

    def answered_late(self, backed_off: float, elapsed: float = math.inf) -> None:
        """Learn from a response to a request that was sent again: keep its backed-off timeout until a sample comes.

        Where it came as soon after the last try as a response to that one would, a datagram was lost, and the path is
        no slower than is known.

        Args:
            backed_off: The request's last interval, in seconds.
            elapsed: Seconds since it was last sent; if not told, nothing is concluded from it.
        """
        smoothed = self.smoothed
        if smoothed is not None and elapsed <= smoothed + max(_GRANULARITY, 4 * self.variation):
            return
        self.timeout = max(self.timeout or self._low, min(backed_off, self._high))
