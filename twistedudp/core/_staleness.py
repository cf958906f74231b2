"""Which requests have waited for so long that nobody waits for their answers any more.

Theory of operation: under overload a server that serves in order of arrival serves requests whose callers have left,
and all its work is for nothing. So what is older than its caller waits is shed, by the time at which the kernel
received it. That alone would not do: a queue that is just as old as the limit stays there, and every answer comes when
its caller leaves. Therefore a *standing* queue is kept shorter. As with CoDel (RFC 8289 section 3) what tells it from a
burst is the least age seen: while it stays above a target for an interval, and for several looks, what is older than a
quarter of the limit is shed too. One request that is younger than the target ends that.

A look is at one batch, which is in order of arrival, so that its first datagram is the oldest and its last the
youngest: a batch whose first is young costs two comparisons. Ages are differences of the wall clock, which may be set:
where it does not agree with the steady clock any more, no age is believed for ``max_wait`` seconds. Whatever came
before that and waits still is truly too old then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..address import Address

__all__ = ["Staleness", "arrived_since"]

_TARGET: Final = 1 / 20
"""Part of ``max_wait``: a queue whose youngest is older than this (0.1 s of 2 s) is no longer what a burst leaves
behind on a server that keeps up, nor a pause of the garbage collector's."""

_INTERVAL: Final = 1 / 4
"""Part of ``max_wait`` for which it must have been so: several times what one method should take."""

_LOOKS: Final = 8
"""... and batches: where a method takes as long as the interval, two requests in a row are no standing queue yet."""

_STANDING: Final = 1 / 4
"""Part of ``max_wait`` that a request may have waited in a standing queue. Enough of them are left to keep the server
at work, their answers come in time, and when the load ends the queue is gone after that time."""

_STEP: Final = 1 / 8
"""Part of ``max_wait``: when the two clocks differ by so much more than before, one of them was set. What is less can
shed no more than that part of a queue, once."""


class Staleness:
    """Decides from which arrival time on requests are worth serving.

    Args:
        max_wait: Seconds for which a caller can still wait when a request has just come.

    Attributes:
        standing: Whether the queue is taken for a standing one.

    Raises:
        ValueError: It is not a positive number.
    """

    __slots__ = ("_above_since", "_looked", "_looks", "_max_wait", "_offset", "_trusted_from", "standing")

    def __init__(self, max_wait: float) -> None:
        if type(max_wait) not in (int, float) or not 0 < max_wait < math.inf:
            raise ValueError(f"max_wait={max_wait!r}: it must be a positive number of seconds, or None to shed nothing")
        self.standing = False
        self._max_wait = max_wait * 1e9
        self._offset = math.nan
        self._trusted_from = -math.inf
        self._above_since = 0.0
        self._looked = 0.0
        self._looks = 0

    def worth_serving_since(self, arrival_times: Sequence[int], *, now: float, wall: int) -> int:
        """Look at a batch.

        Args:
            arrival_times: When its datagrams arrived, by the wall clock in nanoseconds; at least one. 0 where a kernel
                has taken the option and tells nothing, as one that a sandbox stands in for may.
            now: The time in seconds by a clock that does not go back.
            wall: The time by the wall clock, in nanoseconds.

        Returns:
            The arrival time before which a datagram is to be shed; 0 where none of these is.
        """
        if not arrival_times[0]:
            return 0
        offset = wall - now * 1e9
        limit = self._max_wait
        if abs(offset - self._offset) < limit * _STEP:  # never true of the first, before which it is not a number
            self._offset = offset  # it drifts
            if wall - arrival_times[0] <= limit * _TARGET:
                self._looks = 0
                self.standing = False
                return 0
        else:
            self._trusted_from = -math.inf if math.isnan(self._offset) else now + limit / 1e9
            self._offset = offset
            self._looks = 0
        return self._limit_reached(arrival_times, now, wall)

    def _limit_reached(self, arrival_times: Sequence[int], now: float, wall: int) -> int:
        """Look at a batch that is not young."""
        limit = self._max_wait
        if now < self._trusted_from:
            self.standing = False
            return 0
        if wall - arrival_times[-1] <= limit * _TARGET:
            self._looks = 0
        elif not self._looks or now - self._looked > limit / 1e9:  # a queue that stood would have been looked at
            self._above_since = now
            self._looks = 1
        else:
            self._looks += 1
        self._looked = now
        self.standing = self._looks >= _LOOKS and now - self._above_since >= limit * _INTERVAL / 1e9
        since = wall - round(limit * _STANDING if self.standing else limit)
        return since if arrival_times[0] < since else 0


def arrived_since(
    since: int, datagrams: Sequence[tuple[bytes, Address]], arrival_times: Sequence[int]
) -> tuple[list[tuple[bytes, Address]], list[int]]:
    """Return the datagrams of a batch that arrived at a time or later, and when they did."""
    kept = [at for at, arrived in enumerate(arrival_times) if arrived >= since]
    return [datagrams[at] for at in kept], [arrival_times[at] for at in kept]
