"""When to stop asking a peer that does not answer.

Theory of operation: RFC 8085 section 3.1.10 wants a circuit breaker (RFC 8084) on what is sent over the Internet. After
some calls in a row that ran out, each without any answer of the peer meanwhile, the circuit is open: calls fail at
once, and only one in each cool-down is let through to see whether the peer is back. Anything that the peer answers
closes it, a response that comes too late for its call as well.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["COOL_DOWN", "THRESHOLD", "Breaker"]

THRESHOLD: Final = 5
"""Calls in a row that run out before the circuit opens: at 30 % loss each way all four tries of one call in 15 fail,
and five such calls one after the other are rarer than one in 500,000."""

COOL_DOWN: Final = 3.0
"""Seconds between two calls that are let through while the circuit is open: RFC 8085 section 3.1.3 allows one datagram
every 3 s to a peer that answers nothing."""


class Breaker:
    """The circuit breaker of one peer.

    Args:
        threshold: Calls in a row that run out before the circuit opens; 0 for a breaker that never opens.
        cool_down: Seconds between two calls that are let through while it is open.

    Attributes:
        failures: Calls that ran out since the last answer.
        is_open: Whether the circuit is open.
        retry_at: When the next call is let through, if it is open; in seconds.
    """

    __slots__ = ("_cool_down", "_threshold", "failures", "is_open", "retry_at")

    def __init__(self, threshold: int = THRESHOLD, cool_down: float = COOL_DOWN) -> None:
        self._threshold = threshold or math.inf
        self._cool_down = cool_down
        self.failures = 0
        self.is_open = False
        self.retry_at = 0.0

    def allows(self, now: float) -> bool:
        """Tell whether a call may be made."""
        return not self.is_open or now >= self.retry_at

    def let_through(self, now: float) -> None:
        """Learn that a call is made; while the circuit is open the next one has to wait for another cool-down."""
        self.retry_at = now + self._cool_down

    def answered(self) -> None:
        """Learn that the peer has answered: whatever it said, it is there."""
        self.failures = 0
        self.is_open = False

    def ran_out(self, now: float) -> None:
        """Learn that a call's deadline came without an answer."""
        self.failures += 1
        if self.failures >= self._threshold:
            if not self.is_open:
                self.retry_at = now + self._cool_down
            self.is_open = True
