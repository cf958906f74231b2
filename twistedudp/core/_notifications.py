"""The notifications that wait until the server's address is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._dispatch import Dispatch
    from ._pending import RequesterStats
    from ._servers import ServerList

__all__ = ["NotificationQueue"]


class NotificationQueue:
    """Sends notifications at once, or as soon as there is an address to send them to.

    Args:
        max_queued: Notifications that may wait; more are dropped and counted.
        servers: The servers' addresses.
        dispatch: What sends them.
        stats: The requester's counters.
    """

    def __init__(self, max_queued: int, servers: ServerList, dispatch: Dispatch, stats: RequesterStats) -> None:
        self._max_queued = max_queued
        self._servers = servers
        self._dispatch = dispatch
        self._stats = stats
        self._queue: list[bytes] = []

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, payload: bytes) -> None:
        """Send a notification to the server that comes first, or let it wait."""
        self._stats.notifications += 1
        server = self._servers.preferred
        if server is not None:
            self._dispatch.notify(payload, server)
        elif len(self._queue) < self._max_queued:
            self._queue.append(payload)
        else:
            self._stats.notifications_dropped += 1

    def release(self) -> None:
        """Send all that waits, for an address is known."""
        server = self._servers.preferred
        assert server is not None  # noqa: S101  # see above
        for payload in self._queue:
            self._dispatch.notify(payload, server)
        self._queue.clear()

    def drop(self) -> None:
        """Forget and count all that waits."""
        self._stats.notifications_dropped += len(self._queue)
        self._queue.clear()
