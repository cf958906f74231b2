"""One queue of deadlines for all requests.

Theory of operation: a binary heap of ``(due, msgid)``. An entry is never searched for: when a request is answered or
its due time moves, its old entry stays behind and is recognised as stale when it comes up, because no waiting request
has that msgid with that due time. Stale entries are bounded: when they outnumber the waiting requests four to one the
heap is built anew, which costs O(1) per request in the long run.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._pending import PendingRequest

__all__ = ["DeadlineQueue"]

_MIN_REBUILD: Final = 1024  # entries; below this, rebuilding would save nothing


class DeadlineQueue:
    """When the next thing is due, over all waiting requests.

    Args:
        waiting: The waiting requests by msgid, the owner's own table.
    """

    def __init__(self, waiting: dict[int, PendingRequest]) -> None:
        self._waiting = waiting
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: PendingRequest) -> None:
        """Enter a request at its due time, leaving a former entry behind."""
        heap = self._heap
        heappush(heap, (request.due, request.msgid))
        if len(heap) > _MIN_REBUILD and len(heap) > 5 * len(self._waiting):
            heap[:] = [(waiting.due, msgid) for msgid, waiting in self._waiting.items()]
            heapify(heap)

    def next_due(self) -> float | None:
        """Return when to look again, or ``None`` where nothing is waiting.

        It may be too early, where the request that was due then has ended: :meth:`pop_due` sorts that out, once in the
        time of a retransmission and not once for each request.
        """
        heap = self._heap
        if not self._waiting:
            heap.clear()
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> PendingRequest | None:
        """Remove and return one request whose due time has come, or return ``None``."""
        heap = self._heap
        waiting = self._waiting
        while heap:
            due, msgid = heap[0]
            request = waiting.get(msgid)
            if request is None or request.due != due:
                heappop(heap)
            elif due > now:
                return None
            else:
                heappop(heap)
                return request
        return None
