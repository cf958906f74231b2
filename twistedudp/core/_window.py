"""How many requests may be under way to one peer at once.

Theory of operation: RFC 8085 section 3.1.2 asks whoever sends more than a few datagrams per round trip for congestion
control. It is TCP's (RFC 5681), counted in requests: slow start from four, one more for each answer; above the
threshold, one more for each window of answers. A retransmission timer that runs out halves the window, once for all
that was sent before, since what was lost together is one sign of congestion. An answer lets the window grow only if at
least half of it is in use (RFC 7661): one that is not needed proves nothing.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["INITIAL_WINDOW", "MAX_WINDOW", "MIN_WINDOW", "Window"]

INITIAL_WINDOW: Final = 4
"""Requests in flight at the start; RFC 8085 section 3.1.2 calls it "a few datagrams"."""

MIN_WINDOW: Final = 2
"""Requests in flight however bad the network: with one, a single lost datagram would stop everything."""

MAX_WINDOW: Final = 256
"""Requests in flight however good the network: what the receive buffer that Linux gives by default (212,992 bytes)
holds of small datagrams."""


class Window:
    """The window of one peer.

    Args:
        fixed: Its size where it shall neither grow nor shrink; ``None`` for congestion control.

    Attributes:
        fixed: Whether it keeps its size.
        in_flight: Requests that are under way; the owner counts them.
        size: How many may be; grows by fractions.
    """

    __slots__ = ("_reduced", "_threshold", "fixed", "in_flight", "size")

    def __init__(self, fixed: int | None = None) -> None:
        self.in_flight = 0
        self.size: float = fixed or INITIAL_WINDOW
        self.fixed = fixed is not None
        self._threshold = math.inf
        self._reduced = -math.inf

    def is_full(self) -> bool:
        """Tell whether one more request has to wait."""
        return self.in_flight + 1 > self.size

    def answered(self) -> None:
        """Learn that a request was answered; to be told while it still counts as in flight."""
        size = self.size
        if self.fixed or 2 * self.in_flight < size:
            return
        self.size = min(size + (1 if size < self._threshold else 1 / size), MAX_WINDOW)

    def timed_out(self, sent: float, now: float) -> None:
        """Learn that nothing came for a datagram in time.

        Args:
            sent: When it was sent, in seconds.
            now: The time, in seconds.
        """
        if self.fixed or sent < self._reduced:
            return
        self.size = self._threshold = max(self.size / 2, MIN_WINDOW)
        self._reduced = now
