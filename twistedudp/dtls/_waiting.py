"""Who and what waits for a client's session: callers, each with a deadline, and payloads.

Theory of operation: payloads are few and small, for a handshake takes a fraction of a second where it does not lose
datagrams, and whoever writes them sends them again when no answer comes. The oldest are dropped: their senders have
waited longest and are the first to give up.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import TwistedUDPError
    from ._limits import DTLSStats

__all__ = ["Waiting"]

MAX_PAYLOADS: Final = 16
MAX_BYTES: Final = 16384
"""What waits at most: as much as a client may send at first to a server that it knows nothing of, four times over."""


class Waiting:
    """Callers and payloads.

    Args:
        stats: Where payloads that are dropped are counted.
    """

    __slots__ = ("_callers", "_payloads", "_size", "_stats")

    def __init__(self, stats: DTLSStats) -> None:
        self._stats = stats
        self._callers: dict[Deferred[None], float] = {}
        self._payloads: deque[bytes] = deque()
        self._size = 0

    def caller(self, deadline: float) -> Deferred[None]:
        """Return a Deferred for somebody who waits until a time."""
        waiting: Deferred[None] = Deferred(self._forget)
        self._callers[waiting] = deadline
        return waiting

    def keep(self, payload: bytes) -> None:
        """Keep a payload, at the cost of the oldest."""
        self._payloads.append(payload)
        self._size += len(payload)
        while len(self._payloads) > MAX_PAYLOADS or self._size > MAX_BYTES:
            self._size -= len(self._payloads.popleft())
            self._stats.not_sent["queue_full"] += 1

    def take_payloads(self) -> list[bytes]:
        """Return the payloads that wait, in the order in which they were written; they wait no more."""
        payloads = list(self._payloads)
        self._payloads.clear()
        self._size = 0
        return payloads

    def first_deadline(self) -> float:
        """Return when the first caller gives up; infinite where none waits."""
        return min(self._callers.values(), default=inf)

    def expire(self, now: float, error: Callable[[], TwistedUDPError]) -> None:
        """Fail the callers whose time is over."""
        for waiting, deadline in list(self._callers.items()):
            if deadline <= now and self._callers.pop(waiting, None) is not None:
                waiting.errback(error())

    def succeed(self) -> None:
        """Let all callers go on."""
        for waiting in self._take_callers():
            if not waiting.called:  # the callback of another has cancelled it
                waiting.callback(None)

    def fail(self, error: Callable[[], TwistedUDPError], reason: str) -> None:
        """Fail all callers, and drop the payloads.

        Args:
            error: Makes the error of each.
            reason: What the payloads are counted as.
        """
        dropped = len(self.take_payloads())
        if dropped:
            self._stats.not_sent[reason] += dropped
        for waiting in self._take_callers():
            if not waiting.called:  # as above
                waiting.errback(error())

    def _take_callers(self) -> list[Deferred[None]]:
        callers = list(self._callers)
        self._callers.clear()
        return callers

    def _forget(self, waiting: Deferred[None]) -> None:
        self._callers.pop(waiting, None)
