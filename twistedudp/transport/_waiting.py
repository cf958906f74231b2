"""Datagrams that wait for room in the send buffer.

Theory of operation: a send that would block (EAGAIN) means that the socket's send buffer is full, which passes within
microseconds where the device is fast and within milliseconds where it is not. So the datagram waits, those written
after it wait behind it, and the socket is watched until it can take more. Waiting has bounds: what a server cannot send
is of no use to clients that have asked again meanwhile.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._stats import DatagramStats

__all__ = ["MAX_SEND_QUEUE", "MAX_SEND_QUEUE_SIZE", "SENDS_PER_TURN", "WOULD_BLOCK", "WaitingDatagrams"]

MAX_SEND_QUEUE: Final = 1024
"""Datagrams that may wait: several times what a full send buffer of the usual 212,992 bytes holds."""

MAX_SEND_QUEUE_SIZE: Final = 4 * 1024 * 1024
"""Bytes of payload that may wait: as much as the receive buffer of a port, 64 of the largest datagrams."""

SENDS_PER_TURN: Final = 128
"""Datagrams sent before the reactor gets its turn, as for reading."""

WOULD_BLOCK: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})
"""The errors of a send that would block; POSIX lets them be two."""

_Way = TypeVar("_Way")


class WaitingDatagrams(Generic[_Way]):
    """The datagrams of one socket that wait for room, in the order in which they were written.

    Args:
        stats: Where waiting and dropping is counted.
        watch_writable: Called with True when the first one waits, and with False when none does any more.
    """

    __slots__ = ("_closed", "_queue", "_size", "_stats", "_watch_writable")

    def __init__(self, stats: DatagramStats, watch_writable: Callable[[bool], None]) -> None:
        self._queue: deque[tuple[bytes, _Way]] = deque()
        self._size = 0
        self._closed = False
        self._stats = stats
        self._watch_writable = watch_writable

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, datagram: bytes, way: _Way) -> None:
        """Let a datagram wait behind the others, or drop and count it where too many do.

        Args:
            datagram: The payload; anything but ``bytes`` is copied, for its owner may change it.
            way: Where it is to go, as the sender of the datagrams understands it.
        """
        queue = self._queue
        size = self._size + len(datagram)
        if self._closed or len(queue) >= MAX_SEND_QUEUE or size > MAX_SEND_QUEUE_SIZE:
            self._drop()
            return
        queue.append((bytes(datagram), way))
        self._size = size
        self._stats.send_waited += 1
        if len(queue) == 1:
            self._watch_writable(True)  # as PortSocket has it

    def flush(self, transmit: Callable[[bytes, _Way], bool], most: int = SENDS_PER_TURN) -> None:
        """Send what the kernel takes, in order.

        Args:
            transmit: Sends one datagram and counts what becomes of it; returns False if it would block. Raises nothing.
            most: Datagrams to send at most; if more wait, the socket goes on being watched.
        """
        queue = self._queue
        while queue and most > 0:
            datagram, way = queue[0]
            if not transmit(datagram, way):
                return
            queue.popleft()
            self._size -= len(datagram)
            most -= 1
            if not queue:
                self._watch_writable(False)  # as above

    def close(self, transmit: Callable[[bytes, _Way], bool]) -> None:
        """Send what the kernel takes, drop and count the rest, and let nothing wait from now on.

        Args:
            transmit: As for :meth:`flush`.
        """
        self._closed = True
        self.flush(transmit, MAX_SEND_QUEUE)
        if self._queue:
            while self._queue:
                self._queue.popleft()
                self._drop()
            self._size = 0
            self._watch_writable(False)  # as above

    def _drop(self) -> None:
        self._stats.send_queue_dropped += 1
        self._stats.count_send_error(errno.EAGAIN)
