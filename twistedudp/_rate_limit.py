"""A limit on how often something is logged, for what anybody on the network can provoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_LOGGED_FAILURES", "RateLimit", "failure_limit"]

MAX_LOGGED_FAILURES: Final = 20
"""Tracebacks a minute of code that is served; with 2 kB each, 60 MB a day, whoever provokes them."""


class RateLimit:
    """Allow a number of things per interval, and count those that were not allowed.

    Args:
        count: Things allowed in one interval.
        interval: Its length in seconds.
        clock: Returns the time in seconds.
    """

    __slots__ = ("_clock", "_count", "_interval", "_left", "_suppressed", "_until")

    def __init__(self, count: int, interval: float, clock: Callable[[], float]) -> None:
        self._count = count
        self._interval = interval
        self._clock = clock
        self._until = clock()
        self._left = 0
        self._suppressed = 0

    def allowed(self) -> bool:
        """Tell whether one more is allowed now."""
        now = self._clock()
        if now >= self._until:
            self._until = now + self._interval
            self._left = self._count
        if not self._left:
            self._suppressed += 1
            return False
        self._left -= 1
        return True

    def take_suppressed(self) -> int:
        """Return how many were not allowed since this was last asked."""
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


def failure_limit(clock: Callable[[], float]) -> RateLimit:
    """Return the limit of what is logged of failures of code that is served.

    Args:
        clock: Returns the time in seconds.
    """
    return RateLimit(MAX_LOGGED_FAILURES, 60.0, clock)
